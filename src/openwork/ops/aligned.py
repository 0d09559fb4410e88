"""Zeroed arrays that begin at a page: what kernels read in whole cache lines.

NumPy places large arrays 16 bytes after a page, so that every line of 64 bytes a kernel loads would lie across two
cache lines. Pages stay untouched until they are written.
"""

from __future__ import annotations

import contextlib
import math
import mmap

import numpy as np
from numpy.typing import DTypeLike

PAGE = 4096


def zeros(shape: tuple[int, ...], dtype: DTypeLike) -> np.ndarray:
    """Like numpy.zeros, aligned."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    memory = np.zeros(size + PAGE, np.uint8)
    first = -memory.ctypes.data % PAGE
    return memory[first : first + size].view(dtype).reshape(shape)


def sparse_zeros(shape: tuple[int, ...], dtype: DTypeLike) -> np.ndarray:
    """Zeros of which only the pages that are written take memory, each by itself: for what may stay mostly empty.

    Large arrays of numpy.zeros ask for pages of 2 MB, so that one written token would cost 2 MB in each layer. Raises
    MemoryError.
    """
    size = math.prod(shape) * np.dtype(dtype).itemsize
    how = {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if hasattr(mmap, "MAP_PRIVATE") else {}
    try:
        memory = mmap.mmap(-1, max(size, 1), **how)
    except (OSError, OverflowError) as error:
        raise MemoryError(f"{size} bytes: {error}") from None
    if hasattr(mmap, "MADV_NOHUGEPAGE"):
        with contextlib.suppress(OSError):  # a system that has no large pages refuses the word
            memory.madvise(mmap.MADV_NOHUGEPAGE)
    return np.frombuffer(memory, np.uint8, size).view(dtype).reshape(shape)
