"""Sequence: one line of tokens being extended. The only mutable word of this floor.

    tokens    | prompt . . . . . . . . | generated . . . | pending |
              0                        prompt_len        known     known + pending
    computed  | keys and values are, or will be when the steps in flight have run, in the cache |

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
    blocks: list[int] = field(default_factory=list)
    status: Status = Status.WAITING

    @property
    def prompt_len(self) -> int:
        return len(self.request.prompt)

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
