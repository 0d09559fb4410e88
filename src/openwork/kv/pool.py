"""BlockPool: which blocks are free, how many hold each of the others, and who is charged for it.

It guarantees that a block is either free or held at least once, that nothing is given out twice, that a block comes
back exactly when its last holder lets go, and that each held block is charged to the one tenant that took it. It does
not know who the holders are or what the blocks contain.
"""

from __future__ import annotations


class BlockPool:
    """Blocks 0 .. num_blocks - 1 with reference counts."""

    def __init__(self, num_blocks: int) -> None:
        self.num_blocks = num_blocks
        self.charged: dict[str, int] = {}  # tenant -> blocks, only those above 0
        self._references = [0] * num_blocks
        self._owners = [""] * num_blocks
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

    def owner(self, block: int) -> str:
        """The tenant that took this block, for as long as it is held."""
        return self._owners[block]

    def take(self, owner: str = "") -> int:
        """A free block, now held once. The caller makes sure that there is one (num_free)."""
        block = self._free.pop()
        self._references[block] = 1
        self._owners[block] = owner
        self.charged[owner] = self.charged.get(owner, 0) + 1
        return block

    def hold(self, block: int) -> None:
        """One more holder of a held block."""
        if not self._references[block]:
            raise ValueError(f"block {block} is free and cannot be shared")
        self._references[block] += 1

    def release(self, block: int) -> int:
        """One holder less; with the last one the block is free. How many are left."""
        if not self._references[block]:
            raise ValueError(f"block {block} is free already")
        self._references[block] -= 1
        left = self._references[block]
        if not left:
            self._free.append(block)
            owner = self._owners[block]
            self.charged[owner] -= 1
            if not self.charged[owner]:
                del self.charged[owner]
        return left
