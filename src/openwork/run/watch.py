"""Watched: the operations of another backend, and what passes between them in the attention of some layers.

    x -> [qkv] -> q k v -> norm, rope -> q' k' v -> cache -> attend -> mixed -> [out]
                  ^ seen                 ^ seen                        ^ seen

It computes nothing itself: every operation is the other backend's, on the records that it has bound, so what is seen
has the bits that are served. Where the backend does a layer in one call, this goes the long way, which gives the same
(tests/run/test_capture.py). It does not know which model it is in, nor who looks.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from openwork.ops.paged import PagedKV, Rows
from openwork.ops.reference import Reference
from openwork.ops.weights import Attention, Linear, Mlp, Norm


@dataclass(slots=True, eq=False)
class Heads:
    """What was seen in one layer: as projected, and as it met the cache, normed and turned where models do that."""

    q_before: np.ndarray  # (rows, heads, head_dim)
    k_before: np.ndarray  # (rows, kv_heads, head_dim)
    v: np.ndarray  # (rows, kv_heads, head_dim)
    q: np.ndarray  # (rows, heads, head_dim)
    k: np.ndarray  # (rows, kv_heads, head_dim)
    mixed: np.ndarray  # (rows, heads, head_dim): the values by the weights of attention


class Watched(Reference):
    """``layers`` are those that are looked at; ``seen`` maps them to what was there in the last forward pass."""

    name = "watched"

    def __init__(self, ops: Reference, layers: Collection[int]) -> None:
        self._ops = ops
        self._layers = frozenset(layers)
        self._inside: tuple[Attention, Heads] | None = None  # the block whose parts are passing
        self.contract_id = ops.contract_id
        self.num_threads = ops.num_threads
        self.seen: dict[int, Heads] = {}

    # -- looked at -----------------------------------------------------------------------------------------------

    def attention_block(self, x: np.ndarray, w: Attention, rows: Rows, kv: PagedKV, layer: int) -> np.ndarray:
        if layer not in self._layers:
            return self._ops.attention_block(x, w, rows, kv, layer)
        heads = (np.empty((len(x), w.num_heads, w.head_dim), np.float32) for _ in range(3))
        kv_heads = (np.empty((len(x), w.num_kv_heads, w.head_dim), np.float32) for _ in range(3))
        q_before, q, mixed = heads
        k_before, k, v = kv_heads
        self.seen[layer] = Heads(q_before, k_before, v, q, k, mixed)
        self._inside = w, self.seen[layer]
        try:
            return super().attention_block(x, w, rows, kv, layer)  # in single operations, each of which is below
        finally:
            self._inside = None

    def linear(self, x: np.ndarray, w: Linear) -> np.ndarray:
        out = self._ops.linear(x, w)
        if self._inside is not None and w is self._inside[0].qkv:
            seen, first = self._inside[1], 0
            for into in (seen.q_before, seen.k_before, seen.v):
                last = first + into.shape[1] * into.shape[2]
                into[...] = out[:, first:last].reshape(into.shape)
                first = last
        return out

    def write(self, kv: PagedKV, layer: int, k: np.ndarray, v: np.ndarray, rows: Rows) -> None:
        self._ops.write(kv, layer, k, v, rows)
        if self._inside is not None:
            self._inside[1].k[...] = k

    def attend(self, q: np.ndarray, kv: PagedKV, layer: int, rows: Rows, w: Attention) -> np.ndarray:
        out = self._ops.attend(q, kv, layer, rows, w)
        if self._inside is not None:
            seen = self._inside[1]
            seen.q[...], seen.mixed[...] = q, out.reshape(q.shape)
        return out

    # -- passed on -----------------------------------------------------------------------------------------------

    def hash_rows(self, x: np.ndarray) -> np.ndarray:
        return self._ops.hash_rows(x)

    def bind_rows(self, rows: Rows) -> Rows:
        return self._ops.bind_rows(rows)

    def embed(self, table: Linear, ids: np.ndarray, scale: float = 1.0) -> np.ndarray:
        return self._ops.embed(table, ids, scale)

    def norm(self, x: np.ndarray, w: Norm) -> np.ndarray:
        return self._ops.norm(np.ascontiguousarray(x), w)

    def add(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return self._ops.add(x, y)

    def rotate(self, x: np.ndarray, rows: Rows, dim: int) -> np.ndarray:
        return self._ops.rotate(x, rows, dim)

    def mlp_block(self, x: np.ndarray, w: Mlp) -> np.ndarray:
        return self._ops.mlp_block(x, w)
