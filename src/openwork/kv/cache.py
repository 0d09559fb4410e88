"""KVCache: gives sequences the blocks they write to, and lets them share what they only read.

It guarantees that a sequence is the only holder of every block it is about to write; where it was not, the block is
copied first (copy-on-write) and the Copy is returned as an order for the runner. Growing is all or nothing. What has
landed is filed in the prefix tree, and there found by whoever begins with the same tokens in the same namespace. It
does not move bytes, choose victims, or know about steps.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace

from openwork.core.event import Miss
from openwork.core.sequence import Sequence
from openwork.core.settings import CacheSettings
from openwork.core.step import Copy
from openwork.core.terms import Namespace, Tenants
from openwork.kv.eviction import Eviction
from openwork.kv.pool import BlockPool
from openwork.kv.prefix import Match


@dataclass(frozen=True, slots=True)
class Found:
    """What the prefix cache has for a sequence, and how many more blocks the sequence needs for all it knows."""

    match: Match
    miss: Miss | None
    needed: int


class KVCache:
    """The block tables of all sequences, over one pool."""

    def __init__(self, settings: CacheSettings, tenants: Tenants | None = None) -> None:
        self.block_size = settings.block_size
        self.has_prefix = settings.prefix
        self.pool = BlockPool(settings.num_blocks)
        self.tenants = tenants or Tenants()
        self.eviction = Eviction(settings.block_size, self.pool, self.tenants)
        self.tree = self.eviction.tree

    def blocks_for(self, length: int) -> int:
        """Blocks that ``length`` positions fill."""
        return -(-length // self.block_size)

    # -- beginning -----------------------------------------------------------------------------------------------

    def find(self, sequence: Sequence, limit: int) -> Found:
        """What is cached of the first ``limit`` tokens of a sequence that holds no blocks. Changes nothing."""
        needed = self.blocks_for(sequence.known)
        if not self.has_prefix:
            return Found(Match(), None, needed)
        realm = sequence.request.terms.realm
        match = self.tree.match(realm, sequence.tokens, limit)
        return Found(match, self.eviction.miss(realm, sequence.tokens, limit, match), needed - len(match.nodes))

    def fitting(self, sequence: Sequence, found: Found, owed: int = 0, force: bool = False) -> Found | None:
        """What a sequence can begin with so that all it knows fits, perhaps less than was found; None: not at all.

        ``owed`` blocks are to be left to others.
        """
        # A partial block is held until it has been copied; without it there may be just enough.
        whole = replace(found.match, partial=None, length=len(found.match.nodes) * self.block_size)
        for match in (found.match, whole):
            for node in match.all:  # what it takes up cannot be evicted for its sake
                self.tree.hold(node.block)
            fits = found.needed + owed <= self.room(sequence.tenant, force)
            for node in reversed(match.all):
                self.tree.release(node.block)
            if fits:
                return replace(found, match=match)
        return None

    def adopt(self, sequence: Sequence, match: Match) -> None:
        """Let a sequence begin with what was found."""
        for node in match.all:
            self.tree.hold(node.block)
            sequence.blocks.append(node.block)
        sequence.computed = match.length
        sequence.filed = sequence.adopted = len(match.nodes)
        # The copy of a partial block has yet to run.
        sequence.landed = len(match.nodes) * self.block_size
        sequence.leaf = match.nodes[-1] if match.nodes else None

    # -- going on ------------------------------------------------------------------------------------------------

    def room(self, tenant: str, force: bool = False) -> int:
        """Blocks that a tenant could take. ``force`` ends every pin and spares no reserve, but keeps its own bound."""
        if force:
            self.eviction.break_pins()
        return self.eviction.room(tenant, force)

    def grow(self, sequence: Sequence, length: int, force: bool = False) -> tuple[Copy, ...] | None:
        """Make positions computed .. length - 1 of a sequence writable; None, and no change, if blocks are too few.

        blocks    | shared, full | shared, partial | own ...    | new ...
        positions 0              ^ first written block          ^ len(blocks)      length
        """
        blocks = sequence.blocks
        if blocks and length <= len(blocks) * self.block_size and self.pool.references(blocks[-1]) == 1:
            return ()  # the usual row: blocks are written from left to right, so only the last can be shared
        shared = self._shared(sequence)
        new = max(0, self.blocks_for(length) - len(blocks))
        if not shared and not new:
            return ()
        tenant = sequence.tenant
        needed = len(shared) + new
        force = force and needed > self.room(tenant)
        if (missing := needed - self.room(tenant, force)) > 0:
            # A block that it shares with the tree alone need not be copied: the tree can forget it.
            alone = [i for i in shared if self._is_alone(sequence.blocks[i])]
            if missing > len(alone):
                return None
            for i in alone:
                self.tree.drop(sequence.blocks[i])
            shared = [i for i in shared if i not in alone]
        copies = []
        for i in shared:
            source, target = sequence.blocks[i], self.eviction.take(tenant, force)
            self.tree.release(source)
            sequence.blocks[i] = target
            copies.append(Copy(source, target))
        sequence.blocks.extend(self.eviction.take(tenant, force) for _ in range(new))
        return tuple(copies)

    def _shared(self, sequence: Sequence) -> list[int]:
        """Places of blocks that are about to be written to and are not its own alone."""
        first = sequence.computed // self.block_size
        return [i for i in range(first, len(sequence.blocks)) if self.pool.references(sequence.blocks[i]) > 1]

    def lacking(self, sequence: Sequence, length: int) -> int:
        """Blocks that growing to ``length`` takes."""
        return len(self._shared(sequence)) + max(0, self.blocks_for(length) - len(sequence.blocks))

    def is_capped(self, tenant: str, needed: int) -> bool:
        """Whether a tenant's own bound is what keeps it from ``needed`` more blocks."""
        cap = self.tenants[tenant].max_blocks
        charged = self.pool.charged.get(tenant, 0) - self.eviction.idle_of(tenant)
        return cap is not None and charged + needed > cap

    def room_without(self, victims: Iterable[Sequence], sequence: Sequence, found: Found) -> int:
        """Blocks there would be for a sequence if all the victims gave theirs back and it took up what was found."""
        holders = Counter(block for victim in victims for block in victim.blocks)
        gained = Counter[str]()
        for block, count in holders.items():
            if self.pool.references(block) - self.tree.holds(block) == count:
                gained[self.pool.owner(block)] += 1
        for node in found.match.nodes:
            gained[self.pool.owner(node.block)] -= node.block in holders or self.pool.references(node.block) == 1
        return self.eviction.room(sequence.tenant, gained=gained)

    def _is_alone(self, block: int) -> bool:
        """Whether one sequence holds a block, and at most the tree beside it."""
        return self.pool.references(block) - self.tree.holds(block) == 1

    def land(self, sequence: Sequence, length: int) -> None:
        """The first ``length`` positions have been computed for certain: file the whole blocks among them."""
        sequence.landed = max(sequence.landed, length)
        size = self.block_size
        if not self.has_prefix or (sequence.filed + 1) * size > sequence.landed:
            return
        if sequence.leaf is not None and not sequence.leaf.is_in:
            return  # what it stands on was taken out: it goes on alone
        realm = sequence.request.terms.realm
        while (sequence.filed + 1) * size <= sequence.landed:
            place = sequence.filed
            tokens = tuple(sequence.tokens[place * size : (place + 1) * size])
            node = self.tree.extend(realm, sequence.leaf, tokens, sequence.blocks[place])
            assert node is not None, "nothing is longer than a whole block"
            if node.block != sequence.blocks[place]:  # somebody computed the same: by contract, the same bits
                self.tree.hold(node.block)
                self.tree.release(sequence.blocks[place])
                sequence.blocks[place] = node.block
            sequence.leaf = node
            sequence.filed += 1

    def fork(self, parent: Sequence, child: Sequence) -> None:
        """Let ``child`` share every block that holds a computed position of ``parent``."""
        child.blocks = parent.blocks[: self.blocks_for(parent.computed)]
        child.computed, child.landed = parent.computed, parent.landed
        child.filed, child.leaf, child.adopted = parent.filed, parent.leaf, parent.adopted
        for block in child.blocks:
            self.tree.hold(block)

    # -- ending --------------------------------------------------------------------------------------------------

    def free(self, sequence: Sequence, keep: bool = True) -> int:
        """Give all blocks back, and ``keep`` what has landed of a last partial one. Positions that stay cached."""
        size = self.block_size
        kept = sequence.filed * size
        rest = tuple(sequence.tokens[kept : min(sequence.landed, kept + size)])
        is_in = sequence.leaf is None or sequence.leaf.is_in
        if keep and self.has_prefix and rest and is_in and sequence.filed < len(sequence.blocks):
            realm = sequence.request.terms.realm
            self.tree.extend(realm, sequence.leaf, rest, sequence.blocks[sequence.filed])
            kept += len(rest)
        # Last block first: the next to take gets the first ones in order, and leaves rest before what they stand on.
        for block in reversed(sequence.blocks):
            self.tree.release(block)
        sequence.blocks = []
        sequence.computed = sequence.landed = sequence.filed = sequence.adopted = 0
        sequence.leaf = None
        return kept if is_in else 0

    def forget(self, sequence: Sequence, is_poisoned: bool) -> None:
        """Take out of the tree what a failed sequence filed; all that it stood on when its numbers were not finite."""
        if not self.has_prefix:
            return
        if is_poisoned:
            match = self.tree.match(sequence.request.terms.realm, sequence.tokens, sequence.known)
            suspects = [*match.nodes[:1], *([] if match.partial is None else [match.partial])]
        else:
            suspects = [] if sequence.leaf is None else sequence.leaf.path[sequence.adopted :]
        for node in suspects:
            self.tree.remove(node)

    # -- questions -----------------------------------------------------------------------------------------------

    def explain(self, sequence_tokens: tuple[int, ...], realm: Namespace) -> Miss | None:
        """Why these tokens are not all cached, other namespaces searched too. For operators: it tells on others."""
        limit = len(sequence_tokens)
        match = self.tree.match(realm, sequence_tokens, limit)
        miss = self.eviction.miss(realm, sequence_tokens, limit, match)
        if miss is not None and miss.cause != "evicted":
            for other in self.tree.namespaces:
                if other != realm and self.tree.match(other, sequence_tokens, limit).length > match.length:
                    return Miss("namespace", match.length, by=other[1])
        return miss

    def check(self, sequences: Iterable[Sequence]) -> None:
        """Raise AssertionError unless every reference has its holder and free + held + cached = total."""
        holders = [0] * self.pool.num_blocks
        for sequence in sequences:
            for block in sequence.blocks:
                holders[block] += 1
            if sequence.blocks:
                assert sequence.landed <= sequence.computed, f"sequence {sequence.id}: landed before it was computed"
                assert sequence.computed <= sequence.known + sequence.pending, f"sequence {sequence.id} ran ahead"
                assert len(sequence.blocks) >= self.blocks_for(sequence.computed), f"sequence {sequence.id} has no room"
            if sequence.leaf is not None and sequence.leaf.is_in:
                path = sequence.leaf.path
                assert [node.block for node in path] == sequence.blocks[: sequence.filed], "the tree is elsewhere"
                ids = [token for node in path for token in node.tokens]
                assert ids == sequence.tokens[: len(ids)], f"sequence {sequence.id} stands on other tokens"
        held = sum(1 for count in holders if count)
        cached = 0
        for node in self.tree:
            cached += not holders[node.block]
            holders[node.block] += 1
        for block, count in enumerate(holders):
            assert self.pool.references(block) == count, f"block {block}: {count} holders, counted otherwise"
        assert held + cached + self.pool.num_free == self.pool.num_blocks, "blocks were lost"
        assert sum(self.pool.charged.values()) == self.pool.num_held, "somebody is charged wrongly"
        self.eviction.check()
