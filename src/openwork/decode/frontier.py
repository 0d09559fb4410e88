"""Frontier: what a search has seen and not looked at yet, best first.

The score of a line never rises as it grows, so the best bound in here bounds everything that is unfinished. A node
gives its children best first; only the next of each is in the heap, however many it has. Equal bounds come in the order
they were put in.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from heapq import heappop, heappush
from typing import Generic, TypeVar

Child = TypeVar("Child")


class Frontier(Generic[Child]):
    """Children of nodes, each with an upper bound of what its lines may score."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, int, int]] = []  # (-bound, when it was put in, node, place among siblings)
        self._children: dict[int, tuple[Sequence[tuple[float, Child]], int]] = {}  # node -> (all, next)
        self._count = 0

    def add(self, node: int, children: Sequence[tuple[float, Child]]) -> None:
        """The children of a node with their bounds, highest first."""
        if children:
            self._put(node, children, 0)

    def _put(self, node: int, children: Sequence[tuple[float, Child]], place: int) -> None:
        self._children[node] = children, place
        heappush(self._heap, (-children[place][0], self._count, node, place))
        self._count += 1

    @property
    def best(self) -> float | None:
        """The highest bound; None when nothing is left."""
        self._tidy()
        return -self._heap[0][0] if self._heap else None

    def pop(self) -> Child:
        """The child with the highest bound."""
        self._tidy()
        return self.take(self._heap[0][2])

    def take(self, node: int) -> Child:
        """The next child of one node."""
        children, place = self._children.pop(node)
        if place + 1 < len(children):
            self._put(node, children, place + 1)
        return children[place][1]

    def _tidy(self) -> None:
        """Entries of what was taken out of turn are dropped when they come up."""
        while self._heap:
            _, _, node, place = self._heap[0]
            if node in self._children and self._children[node][1] == place:
                return
            heappop(self._heap)

    def next_of(self, node: int) -> float | None:
        """The bound of a node's next child; None when it has no more."""
        if node not in self._children:
            return None
        children, place = self._children[node]
        return children[place][0]

    def __iter__(self) -> Iterator[tuple[float, Child]]:
        """Everything that is left, node by node."""
        for children, place in self._children.values():
            yield from children[place:]
