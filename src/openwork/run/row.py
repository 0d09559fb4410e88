"""Row: one position of a sequence, and all that was computed for it on the way to the next token. Frozen records.

Everything is what the operations of the engine took and gave, but for ``attention``: the kernels make that softmax in
parts and never keep it, so it is computed again from the queries and keys that were read.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True, eq=False)
class Logits:
    """What a row of logits says, as the model gave it: before biases, penalties, constraints and temperature."""

    row: np.ndarray  # (vocab,) float32
    row_hash: int  # docs/numeric-contract.md
    logsumexp: float  # log-probabilities are row - logsumexp
    entropy: float  # nats
    margin: float  # of the highest over the second
    top_ids: np.ndarray  # (top,) int64, likeliest first
    top_logits: np.ndarray  # (top,) float32


@dataclass(frozen=True, slots=True, eq=False)
class Lens:
    """What the final norm and the head make of the residual stream: before the first layer, and behind each."""

    ids: np.ndarray  # (layers + 1, top) int64, likeliest first
    logits: np.ndarray  # (layers + 1, top) float32
    logsumexp: np.ndarray  # (layers + 1,) float64


@dataclass(frozen=True, slots=True, eq=False)
class Row:
    """``layers`` and ``heads`` say what was asked for; the arrays have them in that order. All are float32.

    before     as projected; the others are normed and turned where the model does that, as they met the cache
    kv_heads   all of them: head h reads kv head h // (num_heads / num_kv_heads)
    """

    position: int
    token: int  # that was read here
    layers: tuple[int, ...]
    heads: tuple[int, ...]
    q_before: np.ndarray  # (layers, heads, head_dim)
    q: np.ndarray  # (layers, heads, head_dim)
    k_before: np.ndarray  # (layers, kv_heads, head_dim)
    k: np.ndarray  # (layers, kv_heads, head_dim)
    v: np.ndarray  # (layers, kv_heads, head_dim)
    attention: np.ndarray  # (layers, heads, position + 1); each line sums to 1, and is 0 where a window hides a key
    mixed: np.ndarray  # (layers, heads, head_dim): the values by these weights, as the kernel gave them
    residual: np.ndarray  # (num_layers + 1, hidden_size): before the first layer, and behind each
    logits: Logits
    lens: Lens | None  # None: not asked for
