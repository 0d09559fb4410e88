"""KVCache: gives sequences the blocks they write to, and lets them share what they only read.

It guarantees that a sequence is the only holder of every block it is about to write; where it was not, the block is
copied first (copy-on-write) and the Copy is returned as an order for the runner. Growing is all or nothing. It does not
move bytes, choose victims, or know about steps.
"""

from __future__ import annotations

from collections.abc import Iterable

from openwork.core.sequence import Sequence
from openwork.core.settings import CacheSettings
from openwork.core.step import Copy
from openwork.kv.pool import BlockPool


class KVCache:
    """The block tables of all sequences, over one pool."""

    def __init__(self, settings: CacheSettings) -> None:
        self.block_size = settings.block_size
        self.pool = BlockPool(settings.num_blocks)

    def blocks_for(self, length: int) -> int:
        """Blocks that ``length`` positions fill."""
        return -(-length // self.block_size)

    def grow(self, sequence: Sequence, length: int) -> tuple[Copy, ...] | None:
        """Make positions computed .. length - 1 of a sequence writable; None, and no change, if blocks are too few.

        blocks    | shared, full | shared, partial | own ...    | new ...
        positions 0              ^ first written block          ^ len(blocks)      length
        """
        first = sequence.computed // self.block_size
        shared = [i for i in range(first, len(sequence.blocks)) if self.pool.references(sequence.blocks[i]) > 1]
        new = max(0, self.blocks_for(length) - len(sequence.blocks))
        if len(shared) + new > self.pool.num_free:
            return None
        copies = []
        for i in shared:
            source, target = sequence.blocks[i], self.pool.take()
            self.pool.release(source)
            sequence.blocks[i] = target
            copies.append(Copy(source, target))
        sequence.blocks.extend(self.pool.take() for _ in range(new))
        return tuple(copies)

    def fork(self, parent: Sequence, child: Sequence) -> None:
        """Let ``child`` share every block that holds a computed position of ``parent``."""
        child.blocks = parent.blocks[: self.blocks_for(parent.computed)]
        child.computed = parent.computed
        for block in child.blocks:
            self.pool.hold(block)

    def free(self, sequence: Sequence) -> int:
        """Give all blocks back; the number of those that nobody else holds."""
        before = self.pool.num_free
        # Last block first, so that the next to take gets the first ones in order.
        for block in reversed(sequence.blocks):
            self.pool.release(block)
        sequence.blocks = []
        sequence.computed = 0
        return self.pool.num_free - before

    def check(self, sequences: Iterable[Sequence]) -> None:
        """Raise AssertionError unless every reference has its holder and free + held = total."""
        holders = [0] * self.pool.num_blocks
        for sequence in sequences:
            for block in sequence.blocks:
                holders[block] += 1
            if sequence.blocks:
                assert sequence.computed <= sequence.known + sequence.pending, f"sequence {sequence.id} ran ahead"
                assert len(sequence.blocks) >= self.blocks_for(sequence.computed), f"sequence {sequence.id} has no room"
        for block, count in enumerate(holders):
            assert self.pool.references(block) == count, f"block {block}: {count} holders, counted otherwise"
        held = sum(1 for count in holders if count)
        assert held + self.pool.num_free == self.pool.num_blocks, "blocks were lost"
