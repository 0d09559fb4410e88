"""WatchedCache: a KVCache that says what it does to each block, for whom, and at whose cost.

It is given to a scheduler that replays a recording, so that a running engine pays nothing for it. It decides as the
cache it stands on does, to the block; the replay, which compares every block table, would show if it did not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from openwork.core.sequence import Sequence
from openwork.core.settings import CacheSettings
from openwork.core.step import Copy
from openwork.core.terms import Tenants
from openwork.kv.cache import KVCache
from openwork.kv.eviction import Eviction
from openwork.kv.pool import BlockPool
from openwork.kv.prefix import Match, Node

# take   a block that was free            copy   a block of its own, for one that others read too: ``source``
# share  one that others hold: "prefix" (found), "fork" (of a sibling), "same" (somebody computed the same)
# give   a sequence lets go of one        evict  a cached one goes, because ``tenant`` needed room
# drop   a cached one is forgotten: what is in it failed, or a longer one says the same
What = Literal["take", "copy", "share", "give", "evict", "drop"]
MOST_GONE = 1_000_000  # evicted blocks that are remembered, to say what was computed a second time


@dataclass(frozen=True, slots=True)
class Move:
    """One thing done to one block. ``request`` and ``index`` say whose sequence asked for it, where one did.

    ``state`` is what the block was afterwards: "free", "cached" (the prefix tree's alone), "private" or "shared".
    """

    what: What
    block: int
    request: int | None
    index: int | None
    tenant: str  # who asked
    owner: str  # who was charged for the block
    state: str
    source: int | None = None
    cause: str = ""


class WatchedCache(KVCache):
    """``moves`` are those since they were last taken.

    ``again`` says of each sequence that begins, by request and index, how many of its tokens were cached once, by the
    tenant for whom they were evicted; None: they were in the cache of an engine's process that ended.
    """

    def __init__(self, settings: CacheSettings, tenants: Tenants | None = None) -> None:
        super().__init__(settings, tenants)
        self.moves: list[Move] = []
        self.num_evicted = 0
        self.for_whom: Sequence | None = None
        self.again: dict[tuple[int, int], dict[str | None, int]] = {}
        self.eviction = _WatchedEviction(settings.block_size, self.pool, self.tenants, self)
        self.tree = self.eviction.tree
        self._gone: dict[int, str | None] = {}  # hash of a line of tokens whose last block went -> for which tenant

    def take_moves(self) -> list[Move]:
        """Everything since the last time."""
        moves, self.moves = self.moves, []
        self.again = {}
        return moves

    def note(
        self, what: What, block: int, sequence: Sequence | None, state: str, source: int | None = None, cause: str = ""
    ) -> None:
        request, index, tenant = (
            (None, None, "") if sequence is None else (sequence.request_id, sequence.index, sequence.tenant)
        )
        self.moves.append(Move(what, block, request, index, tenant, self.pool.owner(block), state, source, cause))

    # -- what is done to blocks ----------------------------------------------------------------------------------

    def grow(self, sequence: Sequence, length: int, force: bool = False) -> tuple[Copy, ...] | None:
        before = len(sequence.blocks)
        self.for_whom = sequence
        copies = super().grow(sequence, length, force)
        self.for_whom = None
        for copy in copies or ():
            self.note("copy", copy.target, sequence, "private", copy.source)
            self.note("give", copy.source, sequence, self.state(copy.source), cause="copied")
        for block in sequence.blocks[before:]:
            self.note("take", block, sequence, "private")
        return copies

    def adopt(self, sequence: Sequence, match: Match) -> None:
        super().adopt(sequence, match)
        self.again[sequence.request_id, sequence.index] = self._count_again(sequence, match.length)
        for block in sequence.blocks:
            self.note("share", block, sequence, self.state(block), cause="prefix")

    def fork(self, parent: Sequence, child: Sequence) -> None:
        super().fork(parent, child)
        for block in child.blocks:
            self.note("share", block, child, self.state(block), cause="fork")

    def land(self, sequence: Sequence, length: int) -> None:
        filed, before = sequence.filed, sequence.blocks[sequence.filed :]
        super().land(sequence, length)
        for own, now in zip(before, sequence.blocks[filed : sequence.filed], strict=False):
            if own != now:
                self.note("share", now, sequence, self.state(now), cause="same")
                self.note("give", own, sequence, self.state(own), cause="same")

    def free(self, sequence: Sequence, keep: bool = True) -> int:
        blocks = sequence.blocks[::-1]
        owners = [self.pool.owner(block) for block in blocks]
        kept = super().free(sequence, keep)
        asked = sequence.request_id, sequence.index, sequence.tenant
        for block, owner in zip(blocks, owners, strict=True):
            self.moves.append(Move("give", block, *asked, owner, self.state(block)))
        return kept

    def has_evicted(self, node: Node) -> None:
        """A block was evicted: its line is remembered by a hash, the oldest forgotten first."""
        tenant = "" if self.for_whom is None else self.for_whom.tenant
        self.num_evicted += 1
        self.note("evict", node.block, self.for_whom, "free")
        if len(node.tokens) == self.block_size:
            line = 0
            for each in node.path:
                line = hash((line or node.namespace, each.tokens))
            self._gone.pop(line, None)
            self._gone[line] = tenant
            if len(self._gone) > MOST_GONE:
                del self._gone[next(iter(self._gone))]

    def outlive(self, other: WatchedCache) -> None:
        """The process of another cache has ended, and all that was in it is gone."""
        lines: dict[int, int] = {}  # serial of a node -> hash of its line
        for node in other.tree:
            above = 0 if node.parent is None else lines.get(node.parent.serial, 0)
            if len(node.tokens) == self.block_size:
                lines[node.serial] = hash((above or node.namespace, node.tokens))
        self._gone = {**other._gone, **dict.fromkeys(lines.values(), None)}

    # -- questions -----------------------------------------------------------------------------------------------

    def _count_again(self, sequence: Sequence, cached: int) -> dict[str | None, int]:
        found: dict[str | None, int] = {}
        line, size = 0, self.block_size
        for at in range(0, len(sequence.tokens) - size + 1, size):
            line = hash((line or sequence.request.terms.realm, tuple(sequence.tokens[at : at + size])))
            if at >= cached and line in self._gone:
                found[self._gone[line]] = found.get(self._gone[line], 0) + size
        return found

    def state(self, block: int) -> str:
        """What a block is: "free", "cached", "private" or "shared"."""
        is_cached = self.tree.holds(block)
        return _state(self.pool.references(block) - is_cached, is_cached)


class _WatchedEviction(Eviction):
    """Says which block goes, before it does."""

    def __init__(self, block_size: int, pool: BlockPool, tenants: Tenants, watcher: WatchedCache) -> None:
        super().__init__(block_size, pool, tenants)
        self._watcher = watcher
        self._victim: Node | None = None

    def _evict(self, owner: str, tenant: str) -> None:
        self._victim = next(iter(self._idle[owner]))
        self._watcher.has_evicted(self._victim)
        super()._evict(owner, tenant)
        self._victim = None

    def _removed(self, node: Node) -> None:
        super()._removed(node)
        if node is not self._victim:
            holders = self._pool.references(node.block) - 1  # the tree's own is yet to be given back
            self._watcher.note("drop", node.block, None, _state(holders, is_cached=False))


def _state(holders: int, is_cached: bool) -> str:
    return "shared" if holders > 1 else "private" if holders else "cached" if is_cached else "free"
