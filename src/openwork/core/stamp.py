"""Stamp: what passed at named points of a model while one row was computed, each point as a hash of 32 bits.

    embedding | layer 0: reads, mixed, stream, stream | layer 1: ... | ...   (the row of logits has a hash of its own)
    embed       project  attend  output  feed-forward                  head

Points stand in the order in which a row passes them, so the first that differs names the operation that made the
difference: what went into it was the same. It guarantees nothing about equality beyond the 32 bits: a difference that
is there is missed at one point once in 2^32, and met again at the next. It does not know how the hashes are made.
"""

from __future__ import annotations

from dataclasses import dataclass

EMBED = "embed"
PROJECT = "project, norm or rope"  # what attention reads: q, k and v of this row, as they meet the cache
ATTEND = "attend"  # what it mixed of the values
OUTPUT = "output"  # the stream behind attention, or what attention adds to it where both blocks read the same stream
FEED_FORWARD = "feed-forward"  # the stream behind the layer
HEAD = "head"  # final norm and head: the row of logits
OF_LAYER = (PROJECT, ATTEND, OUTPUT, FEED_FORWARD)

Stamp = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Place:
    """An operation of a model. ``layer`` is 0 for the embedding, and the number of layers for the head."""

    layer: int
    op: str


def num_points(num_layers: int) -> int:
    return 1 + len(OF_LAYER) * num_layers


def stamp_bytes(num_layers: int) -> int:
    """What a stamp takes in a recording, with the few bytes that say whose it is."""
    return 4 * num_points(num_layers) + 4


def point(layer: int, op: str) -> int:
    """Where in a stamp an operation of a layer has its hash; the embedding has the first."""
    if op == EMBED:
        return 0
    return 1 + len(OF_LAYER) * layer + OF_LAYER.index(op)


def first_difference(one: Stamp, other: Stamp) -> Place | None:
    """Where two stamps of the same row part; None: nowhere. Raises ValueError when the models have other layers."""
    for at, (left, right) in enumerate(zip(one, other, strict=True)):
        if left != right:
            layer, op = divmod(at - 1, len(OF_LAYER))
            return Place(layer, OF_LAYER[op]) if at else Place(0, EMBED)
    return None
