"""Strategy: the seam between the step that proposes tokens and the sequence that takes them.

For each step a strategy says what to draw from a sequence's last row, and when the choices come back it decides:
Continue with one, Fork into several, or Stop. A strategy that may fork makes its sequence wait for the result, so that
no step is planned for a line that may split. It never sees arrays, blocks or time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from openwork.core.output import FinishReason
from openwork.core.sequence import Sequence
from openwork.core.step import Choice, Draw


@dataclass(frozen=True, slots=True)
class Continue:
    """Append the token and go on."""

    choice: Choice


@dataclass(frozen=True, slots=True)
class Stop:
    """The sequence is complete with this token; ``stop_id`` is set when the token itself ended it."""

    choice: Choice
    reason: FinishReason
    stop_id: int | None = None


@dataclass(frozen=True, slots=True)
class Branch:
    """One line of a fork: what it does first, and the strategy it goes on with."""

    index: int
    strategy: Strategy
    first: Continue | Stop


@dataclass(frozen=True, slots=True)
class Fork:
    """The sequence becomes branches[0]; the others are new sequences that share its cache."""

    branches: tuple[Branch, ...]


Decision = Continue | Fork | Stop


class Strategy(Protocol):
    @property
    def may_fork(self) -> bool:
        """Whether the next decision can be a Fork."""
        ...

    def draws(self, sequence: Sequence) -> tuple[Draw, ...]:
        """What to choose from the row of the sequence's last position. A pending token counts as there."""
        ...

    def feed(self, sequence: Sequence, choices: tuple[Choice, ...]) -> Decision:
        """Decide on the choices, one per draw. The sequence does not hold them yet."""
        ...
