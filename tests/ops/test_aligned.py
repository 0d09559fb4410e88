"""Arrays for kernels: zero, writable, beginning at a page; a mostly empty one takes little memory."""

import resource
import sys

import numpy as np
import pytest

from openwork.ops.aligned import PAGE, sparse_zeros, zeros
from openwork.ops.packed import Packed
from openwork.ops.paged import PagedKV


@pytest.mark.parametrize("make", [zeros, sparse_zeros])
@pytest.mark.parametrize("shape", [(0,), (3, 0, 5), (1,), (7, 11), (3, 1 << 20)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_arrays_are_zero_writable_and_begin_at_a_page(make, shape, dtype):
    array = make(shape, dtype)
    assert array.shape == shape and array.dtype == dtype and array.flags.c_contiguous
    assert array.size == 0 or array.ctypes.data % PAGE == 0
    assert not array.any()
    array[...] = 1
    assert array.all()


def test_what_kernels_read_begins_at_a_page():
    assert Packed.empty(40, 70, "int4").data.ctypes.data % PAGE == 0
    kv = PagedKV.empty(2, 3, 2, 32, 16, "int8")
    assert kv.keys.ctypes.data % PAGE == 0 and kv.values.ctypes.data % PAGE == 0


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads the kernel's account of this process")
def test_an_array_that_stays_empty_takes_no_memory():
    array = sparse_zeros((1 << 32,), np.uint8)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    array[:: 1 << 26] = 1  # 64 pages
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 16 << 10


def test_more_than_there_can_be_is_a_memory_error():
    with pytest.raises(MemoryError):
        sparse_zeros((1 << 62,), np.uint8)
