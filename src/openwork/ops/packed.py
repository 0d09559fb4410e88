"""Packed: one matrix in the layout that every product reads, for 1 row and for 512.

A matrix W of a linear map y = W x has shape (n, k): n outputs, k inputs. It is cut into column blocks of 16 outputs,
and inside a block the 16 outputs of one input lie side by side, so that a vector lane owns an output and its chain
over k (docs/numeric-contract.md, rule 2).

    float32    data (n/16, k, 16)         data[b, i, j]    = W[16 b + j, i]
    bfloat16   data (n/16, k/2, 16, 2)    data[b, i, j, p] = W[16 b + j, 2 i + p]     upper 16 bits of a float32

n is rounded up to 16 and k (bfloat16) to 2; the padding is zero. A bfloat16 is stored as uint16. Bits are rounded to
nearest, ties to even, and a NaN stays a NaN. What this module does not know: where the weights come from.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

LANES = 16
DType = Literal["float32", "bfloat16"]


def round_up(size: int, multiple: int) -> int:
    return -(-size // multiple) * multiple


def to_bfloat16(x: np.ndarray) -> np.ndarray:
    """float32 of any shape -> uint16 bits of the nearest bfloat16 (ties to even)."""
    bits = np.ascontiguousarray(x, dtype=np.float32).view(np.uint32)
    rounded = (bits + (np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1)))) >> np.uint32(16)
    is_nan = (bits & np.uint32(0x7FFFFFFF)) > np.uint32(0x7F800000)
    return np.where(is_nan, (bits >> np.uint32(16)) | np.uint32(0x40), rounded).astype(np.uint16)


def from_bfloat16(bits: np.ndarray) -> np.ndarray:
    """uint16 bits of any shape -> float32, exactly."""
    return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)


def bfloat16_round(x: np.ndarray) -> np.ndarray:
    """float32 -> the float32 that a bfloat16 can hold."""
    return from_bfloat16(to_bfloat16(x))


@dataclass(frozen=True, slots=True, eq=False)
class Packed:
    """A packed matrix of ``n`` outputs and ``k`` inputs."""

    dtype: DType
    n: int
    k: int
    data: np.ndarray

    @classmethod
    def empty(cls, n: int, k: int, dtype: DType) -> Packed:
        """A zero matrix, its pages untouched until rows are written."""
        blocks = round_up(n, LANES) // LANES
        if dtype == "float32":
            return cls(dtype, n, k, np.zeros((blocks, k, LANES), np.float32))
        return cls(dtype, n, k, np.zeros((blocks, round_up(k, 2) // 2, LANES, 2), np.uint16))

    @property
    def num_bytes(self) -> int:
        return self.data.nbytes

    def put(self, row: int, source: np.ndarray) -> None:
        """Write ``source`` (rows, k), float32 or bfloat16 bits (uint16), as outputs row .. row + rows."""
        values = source
        if self.dtype == "bfloat16" and source.dtype != np.uint16:
            values = to_bfloat16(source)
        elif self.dtype == "float32" and source.dtype == np.uint16:
            values = from_bfloat16(source)
        target = np.arange(row, row + source.shape[0])
        if self.dtype == "float32":
            self.data[target // LANES, :, target % LANES] = values
            return
        even, odd = values[:, 0::2], values[:, 1::2]  # (rows, ceil(k/2)), (rows, k/2)
        self.data[target // LANES, :, target % LANES, 0] = even
        self.data[target // LANES, : odd.shape[1], target % LANES, 1] = odd

    def unpack(self, rows: np.ndarray | None = None) -> np.ndarray:
        """The matrix, or the given outputs of it, as float32 (rows, k)."""
        target = np.arange(self.n) if rows is None else rows
        if self.dtype == "float32":
            return np.ascontiguousarray(self.data[target // LANES, :, target % LANES])
        pairs = self.data[target // LANES, :, target % LANES, :]  # (rows, k/2, 2)
        return from_bfloat16(pairs.reshape(len(target), 2 * self.data.shape[1])[:, : self.k])
