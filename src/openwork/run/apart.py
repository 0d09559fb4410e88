"""Apart: the first number that differs between two computations of one line of tokens: other arithmetic, other formats.

    first_apart(one, other, position)   where it is, looked for in the order in which it was computed
    distance(a, b)                      how far two arrays lie apart

What passes from one position to later ones are keys and values alone, so the first position at which those differ, or
else the last one, is where it began; its row is then opened on both sides and gone through from the embedding up.
Formats of caches and weights may differ between the two; their shapes may not.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from openwork.core.stamp import ATTEND, EMBED, HEAD
from openwork.run.capture import Examination
from openwork.run.row import Row


@dataclass(frozen=True, slots=True)
class Distance:
    """``ulps`` counts float32 numbers from the one to the other, where that is most; ``entries`` those that differ."""

    most: float
    ulps: int
    entries: int
    of: int


@dataclass(frozen=True, slots=True)
class Point:
    """The first entry that differs. ``layer`` is None at the embedding and the head; ``name`` is an array of Row's."""

    position: int
    layer: int | None
    op: str
    name: str
    entry: tuple[int, ...]
    values: tuple[float, float]
    ulps: int
    distance: Distance


def distance(one: np.ndarray, other: np.ndarray) -> Distance:
    """Of two float32 arrays of one shape."""
    steps = np.abs(_ordered(one) - _ordered(other))
    most = float(np.abs(one.astype(np.float64) - other).max(initial=0.0))
    return Distance(most, int(steps.max(initial=0)), int(np.count_nonzero(steps)), one.size)


def is_alike(one: Examination, other: Examination) -> bool:
    """Whether what they compute has the same shapes, so that it can be compared number by number."""
    names = ("num_layers", "hidden_size", "num_heads", "num_kv_heads", "head_dim", "vocab_size")
    return all(getattr(one.spec, name) == getattr(other.spec, name) for name in names)


def first_apart(one: Examination, other: Examination, position: int) -> Point | None:
    """The first entry that differs in what the row at ``position`` rests on; None: it is the same to the last bit.

    Tokens up to ``position`` are the same in both, and so are the shapes. Raises RequestError for a position that
    there is not.
    """
    for place in sorted({_first_kept(one, other, position), position}):
        both = [each.row(place, heads=()) for each in (one, other)]  # of all layers what costs no attention
        layer = next((layer for layer, a, b in _inside(*both) if _differs(a, b)), None)
        if layer is None and not _differs(both[0].logits.row, both[1].logits.row):
            continue
        opened = () if layer is None or layer < 0 else (layer,)
        found = _point(*(each.row(place, layers=opened) for each in (one, other)))
        if found is not None:
            return found
    return None


def _first_kept(one: Examination, other: Examination, last: int) -> int:
    """The first position whose keys or values differ in any layer; ``last`` when none before it does."""
    group = one.spec.num_heads // one.spec.num_kv_heads
    for layer in range(one.spec.num_layers):
        for head in range(0, one.spec.num_heads, group):
            for get in (Examination.keys, Examination.values):
                a, b = (get(each, layer, head)[:last] for each in (one, other))
                if len(places := np.flatnonzero((a.view(np.uint32) != b.view(np.uint32)).any(axis=1))):
                    last = int(places[0])
    return last


def _inside(one: Row, other: Row) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """(layer, one's, other's) of a row of all layers and no heads, in order; the embedding is layer -1."""
    yield -1, one.residual[0], other.residual[0]
    for place, layer in enumerate(one.layers):
        for name in ("k_before", "v", "k"):
            yield layer, getattr(one, name)[place], getattr(other, name)[place]
        yield layer, one.residual[layer + 1], other.residual[layer + 1]


def _point(one: Row, other: Row) -> Point | None:
    """Of two rows, opened at the layer where they part, or at none: then it is the embedding or the head."""
    pairs = [(EMBED, "residual", one.residual[0], other.residual[0])]
    if one.layers:
        parts = {"project": ("q_before", "k_before", "v"), "norm or rope": ("q", "k"), ATTEND: ("mixed",)}
        pairs += [(op, n, getattr(one, n)[0], getattr(other, n)[0]) for op, names in parts.items() for n in names]
        behind = one.layers[0] + 1
        pairs.append(("output or feed-forward", "residual", one.residual[behind], other.residual[behind]))
    pairs.append((HEAD, "logits", one.logits.row, other.logits.row))
    for op, name, a, b in pairs:
        if _differs(a, b):
            steps = np.abs(_ordered(a) - _ordered(b))
            entry = np.unravel_index(int(np.flatnonzero(steps)[0]), a.shape)
            layer = None if op in (EMBED, HEAD) else one.layers[0]
            place = tuple(int(each) for each in entry)
            values = float(a[entry]), float(b[entry])
            return Point(one.position, layer, op, name, place, values, int(steps[entry]), distance(a, b))
    return None


def _differs(one: np.ndarray, other: np.ndarray) -> bool:
    return bool((_ordered(one) != _ordered(other)).any())


def _ordered(values: np.ndarray) -> np.ndarray:
    """float32 -> int64 such that neighbours are one apart, -0 and 0 too: equal exactly where all bits are."""
    bits = np.ascontiguousarray(values, np.float32).view(np.int32).astype(np.int64)
    return np.where(bits < 0, np.int64(-(2**31)) - bits - 1, bits)
