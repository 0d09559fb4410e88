"""The prefix tree over a restart: export it as plain records, and build it again from them, checked.

A record says where a block stood and which tokens are in it. What the blocks contain is somebody else's to save and to
bring back: ``restore`` says which of the old blocks goes where. Whether the model, its contract id and the layout of
the cache are the same is checked by whoever owns the file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from openwork.core.errors import OpenworkError
from openwork.core.terms import Namespace
from openwork.kv.cache import KVCache
from openwork.kv.prefix import Node


@dataclass(frozen=True, slots=True)
class Saved:
    """One cached block. ``parent`` is the index of an earlier record, None for the first block of a line."""

    namespace: Namespace
    tenant: str
    parent: int | None
    tokens: tuple[int, ...]
    block: int


def export(cache: KVCache) -> tuple[Saved, ...]:
    """The tree as records, each after its parent, the most recently used lines first."""
    nodes = list(cache.tree)  # parents first
    last_use: dict[int, float] = {}
    for node in reversed(nodes):  # a block was used whenever one that stands on it was
        own = node.rested if cache.pool.references(node.block) == 1 else float("inf")
        last_use[node.serial] = max(own, *(last_use[child.serial] for child in node.children.values()), 0.0)
    nodes.sort(key=lambda node: -last_use[node.serial])  # stable: a parent stays before its children
    places = {node.serial: place for place, node in enumerate(nodes)}
    records = []
    for node in nodes:
        assert node.parent is not None, "roots are not blocks"
        parent = places.get(node.parent.serial)
        records.append(Saved(node.namespace, cache.pool.owner(node.block), parent, node.tokens, node.block))
    return tuple(records)


def restore(cache: KVCache, records: Sequence[Saved], vocab_size: int) -> tuple[tuple[int, int], ...]:
    """Put records into an empty tree; (old block, new block) for each that found room, the first records first.

    Raises OpenworkError, naming the record, when they are not what ``export`` gives; nothing has changed then.
    """
    if len(cache.tree) or not cache.has_prefix:
        raise OpenworkError("the prefix tree is in use, or off", "Restore into a cache that has just been made.")
    _check(records, vocab_size, cache.block_size)
    nodes: list[Node | None] = []  # None: there was no room for it, or for what it stands on
    moves = []
    for record in records:
        parent = None if record.parent is None else nodes[record.parent]
        if cache.room(record.tenant) < 1 or (record.parent is not None and parent is None):
            nodes.append(None)
            continue
        block = cache.pool.take(record.tenant)
        nodes.append(cache.tree.extend(record.namespace, parent, record.tokens, block))
        moves.append((record.block, block))
    for node in reversed(nodes):  # the least recently used rest first, and each before what it stands on
        if node is not None:
            cache.tree.release(node.block)
    return tuple(moves)


def _check(records: Sequence[Saved], vocab_size: int, block_size: int) -> None:
    blocks: set[int] = set()
    siblings: dict[tuple[int | None, Namespace], list[tuple[int, ...]]] = {}
    for place, record in enumerate(records):
        if record.parent is not None and not 0 <= record.parent < place:
            raise _refused(place, f"stands on record {record.parent}, which is not before it")
        parent = None if record.parent is None else records[record.parent]
        if parent is not None and (len(parent.tokens) != block_size or parent.namespace != record.namespace):
            raise _refused(place, "stands on a partial block, or on one of another namespace")
        if not 0 < len(record.tokens) <= block_size:
            raise _refused(place, f"has {len(record.tokens)} tokens; a block has 1 to {block_size}")
        if not all(type(token) is int and 0 <= token < vocab_size for token in record.tokens):
            raise _refused(place, f"has a token that is not an id from 0 to {vocab_size - 1}")
        if type(record.block) is not int or record.block < 0 or record.block in blocks:
            raise _refused(place, f"is of block {record.block!r}, which is no block or another record's")
        blocks.add(record.block)
        siblings.setdefault((record.parent, record.namespace), []).append(record.tokens)
    for (above, _), lines in siblings.items():
        lines.sort()
        if any(two[: len(one)] == one for one, two in pairwise(lines)):
            raise OpenworkError(f"two records of the saved cache that stand on {above} say the same", _HINT)


_HINT = "The file is damaged: start without it."


def _refused(place: int, what: str) -> OpenworkError:
    return OpenworkError(f"record {place} of the saved cache {what}", _HINT)
