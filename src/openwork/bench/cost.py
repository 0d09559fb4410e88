"""What a piece of work must do at least, counted from the model's numbers: bytes to read, operations to make.

    decode    one step     every matrix once, and the keys and values of every sequence;
                           two operations for each entry and sequence, and those of attention
    prefill   one prompt   the same matrices once; two operations for each entry of the layers' matrices and token,
                           and those of attention; the head works on the last row only and is not counted

Attention over n keys takes 4 n operations for each entry of a query: scores, and the mix of values. A layer with a
sliding window sees its window only. Nothing is measured here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from openwork.bench.limits import DOTS, Ceiling
from openwork.core.spec import ModelSpec


@dataclass(frozen=True, slots=True)
class Weights:
    """How a model lies in memory, as far as its costs go."""

    spec: ModelSpec
    dtype: str  # of the weights
    kv_dtype: str
    read_bytes: int  # of all matrices that one decode step reads
    kv_bytes: float  # of one token in one layer


@dataclass(frozen=True, slots=True)
class Cost:
    """Bytes read, operations of matrices and operations of attention."""

    tokens: int
    num_bytes: float
    linear: float
    attention: float

    @property
    def operations(self) -> float:
        return self.linear + self.attention


@dataclass(frozen=True, slots=True)
class Least:
    """The seconds that a cost takes at least, for each of the ceilings alone."""

    memory: float
    linear: float
    arithmetic: float  # linear included


def decode(weights: Weights, contexts: Sequence[float]) -> Cost:
    """One step of as many sequences as there are contexts; each the keys that its new token sees."""
    spec = weights.spec
    seen = sum(min(window or each, each) for window in spec.windows for each in contexts)
    return Cost(
        tokens=len(contexts),
        num_bytes=weights.read_bytes + seen * weights.kv_bytes,
        linear=2 * len(contexts) * spec.weights_read_per_token,
        attention=4 * spec.q_size * seen,
    )


def prefill(weights: Weights, length: int) -> Cost:
    """One prompt of ``length`` tokens, from nothing to its first token."""
    spec = weights.spec
    seen = sum(_triangle(length, window or length) for window in spec.windows)
    return Cost(
        tokens=length,
        num_bytes=weights.read_bytes + spec.num_layers * length * weights.kv_bytes,
        linear=2 * length * spec.num_layers * spec.layer_weights,
        attention=4 * spec.q_size * seen,
    )


def least(cost: Cost, weights: Weights, ceiling: Ceiling) -> Least:
    """The seconds at a moment's ceilings; each kind of operation at the peak of its own format's dot product."""
    linear = cost.linear / ceiling.dots[DOTS[weights.dtype]]
    attention = cost.attention / ceiling.dots[DOTS[weights.kv_dtype]]
    return Least(cost.num_bytes / ceiling.read, linear, linear + attention)


def _triangle(length: int, window: int) -> int:
    """Keys that the tokens of a prompt see together: 1 + 2 + ... + window, then window for each that follows."""
    full = min(length, window)
    return full * (full + 1) // 2 + (length - full) * window
