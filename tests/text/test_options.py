"""Options behind a prompt: the same tokens that prompt and option have together."""

import pytest

from openwork import RequestError
from openwork.load.source import resolve
from openwork.testing.byte_tokenizer import write_byte_tokenizer
from openwork.text.options import place
from openwork.text.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def stories():
    return Tokenizer.load(resolve(None))


def placed(tokenizer, prompt, options):
    return place(tokenizer, prompt, tokenizer.encode(prompt), options)


PROMPTS = ["the cat was ", "the cat was", "the cat w", "x", " ", "It said: ", "word " * 60, "word " * 60 + "end"]


@pytest.mark.parametrize("prompt", PROMPTS)
@pytest.mark.parametrize("options", [["big", "red"], [" big", " red and blue"], ["as big", "as small", "ith me", ""]])
def test_prompt_and_option_have_the_tokens_of_the_whole_text(stories, prompt, options):
    found = placed(stories, prompt, options)
    for option, ids in zip(options, found.options, strict=True):
        assert [*found.prompt_ids, *ids] == stories.encode(prompt + option)
    shared = stories.encode(prompt)
    assert list(found.prompt_ids) == shared[: len(found.prompt_ids)]


def test_the_prompt_keeps_all_that_it_can(stories):
    assert list(placed(stories, "the cat was", [" big", " red"]).prompt_ids) == stories.encode("the cat was")
    moved = placed(stories, "the cat was ", ["big", "red"])
    assert list(moved.prompt_ids) == stories.encode("the cat was"), "the space belongs to the words"
    assert stories.decode(moved.options[0], continues=True) == " big"


def test_a_prompt_of_ids_is_left_alone(stories):
    ids = stories.encode("the cat was ")
    found = place(stories, None, ids, ["big", "red"])
    assert list(found.prompt_ids) == ids
    assert [list(option) for option in found.options] == [stories.encode(o, add_special=False) for o in ("big", "red")]
    assert place(None, None, ids, [(1, 2), (3,)]).options == ((1, 2), (3,))


def test_a_prompt_that_would_keep_nothing_is_left_alone(tmp_path, stories, monkeypatch):
    monkeypatch.setattr(stories, "add_bos_token", False)
    ids = stories.encode("th")
    found = place(stories, "th", ids, ["e", "is"])
    assert list(found.prompt_ids) == ids, "together they are other tokens from the first on"
    assert len(found.options) == 2


def test_bytes_never_join(tmp_path):
    tokenizer = Tokenizer.load(write_byte_tokenizer(tmp_path))
    assert list(placed(tokenizer, "a b ", ["c", "dé"]).prompt_ids) == tokenizer.encode("a b ")


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ("yes", "a list"),
        ([], "a list"),
        (["a", "a"], "twice"),
        (["a", (1,)], "all texts"),
        (["a", "\ud800"], "surrogate"),
    ],
)
def test_options_that_are_none(stories, options, problem):
    with pytest.raises(RequestError, match=problem) as caught:
        placed(stories, "x", options)
    assert caught.value.param == "options"


def test_texts_need_a_tokenizer():
    with pytest.raises(RequestError, match="no tokenizer"):
        place(None, None, (1,), ["a"])
