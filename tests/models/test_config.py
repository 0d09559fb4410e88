"""Checked access to a config."""

import pytest

from openwork.core.errors import ModelError
from openwork.models.config import Config

CONFIG = Config(
    {"n": 3, "x": 0.5, "yes": True, "name": "a", "list": [1, 2.5], "words": ["a", "b"], "in": {"n": -1}, "none": None},
    "dir/config.json",
)


def test_values_of_the_right_kind():
    assert CONFIG.whole("n", 1, 5) == 3
    assert CONFIG.real("x", 0, 1) == 0.5
    assert CONFIG.real("n", 0, 3) == 3.0
    assert CONFIG.reals("list", 2, 0, 9) == (1.0, 2.5)
    assert CONFIG.flag("yes", False) is True
    assert CONFIG.choice("name", {"a": 1}) == 1
    assert CONFIG.words("words", 2, ("a", "b")) == ("a", "b")
    assert CONFIG.first("other", "n", "x") == "n"


def test_absent_and_null_mean_the_default():
    for name in ("none", "absent"):
        assert not CONFIG.has(name)
        assert CONFIG.whole(name, 1, 5, 2) == 2
        assert CONFIG.real(name, 0, 1, 0.25) == 0.25
        assert CONFIG.flag(name, True) is True
        assert CONFIG.choice(name, {"b": 2}, "b") == 2
        assert CONFIG.words(name, 1, ("a",)) is None
        assert CONFIG.section(name) is None
        with pytest.raises(ModelError, match="is missing"):
            CONFIG.whole(name, 1, 5)


def test_errors_name_file_field_and_what_is_allowed():
    inner = CONFIG.section("in")
    with pytest.raises(ModelError) as error:
        inner.whole("n", 0, 7)
    assert (error.value.where, error.value.field) == ("dir/config.json", "in.n")
    assert "is -1; it must be an integer from 0 to 7" in str(error.value)


@pytest.mark.parametrize("value", [0, 6, -1, 2.0, "3", True, [3], {}, 10**400])
def test_whole_numbers(value):
    with pytest.raises(ModelError, match="integer from 1 to 5"):
        Config({"n": value}).whole("n", 1, 5)


@pytest.mark.parametrize("value", [0, -1.5, 2, float("nan"), float("inf"), "1", True, [1], 10**400, -(10**400)])
def test_real_numbers(value):
    with pytest.raises(ModelError, match="number above 0, at most 1"):
        Config({"x": value}).real("x", 0, 1)


def test_a_real_number_at_its_bound():
    assert Config({"x": 0}).real("x", 0, 1, or_low=True) == 0
    with pytest.raises(ModelError):
        Config({"x": False}).real("x", 0, 1, or_low=True)


@pytest.mark.parametrize("value", [1, [1], [1, 2, 3], [1, "2"], [1, 0], "ab", [1, None]])
def test_lists_of_numbers(value):
    with pytest.raises(ModelError):
        Config({"x": value}).reals("x", 2, 0, 9)


@pytest.mark.parametrize("value", ["a", ["a"], ["a", "c"], ["a", 1], ["a", ["b"]]])
def test_lists_of_words(value):
    with pytest.raises(ModelError):
        Config({"x": value}).words("x", 2, ("a", "b"))


@pytest.mark.parametrize("value", [1, "a", [1]])
def test_sections(value):
    with pytest.raises(ModelError, match="must be an object"):
        Config({"x": value}).section("x")


def test_errors_stay_short_whatever_the_file_holds():
    for value in ("a" * 10**6, 10**400, [[1] * 10**5]):
        with pytest.raises(ModelError) as error:
            Config({"n": value}).whole("n", 1, 2)
        assert len(str(error.value)) < 200
