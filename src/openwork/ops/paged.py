"""Paged keys and values, and the rows of a step that read and write them.

The cache is cut into blocks of ``block_size`` token slots (a multiple of 16). A sequence's block table says which
block holds its positions:

    position p of a sequence   ->   block  table[p // block_size],   slot  p % block_size

Inside a block a key tile holds 16 keys side by side, one lane a key; a value row holds one token's entries, one lane an
entry (padded to 16, zero). So both products of attention are lanes with private chains, and no sum crosses a lane.

    float32    keys   (layers, blocks, kv_heads, block_size/16, head_dim, 16)
    bfloat16   keys   (layers, blocks, kv_heads, block_size/16, head_dim/2 rounded up, 16, 2)
    both       values (layers, blocks, kv_heads, block_size, head_dim rounded up to 16)

Zeroed when made; a slot is only ever read after it was written by the sequence that reads it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from openwork.ops.packed import LANES, DType, round_up


@dataclass(frozen=True, slots=True, eq=False)
class PagedKV:
    """The arrays of the cache, all layers."""

    dtype: DType
    block_size: int
    head_dim: int
    keys: np.ndarray
    values: np.ndarray
    native: Any = None

    @classmethod
    def empty(cls, layers: int, blocks: int, kv_heads: int, head_dim: int, block_size: int, dtype: DType) -> PagedKV:
        """Zeroed arrays; the operating system gives the pages when they are first written."""
        if block_size % LANES:
            raise ValueError(f"block_size must be a multiple of {LANES}, not {block_size}")
        tiles = block_size // LANES
        lead = (layers, blocks, kv_heads)
        values_shape = (*lead, block_size, round_up(head_dim, LANES))
        if dtype == "float32":
            keys = np.zeros((*lead, tiles, head_dim, LANES), np.float32)
            return cls(dtype, block_size, head_dim, keys, np.zeros(values_shape, np.float32))
        keys = np.zeros((*lead, tiles, round_up(head_dim, 2) // 2, LANES, 2), np.uint16)
        return cls(dtype, block_size, head_dim, keys, np.zeros(values_shape, np.uint16))

    @staticmethod
    def block_bytes(layers: int, kv_heads: int, head_dim: int, block_size: int, dtype: DType) -> int:
        """Bytes of one block over all layers, padding included."""
        itemsize = 4 if dtype == "float32" else 2
        k_dim = head_dim if dtype == "float32" else round_up(head_dim, 2)
        return layers * kv_heads * block_size * (k_dim + round_up(head_dim, LANES)) * itemsize

    @property
    def num_blocks(self) -> int:
        return int(self.keys.shape[1])

    @property
    def num_bytes(self) -> int:
        return self.keys.nbytes + self.values.nbytes


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """The token rows of one step, those of a sequence together and in order of position.

        rows      | s0 s0 s0 s0 | s1 | s2 s2 |        starts = [0, 4, 5, 7]
        positions |  8  9 10 11 | 70 |  0  1 |        tables[s] = the blocks of sequence s

    A sequence here is one run of rows of the step. Its first row is at positions[starts[s]], and every key before that
    position is in the cache already. Table entries beyond the last position's block are never read.
    """

    positions: np.ndarray  # (rows,) int32
    starts: np.ndarray  # (sequences + 1,) int32
    tables: np.ndarray  # (sequences, blocks) int32
    cos: np.ndarray | None  # (rows, rotary_dim / 2) float32; None when positions are learned
    sin: np.ndarray | None
    native: Any = None

    @property
    def num_sequences(self) -> int:
        return len(self.starts) - 1
