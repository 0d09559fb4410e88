"""Invented models: every format, sizes that are those of the real thing, logits that stay finite."""

import json

import numpy as np
import pytest
from one_sequence import OneSequence

from openwork.load.invent import invent, survey
from openwork.ops.packed import DTYPES
from openwork.ops.reference import Reference
from openwork.testing.checkpoint import write_checkpoint


@pytest.fixture
def config(tmp_path):
    """The content of a config.json, by the name of its architecture."""
    return lambda name: json.loads((write_checkpoint(tmp_path, name) / "config.json").read_text())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("architecture", ["LlamaForCausalLM", "Qwen3ForCausalLM", "GPT2LMHeadModel"])
def test_noise_is_a_model(architecture, dtype, config):
    shape = config(architecture)
    loaded = invent(shape, Reference(), dtype)
    spec, packed_bytes = survey(shape, dtype)
    assert loaded.spec == spec and loaded.weight_bytes == packed_bytes
    weights = loaded.model.weights
    matrices = [weights.embedding.weight]
    for layer in weights.layers:
        matrices += [each.weight for each in (layer.attention.qkv, layer.attention.out, layer.mlp.up, layer.mlp.down)]
    if weights.head is not weights.embedding:
        matrices.append(weights.head.weight)
    if weights.positions is not None:
        matrices.append(weights.positions.weight)
    assert 0 < packed_bytes - sum(matrix.num_bytes for matrix in matrices) < 0.1 * packed_bytes  # norms and biases
    logits = OneSequence(loaded.model).feed([1, 2, 3])
    assert np.isfinite(logits).all() and logits.std() > 0


@pytest.mark.parametrize("dtype", DTYPES)
def test_column_blocks_repeat(dtype, config):
    data = invent(config("LlamaForCausalLM"), Reference(), dtype).model.weights.embedding.weight.data
    assert len(data) > 8
    assert np.array_equal(data[:4], data[4:8]) and not np.array_equal(data[0], data[1])
