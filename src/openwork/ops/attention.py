"""Attention of one row over paged keys: how it is cut into splits, and what is rounded to what.

Keys are cut at absolute multiples of SPLIT. Each split gives (max, sum, weighted values); splits merge in index order
(Milakov & Gimelshein 2018, online softmax). What meets a cached number is rounded like it:

    float32    nothing is rounded
    bfloat16   queries and softmax weights to bfloat16; the weights' sum is that of the rounded ones
    int8       queries, and weights times the values' scales, to codes of 14 bits; products of codes are exact

Knows nothing of threads or tiles: any tiling that follows these rules gives the same up to the order of sums.
"""

from __future__ import annotations

import numpy as np

from openwork.ops.packed import bfloat16_round
from openwork.ops.paged import PagedKV, to_codes
from openwork.ops.weights import Attention

SPLIT = 256  # keys of one split
FINE_STEPS = 127 * 128  # of the codes that meet an int8 cache: two rows of eight bits in the kernels
Split = tuple[np.ndarray, np.ndarray, np.ndarray]  # highest score, sum of weights, weighted values


def attend_row(q: np.ndarray, kv: PagedKV, layer: int, table: np.ndarray, position: int, w: Attention) -> np.ndarray:
    """q (kv_heads, group, head_dim) of the row at ``position`` -> (heads, head_dim)."""
    if kv.dtype == "bfloat16":
        q = bfloat16_round(q)
    lowest = 0 if w.window is None else max(0, position - w.window + 1)
    attend_split = _attend_codes if kv.dtype == "int8" else _attend_floats
    top: np.ndarray | None = None
    total = out = np.empty(0, np.float32)
    for split in range(lowest // SPLIT, position // SPLIT + 1):
        seen = np.arange(max(lowest, split * SPLIT), min(position + 1, (split + 1) * SPLIT))
        high, mass, mixed = attend_split(q, kv, layer, table[seen // kv.block_size], seen % kv.block_size, w)
        if top is None:
            top, total, out = high, mass, mixed
            continue
        best = np.maximum(top, high)
        old, new = np.exp(top - best), np.exp(high - best)
        top, total, out = best, total * old + mass * new, out * old + mixed * new
    return np.divide(out, total).reshape(w.num_heads, w.head_dim)


def _attend_floats(q: np.ndarray, kv: PagedKV, layer: int, block: np.ndarray, slot: np.ndarray, w: Attention) -> Split:
    """q (kv_heads, group, head_dim) over the keys of some slots, those of one split."""
    k, v = (np.ascontiguousarray(x.swapaxes(0, 1)) for x in kv.take(layer, block, slot))  # (kv_heads, keys, head_dim)
    high, weights = _soften(q @ k.swapaxes(1, 2), w)
    if kv.dtype == "bfloat16":
        weights = bfloat16_round(weights)
    return high, weights.sum(axis=-1, keepdims=True), weights @ v


def _attend_codes(q: np.ndarray, kv: PagedKV, layer: int, block: np.ndarray, slot: np.ndarray, w: Attention) -> Split:
    """The same over int8 codes: the products are of integers, and exact."""
    (k, k_scale), (v, v_scale) = (
        (codes.swapaxes(0, 1).astype(np.float64), scale.T[:, None])
        for codes, scale in kv.take_codes(layer, block, slot)
    )
    q_codes, q_scale = to_codes(q, FINE_STEPS)
    scores = (q_codes @ k.swapaxes(1, 2)).astype(np.float32) * k_scale * q_scale
    high, weights = _soften(scores, w)
    codes, scale = to_codes(weights * v_scale, FINE_STEPS)
    return high, weights.sum(axis=-1, keepdims=True), (codes @ v).astype(np.float32) * scale


def _soften(scores: np.ndarray, w: Attention) -> tuple[np.ndarray, np.ndarray]:
    """Scores (kv_heads, group, keys) -> the highest of each row, and exp(score - highest)."""
    scores = scores * np.float32(w.scale)
    if w.softcap is not None:
        scores = np.float32(w.softcap) * np.tanh(scores / np.float32(w.softcap))
    high = scores.max(axis=-1, keepdims=True)
    return high, np.exp(scores - high)
