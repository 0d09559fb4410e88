"""Packed: one matrix in the layout that every product reads, for 1 row and for 512.

A matrix W of a linear map y = W x has shape (n, k): n outputs, k inputs. It is cut into column blocks of 16 outputs,
and inside a block the 16 outputs of one input lie side by side, so that a vector lane owns an output and its chain
over k (docs/numeric-contract.md, rule 2). A block is one stream from start to end, and the next follows at once.

    float32       float32 (n/16, k, 16)            data[b, i, j]    = W[16 b + j, i]
    bfloat16      uint16  (n/16, k/2, 16, 2)       data[b, i, j, p] = W[16 b + j, 2 i + p], upper 16 bits of a float32
    int8          uint8   (n/16, k/64, 17, 64)     line 0: float16 scales (2 groups, 16); 16 lines of codes (16, 4)
    int4          uint8   (n/16, k/64, 9, 64)      line 0: the same; 8 lines (16, 4), i low and i + 4 high in a byte
    int8-channel  uint8   (n/16, k/4 + 1, 64)      lines of codes (16, 4); the last line: float32 scale (16)

A weight is code times scale (quantise.py); codes are stored with an offset, 128 or 8, unsigned. n is rounded up to 16,
k to 2 (bfloat16), 64 (int8, int4) or 32 (int8-channel); the padding is zero. What this module does not know: where the
weights come from.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from openwork.ops import quantise
from openwork.ops.aligned import zeros
from openwork.ops.quantise import GROUP, Quantised

LANES = 16
UNIT = 2 * GROUP  # inputs of two groups: what int8 and int4 repeat
DType = Literal["float32", "bfloat16", "int8", "int8-channel", "int4"]
DTYPES: tuple[DType, ...] = get_args(DType)
QUANTISED: tuple[DType, ...] = ("int8", "int8-channel", "int4")
LINES = {"int8": 17, "int4": 9}  # of 64 bytes, for 64 inputs of 16 outputs


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


def shape_of(n: int, k: int, dtype: DType) -> tuple[int, ...]:
    """The shape of Packed.data."""
    blocks = round_up(n, LANES) // LANES
    if dtype == "float32":
        return blocks, k, LANES
    if dtype == "bfloat16":
        return blocks, round_up(k, 2) // 2, LANES, 2
    if dtype == "int8-channel":
        return blocks, round_up(k, GROUP) // 4 + 1, 64
    return blocks, round_up(k, UNIT) // UNIT, LINES[dtype], 64


@dataclass(frozen=True, slots=True, eq=False)
class Packed:
    """A packed matrix of ``n`` outputs and ``k`` inputs."""

    dtype: DType
    n: int
    k: int
    data: np.ndarray

    @classmethod
    def empty(cls, n: int, k: int, dtype: DType) -> Packed:
        """A zero matrix; most of its pages stay untouched until rows are written."""
        number = {"float32": np.float32, "bfloat16": np.uint16}.get(dtype, np.uint8)
        packed = cls(dtype, n, k, zeros(shape_of(n, k, dtype), number))
        if packed.is_quantised and n % LANES:  # outputs that no row will ever fill
            packed._store(np.arange(n, round_up(n, LANES)), packed._quantise(np.zeros((-n % LANES, k), np.float32)))
        return packed

    @property
    def num_bytes(self) -> int:
        return self.data.nbytes

    @property
    def is_quantised(self) -> bool:
        """Whether the weights are integer codes, and so the rows they are multiplied with."""
        return self.dtype in QUANTISED

    def put(self, row: int, source: np.ndarray) -> None:
        """Write ``source`` (rows, k), float32 or bfloat16 bits (uint16), as outputs row .. row + rows."""
        values = source
        if self.dtype == "bfloat16" and source.dtype != np.uint16:
            values = to_bfloat16(source)
        elif self.dtype != "bfloat16" and source.dtype == np.uint16:
            values = from_bfloat16(source)
        target = np.arange(row, row + source.shape[0])
        if self.is_quantised:
            self._store(target, self._quantise(values))
            return
        if self.dtype == "float32":
            self.data[target // LANES, :, target % LANES] = values
            return
        even, odd = values[:, 0::2], values[:, 1::2]  # (rows, ceil(k/2)), (rows, k/2)
        self.data[target // LANES, :, target % LANES, 0] = even
        self.data[target // LANES, : odd.shape[1], target % LANES, 1] = odd

    def unpack(self, rows: np.ndarray | None = None) -> np.ndarray:
        """The matrix, or the given outputs of it, as float32 (rows, k)."""
        target = np.arange(self.n) if rows is None else rows
        if self.is_quantised:
            return self.quantised(target).values()[:, : self.k]
        if self.dtype == "float32":
            return np.ascontiguousarray(self.data[target // LANES, :, target % LANES])
        pairs = self.data[target // LANES, :, target % LANES, :]  # (rows, k/2, 2)
        return from_bfloat16(pairs.reshape(len(target), 2 * self.data.shape[1])[:, : self.k])

    # -- codes and scales ----------------------------------------------------------------------------------------------

    def _quantise(self, values: np.ndarray) -> Quantised:
        groups = round_up(self.k, GROUP if self.dtype == "int8-channel" else UNIT) // GROUP
        padded = np.zeros((len(values), groups, GROUP), np.float32)
        padded.reshape(len(values), groups * GROUP)[:, : self.k] = values
        if self.dtype == "int8-channel":
            return quantise.by_channel(padded)
        return quantise.to_int4(padded) if self.dtype == "int4" else quantise.to_int8(padded)

    def _store(self, target: np.ndarray, q: Quantised) -> None:
        block, lane = target // LANES, target % LANES
        rows, groups, _ = q.codes.shape
        if self.dtype == "int8-channel":
            lines = self.data.reshape(-1, self.data.shape[1], LANES, 4)
            lines[block, :-1, lane] = (q.codes.astype(np.int16) + 128).astype(np.uint8).reshape(rows, groups * 8, 4)
            lines[block, -1, lane] = q.scales.astype(np.float32).view(np.uint8).reshape(rows, 4)
            return
        lines = self.data.reshape(*self.data.shape[:3], LANES, 4)  # (blocks, units, lines, 16, 4)
        if self.dtype == "int8":
            bytes_ = (q.codes.astype(np.int16) + 128).astype(np.uint8)
        else:
            low_high = (q.codes.astype(np.int16) + 8).astype(np.uint8).reshape(rows, groups, 4, 2, 4)
            bytes_ = low_high[..., 0, :] | low_high[..., 1, :] << np.uint8(4)
        lines[block, :, 1:, lane] = bytes_.reshape(rows, groups // 2, lines.shape[2] - 1, 4)
        scales = self.data[:, :, 0].view(np.float16).reshape(*self.data.shape[:2], 2, LANES)
        scales[block, :, :, lane] = q.scales.reshape(rows, groups // 2, 2)

    def quantised(self, rows: np.ndarray) -> Quantised:
        """Codes and scales of the given outputs: codes (rows, groups, 32), padding included."""
        block, lane = rows // LANES, rows % LANES
        if self.dtype == "int8-channel":
            lines = self.data.reshape(-1, self.data.shape[1], LANES, 4)
            codes = lines[block, :-1, lane].reshape(len(rows), (lines.shape[1] - 1) // 8, GROUP).astype(np.int16) - 128
            scale = np.ascontiguousarray(lines[block, -1, lane]).view(np.float32)  # (rows, 1)
            return Quantised(codes.astype(np.int8), scale, True)
        units = self.data.shape[1]
        lines = self.data.reshape(*self.data.shape[:3], LANES, 4)
        bytes_ = lines[block, :, 1:, lane]  # (rows, units, lines, 4)
        if self.dtype == "int8":
            codes = bytes_.astype(np.int16) - 128
        else:
            codes = np.stack([bytes_ & np.uint8(15), bytes_ >> np.uint8(4)], axis=3).astype(np.int16) - 8
        scales = self.data[:, :, 0].view(np.float16).reshape(-1, units, 2, LANES)[block, :, :, lane]
        return Quantised(
            codes.reshape(len(rows), 2 * units, GROUP).astype(np.int8),
            scales.reshape(len(rows), 2 * units).astype(np.float32),
        )
