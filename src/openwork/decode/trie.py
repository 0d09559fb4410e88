"""Trie: the options of a choice as a tree of tokens, so that what options share is looked at once.

    options  a b c d | a b c e | a x        nodes  0 --a--> 1 --b c--> 2 --d--> 3 (option 0)
                                                           |          '--e--> 4 (option 1)
                                                           '--x--> 5 (option 2)

An edge holds all tokens up to the next fork or end, at most MOST_TOKENS, so that a lone rest is computed in one step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

MOST_TOKENS = 16


@dataclass(slots=True, eq=False)
class TrieNode:
    """``option`` ends here, if one does; ``children`` by the first token of their edge, in ascending order."""

    parent: int | None
    edge: tuple[int, ...]
    children: dict[int, int] = field(default_factory=dict)
    option: int | None = None


class Trie:
    """Nodes by number; 0 is the root, whose edge is empty."""

    def __init__(self, options: Sequence[tuple[int, ...]]) -> None:
        self.nodes: list[TrieNode] = [TrieNode(None, ())]
        self.num_tokens = 0  # of all edges: nodes of the tree, if an edge had one token
        order = sorted(range(len(options)), key=options.__getitem__)
        # Each job hangs what the options order[first:last] have behind their first ``depth`` tokens under a node.
        jobs = [(0, 0, len(options), 0)]
        while jobs:
            parent, first, last, depth = jobs.pop()
            if len(options[order[first]]) == depth:
                self.nodes[parent].option = order[first]
                first += 1
            while first < last:
                low, high = options[order[first]], first + 1
                while high < last and options[order[high]][depth] == low[depth]:
                    high += 1
                end = min(_common(low, options[order[high - 1]]), depth + MOST_TOKENS)
                self.nodes[parent].children[low[depth]] = len(self.nodes)
                jobs.append((len(self.nodes), first, high, end))
                self.nodes.append(TrieNode(parent, low[depth:end]))
                self.num_tokens += end - depth
                first = high

    def line(self, node: int) -> tuple[int, ...]:
        """The tokens from the root to the end of a node's edge."""
        edges: list[tuple[int, ...]] = []
        at: int | None = node
        while at is not None:
            edges.append(self.nodes[at].edge)
            at = self.nodes[at].parent
        return tuple(token for edge in reversed(edges) for token in edge)


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens two lines share from their beginning. Between them in sorted order all lines share these."""
    for place, (a, b) in enumerate(zip(one, other, strict=False)):
        if a != b:
            return place
    return min(len(one), len(other))
