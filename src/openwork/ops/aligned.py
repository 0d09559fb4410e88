"""Zeroed arrays that begin at a page: what kernels read in whole cache lines.

NumPy places large arrays 16 bytes after a page, so that every line of 64 bytes a kernel loads would lie across two
cache lines. Pages stay untouched until they are written.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import DTypeLike

PAGE = 4096


def zeros(shape: tuple[int, ...], dtype: DTypeLike) -> np.ndarray:
    """Like numpy.zeros, aligned."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    memory = np.zeros(size + PAGE, np.uint8)
    first = -memory.ctypes.data % PAGE
    return memory[first : first + size].view(dtype).reshape(shape)
