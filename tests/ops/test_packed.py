"""The packed layout: what is put in comes out, padding is zero, and a bfloat16 is the nearest one."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openwork.ops.packed import Packed, bfloat16_round, from_bfloat16, to_bfloat16


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
