"""The packed layout: what is put in comes out, padding is zero, a bfloat16 or a code is the nearest one."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openwork.ops.packed import QUANTISED, Packed, bfloat16_round, from_bfloat16, to_bfloat16


@given(st.floats(width=32, allow_nan=False))
def test_bfloat16_is_the_nearest_with_ties_to_even(value):
    bits = int(to_bfloat16(np.float32([value]))[0])
    got = from_bfloat16(np.uint16([bits]))[0].astype(np.float64)
    assert np.signbit(got) == np.signbit(np.float32(value))
    neighbours = [
        b for b in (bits - 1 & 0xFFFF, bits + 1 & 0xFFFF) if b & 0x7FFF <= 0x7F80 and (b ^ bits) & 0x8000 == 0
    ]
    for other, near in zip(neighbours, from_bfloat16(np.uint16(neighbours)).astype(np.float64), strict=True):
        if np.isfinite(got) and np.isfinite(near):
            here, there = abs(got - value), abs(near - value)
            assert here < there or (here == there and (bits % 2 == 0 or other % 2 == 1))


def test_bfloat16_keeps_what_is_not_finite():
    values = np.float32([np.inf, -np.inf, np.nan])
    assert np.array_equal(bfloat16_round(values), values, equal_nan=True)
    pattern = np.uint32([0x7F800001, 0xFFFFFFFF]).view(np.float32)  # NaNs whose upper bits alone would be infinite
    assert np.isnan(bfloat16_round(pattern)).all()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@given(n=st.integers(1, 50), k=st.integers(1, 20), cut=st.integers(0, 50))
def test_put_and_unpack(dtype, n, k, cut):
    cut = min(cut, n)
    source = np.arange(n * k, dtype=np.float32).reshape(n, k) / 64
    packed = Packed.empty(n, k, dtype)
    packed.put(0, source[:cut])
    packed.put(cut, source[cut:])
    wanted = source if dtype == "float32" else bfloat16_round(source)
    assert np.array_equal(packed.unpack(), wanted)
    assert np.array_equal(packed.unpack(np.array([n - 1, 0])), wanted[[n - 1, 0]])
    assert np.count_nonzero(packed.data) == np.count_nonzero(wanted)  # padding is zero
    assert packed.num_bytes == packed.data.nbytes


def test_either_source_goes_into_either_format():
    source = np.float32([[1.5, -2, 3]])
    for dtype in ("float32", "bfloat16"):
        packed = Packed.empty(1, 3, dtype)
        packed.put(0, to_bfloat16(source))
        assert np.array_equal(packed.unpack(), source)


# -- quantised ---------------------------------------------------------------------------------------------------------

STEP = {"int8": 1 / 127, "int8-channel": 1 / 127, "int4": 1 / 7}  # of the largest entry of a group, at most


def put(source, dtype):
    packed = Packed.empty(*source.shape, dtype)
    packed.put(0, source)
    return packed


@pytest.mark.parametrize("dtype", QUANTISED)
@given(n=st.integers(1, 40), k=st.integers(1, 150), cut=st.integers(0, 40), seed=st.integers(0, 99))
def test_a_quantised_weight_is_within_half_a_step(dtype, n, k, cut, seed):
    source = np.random.default_rng(seed).standard_normal((n, k), dtype=np.float32)
    whole, packed = put(source, dtype), Packed.empty(n, k, dtype)
    packed.put(min(cut, n), source[cut:])
    packed.put(0, source[:cut])
    assert packed.data.tobytes() == whole.data.tobytes()
    assert np.array_equal(packed.unpack(np.array([n - 1, 0])), packed.unpack()[[n - 1, 0]])
    size = 32 if dtype != "int8-channel" else k
    for first in range(0, k, size):
        group, got = source[:, first : first + size], packed.unpack()[:, first : first + size]
        most = np.abs(group).max(axis=1, keepdims=True) * STEP[dtype]
        allowed = 1.2 * most if dtype == "int4" else 0.501 * most  # int4 may cut off an end for the sake of the rest
        assert (np.abs(got - group) <= allowed).all()


@pytest.mark.parametrize(("dtype", "zero"), [("int8", 128), ("int8-channel", 128), ("int4", 0x88)])
def test_padding_is_code_zero_and_scale_zero(dtype, zero):
    packed = put(np.ones((17, 33), np.float32), dtype)
    lines = packed.data[1].reshape(-1, 64)
    scales = lines[-1:] if dtype == "int8-channel" else lines[:1]
    codes = lines[:-1] if dtype == "int8-channel" else lines[1:]
    assert (codes.reshape(len(codes), 16, 4)[:, 1:] == zero).all()  # outputs 17 .. 31
    each = scales.view(np.float32 if dtype == "int8-channel" else np.float16).reshape(-1, 16)
    assert (each[:, 1:] == 0).all() and each[0, 0] != 0
    assert (packed.quantised(np.array([0])).codes[0, 1, 1:] == 0).all()  # inputs 33 ..


def test_layout_of_int8_and_int4():
    source = np.zeros((16, 64), np.float32)
    source[3] = np.arange(-64, 0)  # codes of both signs of use, in both groups
    for dtype in ("int8", "int4"):
        packed = put(source, dtype)
        codes, scales = packed.quantised(np.array([3])).codes[0], packed.data[0, 0, 0].view(np.float16).reshape(2, 16)
        assert scales[:, 3].tolist() == packed.quantised(np.array([3])).scales[0].tolist()
        for i in (0, 1, 5, 31, 32, 63):
            code = int(codes[i // 32, i % 32])
            if dtype == "int8":
                assert packed.data[0, 0, 1 + i // 4, 3 * 4 + i % 4] == code + 128
            else:
                assert packed.data[0, 0, 1 + i // 8, 3 * 4 + i % 4] >> (i // 4 % 2 * 4) & 15 == code + 8


def test_layout_of_int8_by_channel():
    packed = put(np.arange(16 * 40, dtype=np.float32).reshape(16, 40), "int8-channel")
    assert packed.data.shape == (1, 17, 64)
    scale = packed.data[0, 16].view(np.float32)
    assert np.array_equal(scale, np.float32(39 + 40 * np.arange(16)) / np.float32(127))
    assert packed.data[0, 9, 5 * 4 + 3] == 128 + round(float((5 * 40 + 39) / scale[5]))  # output 5, input 39


def test_an_int8_scale_never_lets_the_largest_code_pass_127():
    tops = np.float32(127) * (1 + np.arange(4096, dtype=np.float32) / 4096)  # scales on and between float16 numbers
    source = np.zeros((4096, 32), np.float32)
    source[:, 7] = -tops
    packed = put(source, "int8")
    got = packed.unpack()[:, 7]
    assert packed.quantised(np.arange(4096)).codes.min() == -127
    assert (np.abs(got + tops) <= 0.5 * tops / 127).all()


def test_int4_takes_the_best_of_its_scales():
    rng = np.random.default_rng(3)
    source = rng.standard_normal((200, 32), dtype=np.float32)
    plain = np.abs(source).max(axis=1, keepdims=True) / 7
    naive = np.clip(np.rint(source / plain), -8, 7) * plain
    ours = np.square(put(source, "int4").unpack() - source).sum(axis=1)
    assert (ours <= np.square(naive - source).sum(axis=1) * 1.01).all()
    assert ours.sum() < 0.9 * np.square(naive - source).sum()
    exact = np.tile(np.arange(-8, 8, dtype=np.float32), (2, 2)) * np.float32([[1], [-0.25]])
    assert np.array_equal(put(exact, "int4").unpack(), exact)


@pytest.mark.parametrize("dtype", QUANTISED)
def test_extreme_weights(dtype):
    source = np.ones((8, 64), np.float32)
    source[0] = 0
    source[1] = 1e-42  # subnormal
    source[2, 40] = 1e4  # an outlier
    source[3, 40], source[4, 40], source[5, 40] = np.nan, np.inf, -np.inf
    source[6] = 3e38  # more than a float16 scale can hold
    source[7] = np.float32(2.0**-24)
    got = put(source, dtype).unpack()
    assert (got[:2] == 0).all()
    first, second = got[2, :32], got[2, 32:]
    assert np.allclose(second[8], 1e4, rtol=1e-3) and (np.delete(second, 8) == 0).all()
    assert np.allclose(first, 1 if dtype != "int8-channel" else 0, rtol=1e-3)
    for row in (3, 4, 5):  # the group, or the output, that holds it
        assert np.isnan(got[row, 32:]).all()
        assert np.isnan(got[row, :32]).all() == (dtype == "int8-channel")
    assert np.allclose(got[6], 3e38) if dtype == "int8-channel" else np.isnan(got[6]).all()
    assert np.isfinite(got[7]).all()
    assert np.allclose(got[7], source[7]) or dtype == "int4"
