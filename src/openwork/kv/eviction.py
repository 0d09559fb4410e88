"""Eviction: which cached block goes when one is needed. Fair across tenants, least recently used inside.

A block that nobody but the tree holds is idle. The tenant with the most blocks by its weight loses first, and of its
idle blocks the one that has rested longest; leaves rest before what they stand on. Pinned blocks stay until their time
is up, and a tenant's reserve stays whatever the others need: both yield only when asked with ``force``, for the one
sequence without which the engine would stand still. What was evicted is remembered for a while, to say why a later
request missed. Recency is an order, not a time; ``now`` is handed in.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from itertools import count

from openwork.core.event import Miss
from openwork.core.terms import Namespace, Tenants
from openwork.kv.pool import BlockPool
from openwork.kv.prefix import Match, Node, PrefixTree, Tokens

_Place = tuple[Namespace | int, Tokens]  # (parent's serial, or the namespace for a first block, tokens)


class Eviction:
    """The idle blocks of a prefix tree by tenant, in the order in which they were let go."""

    def __init__(self, block_size: int, pool: BlockPool, tenants: Tenants) -> None:
        self.tree = PrefixTree(block_size, pool, self._rested, self._woken, self._removed)
        self.now = 0.0
        self.num_idle = 0
        self.num_pinned = 0
        self._size = block_size
        self._pool = pool
        self._tenants = tenants
        self._idle: dict[str, dict[Node, None]] = {}  # tenant -> nodes, longest rested first
        self._rests = count(1)
        self._pins: list[tuple[float, int, Node]] = []  # (until, serial, last node of the pinned path)
        self._gone: dict[_Place, tuple[str, float]] = {}  # place -> (for whom, when), the oldest forgotten first

    # -- who may be evicted --------------------------------------------------------------------------------------

    def idle_of(self, tenant: str) -> int:
        return len(self._idle.get(tenant, ()))

    def room(self, tenant: str, force: bool = False, gained: Mapping[str, int] | None = None) -> int:
        """Blocks that ``tenant`` could take: the free ones, and those that may be evicted for it.

        ``gained`` asks what it would be with so many more idle blocks of each owner.
        """
        more = gained or {}
        cap = self._tenants[tenant].max_blocks
        if force:
            idle = self.num_idle
        else:
            idle = sum(self._spare(owner, tenant, more.get(owner, 0)) for owner in self._idle.keys() | more.keys())
        found = self._pool.num_free + idle
        if cap is not None:
            own = self.idle_of(tenant) + more.get(tenant, 0)
            found = min(found, cap - self._pool.charged.get(tenant, 0) + own)
        return found

    def _spare(self, owner: str, tenant: str, more: int = 0) -> int:
        """Idle blocks of ``owner`` that may go for ``tenant``'s sake: all of its own, no reserve of another's."""
        idle = self.idle_of(owner) + more
        if owner == tenant:
            return idle
        return max(0, min(idle, self._pool.charged[owner] - self._tenants[owner].reserved_blocks))

    def take(self, tenant: str, force: bool = False) -> int:
        """A block for ``tenant``. The caller has made sure that there is room."""
        cap = self._tenants[tenant].max_blocks
        if cap is not None and self._pool.charged.get(tenant, 0) >= cap:
            self._evict(tenant, tenant)
        while not self._pool.num_free:
            owners = [owner for owner in self._idle if force or self._spare(owner, tenant)]
            self._evict(max(owners, key=lambda owner: (self.load(owner), owner)), tenant)
        return self._pool.take(tenant)

    def load(self, tenant: str) -> float:
        """Blocks charged to a tenant, by its weight."""
        return self._pool.charged.get(tenant, 0) / self._tenants[tenant].weight

    def _evict(self, owner: str, tenant: str) -> None:
        node = next(iter(self._idle[owner]))
        if len(node.tokens) == self._size:
            place = _place(node.parent, node.namespace, node.tokens)
            self._gone.pop(place, None)
            self._gone[place] = (tenant, self.now)
            if len(self._gone) > self._pool.num_blocks:
                del self._gone[next(iter(self._gone))]
        self.tree.remove(node)

    def _rested(self, node: Node) -> None:
        node.rested = next(self._rests)
        if node.pinned_until:
            return
        self._idle.setdefault(self._pool.owner(node.block), {})[node] = None
        self.num_idle += 1

    def _woken(self, node: Node) -> None:
        if node.pinned_until:
            return
        owner = self._pool.owner(node.block)
        del self._idle[owner][node]
        if not self._idle[owner]:
            del self._idle[owner]
        self.num_idle -= 1

    def _removed(self, node: Node) -> None:
        if node.pinned_until:
            self._unpin(node)

    # -- pins ----------------------------------------------------------------------------------------------------

    def pin(self, namespace: Namespace, tokens: Sequence[int], until: float) -> int:
        """Keep the cached whole blocks of ``tokens`` until a time. How many tokens that are: pins take half the cache.

        A pin is lengthened by another one and never shortened.
        """
        pinned = 0
        last: Node | None = None
        for node in self.tree.match(namespace, tokens, len(tokens)).nodes:
            if not node.pinned_until:
                if self.num_pinned >= self._pool.num_blocks // 2:
                    break
                if self._pool.references(node.block) == 1:
                    self._woken(node)
                self.num_pinned += 1
            node.pinned_until = max(node.pinned_until, until)
            pinned += len(node.tokens)
            last = node
        if last is not None:
            heapq.heappush(self._pins, (until, last.serial, last))
        return pinned

    def advance(self, now: float) -> None:
        """Let time pass: pins that are up end."""
        self.now = now
        while self._pins and self._pins[0][0] <= now:
            self._end(heapq.heappop(self._pins)[2], now)

    def break_pins(self) -> None:
        """End every pin at once."""
        while self._pins:
            self._end(heapq.heappop(self._pins)[2], float("inf"))

    def _end(self, last: Node, now: float) -> None:
        for node in reversed(last.path):
            if node.is_in and 0 < node.pinned_until <= now:
                self._unpin(node)
                if self._pool.references(node.block) == 1:
                    self._rested(node)

    def _unpin(self, node: Node) -> None:
        node.pinned_until = 0.0
        self.num_pinned -= 1

    # -- why something was not there -----------------------------------------------------------------------------

    def miss(self, namespace: Namespace, tokens: Sequence[int], limit: int, match: Match) -> Miss | None:
        """Why a match is shorter than ``limit``; None when it is not."""
        if match.length >= limit:
            return None
        at = len(match.nodes) * self._size
        gone = self._gone.get(_place(match.parent, namespace, tuple(tokens[at : at + self._size])))
        if gone is not None:
            return Miss("evicted", match.length, *gone)
        if match.partial is not None:
            ends = match.length - at == len(match.partial.tokens)
            return Miss("partial" if ends else "diverged", match.length)
        diverged = match.nodes and match.nodes[-1].children
        return Miss("diverged" if diverged else "cold", match.length)

    def check(self) -> None:
        """Raise AssertionError unless idle, pinned and counted agree with the tree."""
        self.tree.check()
        nodes = list(self.tree)
        alone = [node for node in nodes if self._pool.references(node.block) == 1]
        idle = {node.serial for node in alone if not node.pinned_until}
        assert idle == {node.serial for resting in self._idle.values() for node in resting}, (
            "idle blocks are miscounted"
        )
        assert self.num_idle == len(idle)
        assert self.num_pinned == sum(node.pinned_until > 0 for node in nodes), "pins are miscounted"
        for owner, resting in self._idle.items():
            assert resting and all(self._pool.owner(node.block) == owner for node in resting)
        for node in nodes:
            if node.pinned_until and node.parent is not None and node.parent.parent is not None:
                assert node.parent.pinned_until, "a pinned block stands on one that may go"


def _place(parent: Node | None, namespace: Namespace, tokens: Tokens) -> _Place:
    return (namespace if parent is None or parent.parent is None else parent.serial), tokens
