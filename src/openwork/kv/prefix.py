"""PrefixTree: what is cached, as a tree of whole blocks. match, extend, remove.

    (namespace)  ->  [the quick brown fox]  ->  [jumps over the lazy]  ->  [dog]      a partial block is always a leaf
                                            \\-> [sat on a log and]

A node is found by the token ids themselves: they are its key, and a dict compares keys; the hash only speeds that up.
What stands beneath one namespace is never seen from another. No node's tokens are the beginning of a sibling's. The
tree holds each of its blocks once (pool.hold), so a block in it is never written to; blocks that only the tree holds
are ``idle``. It does not know sequences, shares or time: who is evicted, and when, is decided in ``eviction``.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count, pairwise

from openwork.core.terms import Namespace
from openwork.kv.pool import BlockPool

Tokens = tuple[int, ...]


class Node:
    """One cached block and the tokens in it. ``serial`` is never used twice."""

    __slots__ = (
        "block",
        "children",
        "is_in",
        "namespace",
        "order",
        "parent",
        "pinned_until",
        "rested",
        "serial",
        "serials",
        "tokens",
    )

    def __init__(self, serial: int, namespace: Namespace, parent: Node | None, tokens: Tokens, block: int) -> None:
        self.serial = serial
        self.namespace = namespace
        self.parent = parent
        self.tokens = tokens
        self.block = block
        self.children: dict[Tokens, Node] = {}
        self.order: list[Tokens] = []  # keys of the children, sorted: the longest common beginning is a neighbour
        self.serials: list[int] = []  # of the children in that order
        self.pinned_until = 0.0  # on the engine's clock; 0: not pinned
        self.rested = 0  # when it last became idle: a count, not a time
        self.is_in = True  # False once it has been removed

    @property
    def path(self) -> list[Node]:
        """From the first block down to this one."""
        found: list[Node] = []
        node: Node | None = self
        while node is not None and node.parent is not None:
            found.append(node)
            node = node.parent
        return found[::-1]

    def closest(self, tokens: Tokens) -> tuple[Node | None, int]:
        """The child with the longest common beginning, and how long that is; None when they share nothing.

        The oldest of those that share as much: nothing depends on which tokens they are, only on which are equal, so a
        replay decides the same with any others in their place.
        """
        place = bisect_left(self.order, tokens)
        longest = max((common(key, tokens) for key in self.order[max(0, place - 1) : place + 1]), default=0)
        if not longest:
            return None, 0
        first = bisect_left(self.order, tokens[:longest])
        end = bisect_left(self.order, (*tokens[: longest - 1], tokens[longest - 1] + 1))
        oldest = min(range(first, end), key=self.serials.__getitem__)
        return self.children[self.order[oldest]], longest

    def add(self, child: Node) -> None:
        """A child takes its place."""
        place = bisect_left(self.order, child.tokens)
        self.order.insert(place, child.tokens)
        self.serials.insert(place, child.serial)
        self.children[child.tokens] = child

    def take(self, child: Node) -> None:
        """A child goes."""
        place = bisect_left(self.order, child.tokens)
        del self.order[place], self.serials[place], self.children[child.tokens]


@dataclass(frozen=True, slots=True)
class Match:
    """Nodes for whole blocks, and perhaps the first tokens of one more, whose block must be copied to be gone on with.

    ``length`` counts the tokens of all; ``parent`` is where the next block would stand, None in an empty namespace.
    """

    nodes: tuple[Node, ...] = ()
    partial: Node | None = None
    length: int = 0
    parent: Node | None = None

    @property
    def all(self) -> tuple[Node, ...]:
        return self.nodes if self.partial is None else (*self.nodes, self.partial)


class PrefixTree:
    """``rested`` and ``woken`` hear when a block of the tree becomes idle and when it no longer is, ``removed`` when it
    is taken out."""

    def __init__(
        self,
        block_size: int,
        pool: BlockPool,
        rested: Callable[[Node], None],
        woken: Callable[[Node], None],
        removed: Callable[[Node], None],
    ) -> None:
        self._size = block_size
        self._pool = pool
        self._rested = rested
        self._woken = woken
        self._removed = removed
        self._roots: dict[Namespace, Node] = {}
        self._nodes: dict[int, Node] = {}  # by block
        self._serials = count()

    def __len__(self) -> int:
        return len(self._nodes)

    def __iter__(self) -> Iterator[Node]:
        """Every node, each after its parent."""
        left = list(self._roots.values())
        while left:
            node = left.pop()
            left += node.children.values()
            if node.parent is not None:
                yield node

    @property
    def namespaces(self) -> tuple[Namespace, ...]:
        return tuple(self._roots)

    def holds(self, block: int) -> bool:
        return block in self._nodes

    def match(self, namespace: Namespace, tokens: Sequence[int], limit: int) -> Match:
        """The longest cached beginning of ``tokens[:limit]``. Holds nothing."""
        node = self._roots.get(namespace)
        if node is None:
            return Match()
        nodes: list[Node] = []
        at, size = 0, self._size
        while at + size <= limit:
            child = node.children.get(tuple(tokens[at : at + size]))
            if child is None:
                break
            nodes.append(child)
            node, at = child, at + size
        partial, length = node.closest(tuple(tokens[at : min(at + size, limit)]))
        return Match(tuple(nodes), partial, at + length, node)

    def extend(self, namespace: Namespace, parent: Node | None, tokens: Tokens, block: int) -> Node | None:
        """Let ``block`` stand after ``parent`` (None: first), holding it; a node that says the same is kept instead.

        None when a longer one is there already, so that nothing would be gained.
        """
        if parent is None:
            parent = self._roots.get(namespace) or self._plant(namespace)
        known = parent.children.get(tokens)
        if known is not None:
            return known
        other, length = parent.closest(tokens)
        if other is not None and length == len(tokens):
            return None
        if other is not None and length == len(other.tokens):
            self.remove(other)  # a partial block that this one goes on from
            if parent.parent is None:
                self._roots[namespace] = parent  # the last child took its root along
        node = Node(next(self._serials), namespace, parent, tokens, block)
        parent.add(node)
        self._nodes[block] = node
        self._pool.hold(block)
        return node

    def hold(self, block: int) -> None:
        """A sequence holds a block, of this tree or not."""
        node = self._nodes.get(block)
        if node is not None and self._pool.references(block) == 1:
            self._woken(node)
        self._pool.hold(block)

    def release(self, block: int) -> None:
        """A sequence lets a block go, of this tree or not."""
        if self._pool.release(block) == 1 and (node := self._nodes.get(block)) is not None:
            self._rested(node)

    def remove(self, node: Node) -> int:
        """Take a node out, and all that stands on it. How many blocks became free."""
        if not node.is_in or node.parent is None:
            return 0
        parent, before = node.parent, self._pool.num_free
        parent.take(node)
        if parent.parent is None and not parent.children:
            del self._roots[parent.namespace]
        left = [node]
        while left:
            gone = left.pop()
            left += gone.children.values()
            gone.is_in = False
            del self._nodes[gone.block]
            if self._pool.references(gone.block) == 1:
                self._woken(gone)
            self._removed(gone)
            self._pool.release(gone.block)
        return self._pool.num_free - before

    def drop(self, block: int) -> None:
        """Take the node of a block out."""
        self.remove(self._nodes[block])

    def _plant(self, namespace: Namespace) -> Node:
        root = self._roots[namespace] = Node(next(self._serials), namespace, None, (), -1)
        return root

    def check(self) -> None:
        """Raise AssertionError unless the tree is whole."""
        nodes = list(self)
        for node in nodes:
            assert node.is_in and self._nodes[node.block] is node, f"block {node.block} is not where the tree says"
            assert node.parent is not None and node.parent.children[node.tokens] is node
            assert 0 < len(node.tokens) <= self._size
            assert len(node.tokens) == self._size or not node.children, "a partial block is not a leaf"
        assert len(nodes) == len(self._nodes), "blocks of the tree cannot be reached"
        for node in [*self._roots.values(), *nodes]:
            assert node.order == sorted(node.children), "the order of children is wrong"
            assert node.serials == [node.children[key].serial for key in node.order]
            for one, two in pairwise(node.order):
                assert two[: len(one)] != one, "a node says nothing that its sibling does not"
        assert all(root.children for root in self._roots.values()), "an empty namespace was kept"


def common(one: Sequence[int], two: Sequence[int]) -> int:
    """How many tokens two lines begin with alike."""
    shorter = min(len(one), len(two))
    return next((i for i in range(shorter) if one[i] != two[i]), shorter)
