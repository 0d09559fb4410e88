"""Two computations of one line: the first number that differs is named by its layer and operation, and no other is."""

import numpy as np
import pytest

from openwork.build import examiner
from openwork.core.settings import LoadSettings
from openwork.run.apart import distance, first_apart, is_alike
from openwork.testing.checkpoint import random_tensors, write_checkpoint, write_safetensors

TOKENS = [3 + i * 7 % 250 for i in range(40)]
LLAMA, LOAD = "LlamaForCausalLM", LoadSettings(dtype="float32", kv_dtype="float32")
CHANGED = {  # a number of a matrix, and where its first effect is seen
    "model.embed_tokens.weight": (None, "embed"),
    "model.layers.1.self_attn.q_proj.weight": (1, "project"),
    "model.layers.2.self_attn.v_proj.weight": (2, "project"),
    "model.layers.1.input_layernorm.weight": (1, "project"),
    "model.layers.0.self_attn.o_proj.weight": (0, "output or feed-forward"),
    "model.layers.1.mlp.down_proj.weight": (1, "output or feed-forward"),
    "lm_head.weight": (None, "head"),
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return examiner(write_checkpoint(tmp_path_factory.mktemp("whole"), LLAMA), LOAD)


@pytest.mark.parametrize("name", CHANGED)
def test_one_number_of_one_matrix_is_named(whole, tmp_path, name):
    write_checkpoint(tmp_path, LLAMA)
    config = {**_config(tmp_path)}
    tensors = random_tensors(LLAMA, config, 0)
    place = (TOKENS[20], 5) if "embed" in name else (3,) * tensors[name].ndim
    tensors[name][place] *= 1.5
    write_safetensors(tmp_path / "model.safetensors", tensors)
    other = examiner(tmp_path, LOAD).examine(TOKENS)
    found = first_apart(whole.examine(TOKENS), other, len(TOKENS) - 1)
    layer, op = CHANGED[name]
    assert (found.layer, found.op) == (layer, op)
    at = 1 if "q_proj" in name else {"embed": 20, "head": len(TOKENS) - 1}.get(op, 0)
    assert found.position == at, "the first whose keys, values or answer it changed: a lone key is all there is to mix"
    assert found.values[0] != found.values[1] and found.distance.entries >= 1


def _config(directory):
    import json

    return json.loads((directory / "config.json").read_text())


def test_nothing_is_found_where_nothing_is(whole):
    assert first_apart(whole.examine(TOKENS), whole.examine(TOKENS), 39) is None
    assert is_alike(whole.examine(TOKENS), whole.examine(TOKENS))


def test_ulps_are_counted_over_zero():
    tiny = np.float32(1e-45)
    a, b = np.array([tiny, -0.0, 1.0], np.float32), np.array([-tiny, 0.0, 1.0], np.float32)
    found = distance(a, b)
    assert (found.entries, found.ulps, found.of) == (2, 3, 3)
    one = np.array([1.0], np.float32)
    assert distance(one, np.nextafter(one, np.float32(2), dtype=np.float32)).ulps == 1
