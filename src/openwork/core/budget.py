"""Budget: what a search may use before it has to say what it knows by then.

It guarantees that what has been used up is named the same way whenever it is asked. It knows no search and no clock.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from openwork.core.bounds import check_real, check_whole

MAX_NODES = 10_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """What a search may use. It ends with the first that is used up, and says which; None: no bound.

    nodes     places of the tree whose distribution is looked at
    tokens    positions computed: the prompt, and what was forgotten and computed again, counted too
    seconds   on the engine's clock, from the arrival of the request
    finished  sequences that have come to their end, or options whose probability is known
    blocks    of the cache, for lines that are kept to be gone on with; with fewer the search goes on, and computes more

    Raises RequestError.
    """

    nodes: int | None = None
    tokens: int | None = None
    seconds: float | None = None
    finished: int | None = None
    blocks: int | None = None

    def __post_init__(self) -> None:
        for name, low in (("nodes", 1), ("tokens", 1), ("finished", 1), ("blocks", 0)):
            if getattr(self, name) is not None:
                check_whole(f"budget.{name}", getattr(self, name), low, MAX_NODES)
        if self.seconds is not None:
            check_real("budget.seconds", self.seconds, 0, 1e9)

    def used_up(
        self, nodes: int, finished: int, tokens: int, seconds: float
    ) -> Literal["nodes", "finished", "tokens", "seconds"] | None:
        """What has been used up, if anything has."""
        if self.finished is not None and finished >= self.finished:
            return "finished"
        if self.nodes is not None and nodes >= self.nodes:
            return "nodes"
        if self.tokens is not None and tokens >= self.tokens:
            return "tokens"
        return "seconds" if self.seconds is not None and seconds >= self.seconds else None
