"""Paged keys and values, and the rows of a step that read and write them.

The cache is cut into blocks of ``block_size`` token slots (a multiple of 16). A sequence's block table says which
block holds its positions:

    position p of a sequence   ->   block  table[p // block_size],   slot  p % block_size

Inside a block sixteen tokens make a tile, and a tile is two packed matrices (ops/packed.py): the keys with one output a
token, for the scores; the values with one output an entry, for what the weights mix. So both products of attention are
lanes with private chains, and no sum crosses a lane. A block's tiles, per layer and kv head (d: head_dim):

    float32    keys (d, 16)                     values (d/16, 16 tokens, 16 entries)
    bfloat16   keys (d/2, 16, 2)                values (d/16, 8, 16 entries, 2 tokens)           uint16
    int8       keys (d/4, 16, 4), scales (16)   values (d/16, 4, 16 entries, 4 tokens), scales   uint8, lines of 64

Sizes are rounded up. int8 keeps a float32 scale for each token and head, max|x| / 127, and codes u = q + 128. Zeroed
when made; a slot is only ever read after it was written by the sequence that reads it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from openwork.ops.aligned import sparse_zeros
from openwork.ops.packed import LANES, from_bfloat16, round_up, to_bfloat16
from openwork.ops.stamps import Stamps

KVDType = Literal["float32", "bfloat16", "int8"]
KINDS = {"float32": np.float32, "bfloat16": np.uint16, "int8": np.uint8}


@dataclass(frozen=True, slots=True, eq=False)
class PagedKV:
    """The arrays of the cache, all layers."""

    dtype: KVDType
    block_size: int
    head_dim: int
    keys: np.ndarray
    values: np.ndarray
    native: Any = None

    @classmethod
    def empty(cls, layers: int, blocks: int, kv_heads: int, head_dim: int, block_size: int, dtype: KVDType) -> PagedKV:
        """Zeroed arrays; the operating system gives the pages when they are first written."""
        if block_size % LANES:
            raise ValueError(f"block_size must be a multiple of {LANES}, not {block_size}")
        lead = (layers, blocks, kv_heads, block_size // LANES)
        keys, values = _tile_shapes(head_dim, dtype)
        kind = KINDS[dtype]
        return cls(
            dtype, block_size, head_dim, sparse_zeros((*lead, *keys), kind), sparse_zeros((*lead, *values), kind)
        )

    @staticmethod
    def block_bytes(layers: int, kv_heads: int, head_dim: int, block_size: int, dtype: KVDType) -> int:
        """Bytes of one block over all layers, padding and scales included."""
        tile = sum(math.prod(shape) for shape in _tile_shapes(head_dim, dtype)) * np.dtype(KINDS[dtype]).itemsize
        return layers * kv_heads * (block_size // LANES) * tile

    @property
    def num_blocks(self) -> int:
        return int(self.keys.shape[1])

    @property
    def num_bytes(self) -> int:
        return self.keys.nbytes + self.values.nbytes

    def put(self, layer: int, block: np.ndarray, slot: np.ndarray, k: np.ndarray, v: np.ndarray) -> None:
        """Write k and v (rows, kv_heads, head_dim) float32 into slots (rows,) of blocks (rows,)."""
        keys, values = self._places(layer, block, slot)
        if self.dtype == "float32":
            self.keys[keys], self.values[values] = k, v
        elif self.dtype == "bfloat16":
            self.keys[keys], self.values[values] = to_bfloat16(k), to_bfloat16(v)
        else:
            scales = self._scale_places(layer, block, slot)
            for array, places, x in ((self.keys, keys, k), (self.values, values, v)):
                codes, scale = to_codes(x, 127)
                array[places] = codes + np.float32(128)
                array[scales] = scale.view(np.uint8)  # (rows, kv_heads, 4)

    def take(self, layer: int, block: np.ndarray, slot: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What was put there, rounded as the cache rounds -> k and v (rows, kv_heads, head_dim) float32."""
        if self.dtype == "int8":
            (k, k_scale), (v, v_scale) = self.take_codes(layer, block, slot)
            return k * k_scale[..., None], v * v_scale[..., None]
        keys, values = self._places(layer, block, slot)
        k, v = self.keys[keys], self.values[values]
        return (k, v) if self.dtype == "float32" else (from_bfloat16(k), from_bfloat16(v))

    def key_line(self, layer: int, head: int, table: np.ndarray, count: int) -> np.ndarray:
        """The keys that take gives for the first ``count`` positions of a sequence, of one head -> (count, head_dim).

        A tile at a time rather than an entry: quick over a long context.
        """
        tiles = self.keys[layer, table, head]
        if self.dtype == "int8":
            codes = tiles[..., :-1, :].reshape(*tiles.shape[:2], -1, LANES, 4)
            return self._as_line(codes.swapaxes(2, 3), count, tiles[..., -1, :])
        return self._as_line(tiles.swapaxes(2, 3), count)

    def value_line(self, layer: int, head: int, table: np.ndarray, count: int) -> np.ndarray:
        """The same of the values."""
        tiles = self.values[layer, table, head]
        if self.dtype == "float32":
            return self._as_line(tiles.swapaxes(2, 3), count)
        if self.dtype == "bfloat16":
            return self._as_line(tiles.transpose(0, 1, 3, 5, 2, 4), count)
        codes = tiles[..., :-1, :].reshape(*tiles.shape[:2], -1, 4, LANES, 4)
        return self._as_line(codes.transpose(0, 1, 3, 5, 2, 4), count, tiles[..., -1, :])

    def _as_line(self, tiles: np.ndarray, count: int, scales: np.ndarray | None = None) -> np.ndarray:
        """Tiles (blocks, tiles, tokens .., entries ..) -> (count, head_dim) float32."""
        x = tiles.reshape(len(tiles) * self.block_size, -1)[:count, : self.head_dim]
        if scales is None:
            return from_bfloat16(x) if self.dtype == "bfloat16" else x
        scale = np.ascontiguousarray(scales).view(np.float32).reshape(-1, 1)[:count]
        return (x.astype(np.float32) - np.float32(128)) * scale

    def take_codes(self, layer: int, block: np.ndarray, slot: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
        """Of keys, then of values: codes (rows, kv_heads, head_dim) and scales (rows, kv_heads), both float32."""
        scales = self._scale_places(layer, block, slot)
        return [
            (array[places].astype(np.float32) - np.float32(128), array[scales].view(np.float32)[..., 0])
            for array, places in zip((self.keys, self.values), self._places(layer, block, slot), strict=True)
        ]

    def _places(self, layer: int, block: np.ndarray, slot: np.ndarray) -> list[tuple[Any, ...]]:
        """Where a token's entries lie among the keys, and among the values: indices that give (rows, kv_heads, d)."""
        tile, lane = (slot // LANES)[:, None, None], (slot % LANES)[:, None, None]
        lead = (layer, block[:, None, None], np.arange(self.keys.shape[2])[:, None], tile)
        i = np.arange(self.head_dim)
        group, entry = i // LANES, i % LANES
        if self.dtype == "float32":
            return [(*lead, i, lane), (*lead, group, lane, entry)]
        if self.dtype == "bfloat16":
            return [(*lead, i // 2, lane, i % 2), (*lead, group, lane // 2, entry, lane % 2)]
        return [(*lead, i // 4, 4 * lane + i % 4), (*lead, group * 4 + lane // 4, 4 * entry + lane % 4)]

    def _scale_places(self, layer: int, block: np.ndarray, slot: np.ndarray) -> tuple[Any, ...]:
        """The four bytes of each token's scale, in the last line of its tile."""
        tile, lane = (slot // LANES)[:, None, None], (slot % LANES)[:, None, None]
        return (layer, block[:, None, None], np.arange(self.keys.shape[2])[:, None], tile, -1, 4 * lane + np.arange(4))


def _tile_shapes(head_dim: int, dtype: KVDType) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Of sixteen tokens of one head: the keys' shape, the values' shape."""
    groups = round_up(head_dim, LANES) // LANES
    if dtype == "float32":
        return (head_dim, LANES), (groups, LANES, LANES)
    if dtype == "bfloat16":
        return (round_up(head_dim, 2) // 2, LANES, 2), (groups, LANES // 2, LANES, 2)
    return (round_up(head_dim, 4) // 4 + 1, 64), (groups * LANES // 4 + 1, 64)


def to_codes(x: np.ndarray, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """x (..., size) float32 -> integral codes of -steps .. steps, and the scale (...) they are to be multiplied with.

    The largest |x| of a row becomes +-steps. A row that is nowhere larger than 1e-30 has codes and scale 0; one that
    holds an infinity or a NaN has scale NaN, so that whatever reads it shows it.
    """
    high = np.abs(x).max(axis=-1, keepdims=True)
    finite, large = np.isfinite(high), high >= np.float32(1e-30)
    safe = np.where(finite & large, high, np.float32(1))
    codes = np.rint(np.where(finite & large, x, np.float32(0)) * (np.float32(steps) / safe))
    scale = np.where(finite, np.where(large, high / np.float32(steps), np.float32(0)), np.float32(np.nan))
    return codes, np.ascontiguousarray(scale)


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
    stamps: Stamps | None = None  # None: no row is stamped

    @property
    def num_sequences(self) -> int:
        return len(self.starts) - 1
