"""What a checkpoint says about generating."""

import json

import pytest

from openwork.core.errors import ModelError
from openwork.load.generation import GenerationDefaults, generation_defaults
from openwork.models.config import Config


def read(directory, own=None, **config):
    if own is not None:
        (directory / "generation_config.json").write_text(json.dumps(own))
    return generation_defaults(directory, Config(config))


def test_one_end_token_or_several(tmp_path):
    assert read(tmp_path, {"eos_token_id": 7}).eos_ids == (7,)
    assert read(tmp_path, {"eos_token_id": [7, 9]}, eos_token_id=1).eos_ids == (7, 9)


def test_config_json_fills_the_gaps(tmp_path):
    assert read(tmp_path, eos_token_id=[3], bos_token_id=1) == GenerationDefaults(eos_ids=(3,), bos_id=1)
    assert read(tmp_path, {"temperature": 0.6, "bos_token_id": None}, bos_token_id=4).bos_id == 4


def test_nothing_said(tmp_path):
    assert read(tmp_path) == GenerationDefaults()


def test_recommended_sampling(tmp_path):
    own = {"do_sample": True, "temperature": 0.6, "top_p": 0.9, "top_k": 20, "min_p": 0.0, "repetition_penalty": 1.1}
    params = read(tmp_path, own).as_params()
    assert (params.temperature, params.top_p, params.top_k, params.repetition_penalty) == (0.6, 0.9, 20, 1.1)
    assert read(tmp_path, own | {"do_sample": False}).as_params().is_greedy
    assert read(tmp_path, {"do_sample": True}).as_params().temperature == 1
    assert GenerationDefaults().as_params().is_greedy


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("eos_token_id", -1),
        ("eos_token_id", "2"),
        ("eos_token_id", []),
        ("eos_token_id", [2, True]),
        ("eos_token_id", list(range(65))),
        ("bos_token_id", 1.5),
        ("do_sample", 1),
        ("temperature", -0.1),
        ("temperature", "hot"),
        ("top_p", 0),
        ("top_p", 1.5),
        ("top_k", -1),
        ("min_p", 2),
        ("repetition_penalty", 0),
    ],
)
def test_values_out_of_range(tmp_path, name, value):
    with pytest.raises(ModelError) as error:
        read(tmp_path, {name: value})
    assert error.value.field.startswith(name)
    assert error.value.where.endswith("generation_config.json")
