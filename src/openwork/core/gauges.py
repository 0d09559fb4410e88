"""Gauges: where the blocks of the cache are. A record; who counts them is in kv."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Gauges:
    """Blocks by what becomes of them; ``free`` + ``evictable`` + ``pinned`` + ``private`` + ``shared`` is the total.

        free       nobody holds them
        evictable  only the prefix tree holds them, and they may go
        pinned     the same, but they may not
        private    one sequence holds them
        shared     several sequences do

    ``wasted`` counts token slots that are held and hold nothing: the ends of last blocks.
    """

    free: int
    evictable: int
    pinned: int
    private: int
    shared: int
    wasted: int

    @property
    def total(self) -> int:
        return self.free + self.evictable + self.pinned + self.private + self.shared
