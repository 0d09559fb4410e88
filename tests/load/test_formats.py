"""Formats: the choice for a model, the format of each matrix, and sizes that are those of the arrays."""

import pytest

from openwork.core.errors import BackendError
from openwork.load.assemble import inspect, load
from openwork.load.formats import choose_dtype, choose_kv_dtype, format_of, packed_bytes
from openwork.ops.packed import DTYPES, Packed
from openwork.ops.reference import Reference
from openwork.testing.checkpoint import ARCHITECTURES, write_checkpoint


@pytest.mark.parametrize(("stored", "expected"), [("F32", "float32"), ("F16", "bfloat16"), ("BF16", "bfloat16")])
def test_auto_is_as_it_is_stored(stored, expected):
    assert choose_dtype("auto", stored) == expected


def test_an_unknown_dtype_is_told_the_choices():
    for choose in (lambda: choose_dtype("int3", "F32"), lambda: choose_kv_dtype("int3", "float32")):
        with pytest.raises(BackendError, match="no dtype 'int3'") as error:
            choose()
        assert "auto, float32, bfloat16" in error.value.hint and "int8" in error.value.hint


def test_keys_and_values_are_as_wide_as_they_need_be():
    assert choose_kv_dtype("auto", "float32") == "float32"
    assert {choose_kv_dtype("auto", dtype) for dtype in DTYPES if dtype != "float32"} == {"bfloat16"}
    assert choose_kv_dtype("int8", "float32") == "int8"


def test_what_stays_in_more_bits():
    assert format_of("layer", "int4") == "int4"
    assert format_of("embedding", "int4") == format_of("head", "int4") == "int8"
    for dtype in ("int8", "int8-channel", "int4"):
        assert format_of("positions", dtype) == "bfloat16"
    for dtype in ("float32", "bfloat16"):
        assert {format_of(role, dtype) for role in ("layer", "embedding", "head", "positions")} == {dtype}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("n", "k"), [(1, 1), (16, 64), (17, 65), (40, 200), (259, 33)])
def test_sizes_are_those_of_the_arrays(n, k, dtype):
    packed = Packed.empty(n, k, dtype)
    assert packed_bytes(n, k, dtype) == packed.num_bytes


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_bytes_in_memory_and_bytes_a_token(architecture, dtype, tmp_path):
    directory = write_checkpoint(tmp_path, architecture)
    found, loaded = inspect(directory, dtype), load(directory, Reference(), dtype)
    weights = loaded.model.weights
    matrices = [
        each.weight.num_bytes
        for layer in weights.layers
        for each in (layer.attention.qkv, layer.attention.out, layer.mlp.up, layer.mlp.down)
    ]
    assert loaded.read_bytes_per_token == found.read_bytes_per_token == sum(matrices) + weights.head.weight.num_bytes
    assert loaded.weight_bytes == found.packed_bytes > loaded.read_bytes_per_token
    assert weights.head.weight.dtype == weights.embedding.weight.dtype == format_of("head", dtype)
    assert {layer.mlp.up.weight.dtype for layer in weights.layers} == {dtype}
    if weights.positions is not None:
        assert weights.positions.weight.dtype == format_of("positions", dtype)
