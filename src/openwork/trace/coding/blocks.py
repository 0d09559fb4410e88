"""Blocks: the paged cache in a picture: who holds which block, the prefix tree, who rests, what is pinned.

What a block is never changes while it is in the tree, so it is spelled once, its tokens as words (pseudonym.py), and a
picture puts together what has been spelled: ten thousand blocks are a matter of milliseconds. References and
charges are counted again when it is read. What was evicted is left out (state.py).
"""

from __future__ import annotations

import struct
from array import array
from itertools import count
from typing import Any

from openwork.core.errors import TraceError
from openwork.core.sequence import Sequence
from openwork.core.terms import Namespace
from openwork.kv.cache import KVCache
from openwork.kv.prefix import Node, PrefixTree
from openwork.trace.coding.pseudonym import Place
from openwork.trace.coding.pseudonym import Reader as WordReader
from openwork.trace.coding.pseudonym import Writer as WordWriter

HEAD_OF_BLOCK = struct.Struct("<QQII")  # serial | that of what it stands on | block | tokens, whose words follow


class Spelling:
    """What there is to say of each block of a tree for as long as it is there, said when it is first seen."""

    def __init__(self, words: WordWriter) -> None:
        self._words = words
        self._said: dict[int, tuple[bytes, Place]] = {}  # serial -> what is said, and where its line stands then
        self._last = -1  # serial of the newest that is known

    def look(self, tree: PrefixTree) -> None:
        """Spell what is new. Blocks are in the tree in the order in which they came."""
        new: list[Node] = []
        for node in reversed(tree._nodes.values()):
            if node.serial <= self._last:
                break
            new.append(node)
        for node in reversed(new):
            parent = node.parent
            assert parent is not None, "roots are not blocks"
            place = self._words.root if parent.parent is None else self._said[parent.serial][1]
            words, place = self._words.walk(place, node.tokens)
            head = HEAD_OF_BLOCK.pack(node.serial, parent.serial, node.block, len(node.tokens))
            self._said[node.serial] = head + words, place
            self._last = node.serial
        if len(self._said) > 2 * len(tree) + 1024:
            self._said = {node.serial: self._said[node.serial] for node in tree._nodes.values()}

    def all(self, tree: PrefixTree) -> bytes:
        said = self._said
        return b"".join([said[node.serial][0] for node in tree._nodes.values()])


class Ghosts:
    """Blocks that were taken out of the tree, and that somebody still stands on."""

    def __init__(self) -> None:
        self.said: list[tuple[int, int | None]] = []  # (serial, what it stands on)
        self._places: dict[int, int] = {}

    def name(self, node: Node | None) -> int | None:
        """A block of the tree by its number, a ghost by one below 0; None: nothing."""
        if node is None or node.parent is None:
            return None
        if node.is_in:
            return node.block
        if node.serial not in self._places:
            below = [each for each in node.path if not each.is_in and each.serial not in self._places]
            for each in below:
                self.said.append((each.serial, self.name(each.parent)))
                self._places[each.serial] = len(self.said) - 1
        return -1 - self._places[node.serial]


def said_of(cache: KVCache, spelling: Spelling, ghosts: Ghosts) -> list[Any]:
    """The cache as plain data. ``ghosts`` is to be written behind it."""
    tree, pool, eviction = cache.tree, cache.pool, cache.eviction
    spelling.look(tree)
    names = {owner: place for place, owner in enumerate(sorted(set(pool._owners)))}
    pinned = [(node.block, node.pinned_until) for node in tree._nodes.values() if node.pinned_until]
    return [
        [[*namespace, root.serial] for namespace, root in tree._roots.items()],
        spelling.all(tree),
        pinned,
        {tenant: array("I", [node.block for node in idle]).tobytes() for tenant, idle in eviction._idle.items()},
        list(names),
        array("I", [names[owner] for owner in pool._owners]).tobytes(),
        array("I", pool._free).tobytes(),
        eviction.now,
        [(until, serial, ghosts.name(node)) for until, serial, node in eviction._pins],
    ]


class Tree:
    """The cache of a picture, put into one that has just been made."""

    def __init__(self, cache: KVCache, said: list[Any], ghosts: list[Any], words: WordReader) -> None:
        """Raises TraceError, ValueError, LookupError or TypeError for what is no cache."""
        self._cache = cache
        self._words = words
        roots, blocks, pinned, idle, names, owners, free, now, pins = said
        if len(owners) != 4 * cache.pool.num_blocks:
            raise TraceError("a picture is of a cache of another size")
        self._places: dict[int, Place] = {}  # block -> where its line stands
        self._plant(roots, blocks)
        self._ghosts: list[Node] = []
        for serial, parent in ghosts:
            below = self.node(parent) or Node(-1, ("", ""), None, (), -1)
            ghost = Node(serial, below.namespace, below, (), -1)
            ghost.is_in = False
            self._ghosts.append(ghost)
        for block, until in pinned:
            cache.tree._nodes[block].pinned_until = float(until)
        eviction = cache.eviction
        eviction.num_pinned, eviction.now = len(pinned), float(now)
        self._give(names, _column("I", owners), _column("I", free))
        self._rest({tenant: _column("I", resting) for tenant, resting in idle.items()})
        eviction._pins = [(float(until), serial, self._pinned(name)) for until, serial, name in pins]
        known = (*cache.tree._roots.values(), *cache.tree._nodes.values(), *self._ghosts)
        cache.tree._serials = count(1 + max((node.serial for node in known), default=-1))

    def _plant(self, roots: list[Any], said: bytes) -> None:
        tree, by_serial, at = self._cache.tree, dict[int, Node](), 0
        for kind, name, serial in roots:
            namespace: Namespace = str(kind), str(name)
            by_serial[serial] = tree._roots[namespace] = Node(serial, namespace, None, (), -1)
        while at < len(said):
            serial, above, block, length = HEAD_OF_BLOCK.unpack_from(said, at)
            parent, at = by_serial[above], at + HEAD_OF_BLOCK.size
            place = self._words.root if parent.parent is None else self._places[parent.block]
            words = _column("I", said[at : at + 4 * length])
            tokens, self._places[block] = self._words.walk(place, words)
            at += 4 * length
            if block in tree._nodes or block >= self._cache.pool.num_blocks or len(tokens) != length:
                raise TraceError(f"block {block} of a picture is none")
            node = Node(serial, parent.namespace, parent, tuple(tokens), block)
            parent.children[node.tokens] = tree._nodes[block] = by_serial[serial] = node
        for node in by_serial.values():
            node.order = sorted(node.children)
            node.serials = [node.children[key].serial for key in node.order]

    def _give(self, names: list[str], owners: array[int], free: array[int]) -> None:
        pool = self._cache.pool
        pool._free = list(free)
        pool._owners = [names[owner] for owner in owners]
        for block in self._cache.tree._nodes:
            pool._references[block] += 1
        is_free = set(free)
        for block, owner in enumerate(pool._owners):
            if block not in is_free:
                pool.charged[owner] = pool.charged.get(owner, 0) + 1

    def _rest(self, idle: dict[str, array[int]]) -> None:
        eviction, nodes = self._cache.eviction, self._cache.tree._nodes
        for tenant, resting in idle.items():
            eviction._idle[tenant] = {nodes[block]: None for block in resting}
            eviction.num_idle += len(resting)
            for block in resting:
                nodes[block].rested = next(eviction._rests)

    def node(self, name: int | None) -> Node | None:
        """By the name that Ghosts gave it."""
        if name is None:
            return None
        return self._cache.tree._nodes[name] if name >= 0 else self._ghosts[-1 - name]

    def _pinned(self, name: int | None) -> Node:
        node = self.node(name)
        if node is None:
            raise TraceError("a pin is on nothing")
        return node

    def hold(self, sequence: Sequence) -> None:
        """Count a sequence among the holders of its blocks."""
        for block in sequence.blocks:
            self._cache.pool._references[block] += 1

    def line(self, block: int | None, rest: bytes) -> tuple[list[int], Place]:
        """The tokens of a line that goes on from a block of the tree, or from nothing; and where it stands."""
        if block is None:
            return self._words.walk(self._words.root, _column("I", rest))
        before = [token for node in self._cache.tree._nodes[block].path for token in node.tokens]
        tokens, place = self._words.walk(self._places[block], _column("I", rest))
        return before + tokens, place


def _column(kind: str, data: bytes) -> array[int]:
    column = array(kind)
    column.frombytes(data)
    return column
