"""Trie: the options of a choice as a tree of tokens, so that what options share is looked at once.

    options  a b c d | a b c e | a x        nodes  0 --a--> 1 --b c--> 2 --d--> 3 (option 0)
                                                           |          '--e--> 4 (option 1)
                                                           '--x--> 5 (option 2)

An edge holds all tokens up to the next fork or end, at most MOST_TOKENS, so that a lone rest is computed in one step.
What lies behind a node is a run of the options in sorted order; its children are made when they are asked for, since a
search looks at few of the nodes and nobody should wait for the others.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

MOST_TOKENS = 16


@dataclass(slots=True, eq=False)
class TrieNode:
    """``option`` ends here, if one does. The options behind it are those from ``first`` to before ``last`` in order."""

    parent: int | None
    edge: tuple[int, ...]
    first: int
    last: int
    depth: int  # tokens from the root to the end of its edge
    option: int | None = None
    children: dict[int, int] | None = None  # None: nobody has asked


class Trie:
    """Nodes by number; 0 is the root, whose edge is empty."""

    def __init__(self, options: Sequence[tuple[int, ...]]) -> None:
        self._options = options
        self._order = sorted(range(len(options)), key=options.__getitem__)
        self.nodes: list[TrieNode] = []
        self._add(None, 0, len(options), 0, 0)

    def children(self, node: int) -> dict[int, int]:
        """By the first token of their edge, in ascending order."""
        it = self.nodes[node]
        if it.children is None:
            it.children = {}
            first = it.first + (it.option is not None)
            while first < it.last:
                token = self._line(first)[it.depth]
                last = first + 1
                while last < it.last and self._line(last)[it.depth] == token:
                    last += 1
                shared = _common(self._line(first), self._line(last - 1))
                it.children[token] = self._add(node, first, last, it.depth, min(shared, it.depth + MOST_TOKENS))
                first = last
        return it.children

    def behind(self, node: int) -> Iterator[int]:
        """The options that end at a node or behind it."""
        it = self.nodes[node]
        yield from self._order[it.first : it.last]

    def line(self, node: int) -> tuple[int, ...]:
        """The tokens from the root to the end of a node's edge."""
        it = self.nodes[node]
        return self._line(it.first)[: it.depth]

    def num_tokens(self) -> int:
        """Of all edges: nodes of the whole tree beside the root, if an edge had one token. Looks at every option."""
        lines = [self._options[option] for option in self._order]
        return sum(map(len, lines)) - sum(_common(one, other) for one, other in pairwise(lines))

    def _add(self, parent: int | None, first: int, last: int, begin: int, end: int) -> int:
        line = self._line(first)
        option = self._order[first] if len(line) == end else None
        self.nodes.append(TrieNode(parent, line[begin:end], first, last, end, option))
        return len(self.nodes) - 1

    def _line(self, place: int) -> tuple[int, ...]:
        return self._options[self._order[place]]


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens two lines share from their beginning. Between them in sorted order all lines share these."""
    for place, (a, b) in enumerate(zip(one, other, strict=False)):
        if a != b:
            return place
    return min(len(one), len(other))
