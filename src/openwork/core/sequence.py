"""Sequence: one line of tokens being extended. The only mutable word of this floor.

    tokens    | prompt . . . . . . . . | generated . . . | pending |
              0                        prompt_len        known     known + pending
    computed  | keys and values are, or will be when the steps in flight have run, in the cache |
    landed    | they are: the results have come back |
    filed     | whole blocks of it stand in the prefix tree, the last at ``leaf`` |

A step moves ``computed`` toward ``known + pending``; that one rule is prefill, decode, chunks and recomputation after a
preemption. ``pending`` counts the tokens asked for in steps whose results have not come back: 1 while a step is in
flight, 2 for the moment in which the next one is planned on top of it. It knows its blocks but not who else holds them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from openwork.core.request import Request


class Status(Enum):
    WAITING = "waiting"  # holds no blocks
    RUNNING = "running"
    HELD = "held"  # has answered, and holds blocks that lines of its search may go on from
    FINISHED = "finished"  # holds no blocks, never comes back


@dataclass(slots=True, eq=False)
class Sequence:
    """``index`` numbers the sequences of a request; with the seed and the position it decides every random draw."""

    id: int
    request_id: int
    index: int
    request: Request
    strategy: Any  # decode.strategy.Strategy; unnamed here because decode stands above this floor
    tokens: list[int]
    computed: int = 0
    pending: int = 0
    landed: int = 0
    blocks: list[int] = field(default_factory=list)
    status: Status = Status.WAITING
    filed: int = 0  # in blocks
    leaf: Any = None  # kv.prefix.Node
    adopted: int = 0  # blocks of others that it began with
    admitted: int = 0  # number of the step it last began to run in; what comes back from before is not in its blocks
    rank: tuple[float, int, int] = (0.0, 0, 0)  # smaller is served first
    since: float = 0.0  # when it last got a token, or arrived
    is_overdue: bool = False  # it has waited too long once: nobody passes it any more
    gave_way: bool = False  # to one that waited: it need not do so again before its next token
    to_score: int | None = None  # row, from which on each row scores the token after it; None: none does
    stall: str = ""  # why it is not in a step, since stalled_at
    stalled_at: float = 0.0
    proposer: Any = None  # decode.ngram.Proposer, of a sequence that may be drafted for
    drafted: int = 0  # tokens guessed in the step in flight; ``computed`` counts them only once they are found right

    @property
    def prompt_len(self) -> int:
        return len(self.request.prompt)

    @property
    def tenant(self) -> str:
        return self.request.terms.tenant

    @property
    def known(self) -> int:
        return len(self.tokens)

    @property
    def generated(self) -> int:
        """Tokens after the prompt that have been seen."""
        return len(self.tokens) - len(self.request.prompt)

    @property
    def due(self) -> int:
        """Positions whose keys and values are still to be computed."""
        return len(self.tokens) + self.pending - self.computed
