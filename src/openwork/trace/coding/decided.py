"""Decided: what a search does next as bytes and back, for a log without tokens, from which it cannot be derived.

It is what the search does and nothing of why: which lines go on, in order, and the order in which those that are kept
may go. A line is said against its parent's, where reader and writer have that; a key makes the writer forget
(``forget``), so that what stands behind a key stands for itself.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from typing import Any

from openwork.core.errors import TraceError
from openwork.core.step import Expand
from openwork.decode.strategy import Generation, Leaf
from openwork.trace.coding.mirror import Mirror
from openwork.trace.coding.pseudonym import Place
from openwork.trace.coding.pseudonym import Reader as WordReader
from openwork.trace.coding.pseudonym import Writer as WordWriter
from openwork.trace.coding.shape import DECIDED, Bytes, rare
from openwork.trace.entry import Decided

Line = tuple[int, ...]


def ranks(worths: Mapping[int, float]) -> tuple[tuple[int, int], ...]:
    """(node, place in the order of worth) of each: equal where they are worth the same."""
    order = {worth: rank for rank, worth in enumerate(sorted(set(worths.values())))}
    return tuple((node, order[worth]) for node, worth in worths.items())


class DecidedWriter:
    def __init__(self, mirror: Mirror, words: WordWriter) -> None:
        self.mirror = mirror
        self._words = words
        self._places: dict[int, dict[int, Place]] = {}  # request -> node -> where its line ends

    def forget(self) -> None:
        self._places.clear()

    def write(self, time: float, number: int, generation: Generation, worths: Mapping[int, float]) -> bytes:
        asked, known = self.mirror.asked[number], self._places.get(number, {})
        places: dict[int, Place] = {}
        leaves: list[Any] = []
        for leaf in generation.leaves:
            begin = None if leaf.parent is None else known.get(leaf.parent)
            new = len(leaf.line) if begin is None else leaf.fresh
            words, places[leaf.node] = self._words.walk(begin or asked.place, leaf.line[len(leaf.line) - new :])
            asks = leaf.expand
            how = [asks.top, bool(asks.among), bool(asks.without), asks.constraint is not None]
            leaves.append([leaf.node, leaf.parent, leaf.fresh, begin is not None, words, *how])
        self._places[number] = {node: known[node] for node in worths if node in known} | places
        for gone in self._places.keys() - self.mirror.asked.keys():
            del self._places[gone]
        return rare(DECIDED, time, [number, leaves, len(generation.agreed), list(map(list, ranks(worths)))])


class DecidedReader:
    def __init__(self, mirror: Mirror, words: WordReader) -> None:
        self.mirror = mirror
        self._words = words
        self._lines: dict[int, dict[int, tuple[Line, Place]]] = {}

    def read(self, time: float, body: Bytes) -> Decided:
        number, said, num_agreed, worths = body.rest()
        asked = self.mirror.asked.get(number)
        if asked is None:
            raise TraceError("a search decides that is not there")
        request, known = asked.request, self._lines.get(number, {})
        lines: dict[int, tuple[Line, Place]] = {}
        leaves: list[Leaf] = []
        for node, parent, fresh, is_known, words, top, asks_ends, leaves_ends, is_bound in said:
            before, place = known.get(parent, ((), self._words.lost())) if is_known else ((), asked.place)
            tokens, place = self._words.walk(place, array("I", words))
            line = (*before, *tokens)
            lines[node] = line, place
            expand = Expand(
                int(top),
                tuple(sorted(asked.ends)) if asks_ends else (),
                asked.ends if leaves_ends else frozenset(),
                request.params.constraint if is_bound else None,
                line if is_bound else (),
            )
            leaves.append(Leaf(node, line, expand, fresh, parent))
        told = asked.num_agreed
        asked.num_agreed += num_agreed
        agreed = leaves[0].line[told : asked.num_agreed] if leaves else ()
        self._lines[number] = {node: known[node] for node, _ in worths if node in known} | lines
        for gone in self._lines.keys() - self.mirror.asked.keys():
            del self._lines[gone]
        return Decided(time, number, Generation(tuple(leaves), agreed), tuple((node, rank) for node, rank in worths))
