"""BlockPool: which blocks are free, and how many hold each of the others.

It guarantees that a block is either free or held at least once, that nothing is given out twice, and that a block comes
back exactly when its last holder lets go. It does not know who the holders are or what the blocks contain.
"""

from __future__ import annotations


class BlockPool:
    """Blocks 0 .. num_blocks - 1 with reference counts."""

    def __init__(self, num_blocks: int) -> None:
        self.num_blocks = num_blocks
        self._references = [0] * num_blocks
        # The block freed last is taken first: its memory is warm, and pages never touched stay untouched.
        self._free = list(range(num_blocks - 1, -1, -1))

    @property
    def num_free(self) -> int:
        return len(self._free)

    @property
    def num_held(self) -> int:
        return self.num_blocks - len(self._free)

    def references(self, block: int) -> int:
        """How many hold this block; 0 when it is free."""
        return self._references[block]

    def take(self) -> int:
        """A free block, now held once. The caller makes sure that there is one (num_free)."""
        block = self._free.pop()
        self._references[block] = 1
        return block

    def hold(self, block: int) -> None:
        """One more holder of a held block."""
        if not self._references[block]:
            raise ValueError(f"block {block} is free and cannot be shared")
        self._references[block] += 1

    def release(self, block: int) -> None:
        """One holder less; with the last one the block is free."""
        if not self._references[block]:
            raise ValueError(f"block {block} is free already")
        self._references[block] -= 1
        if not self._references[block]:
            self._free.append(block)
