"""Strategy: the seam between the step that proposes tokens and the sequence that takes them.

For each step a strategy says what to draw from a sequence's last row, and when the choices come back it decides:
Continue with one, Fork into several, or Stop. A strategy that may fork makes its sequence wait for the result, so that
no step is planned for a line that may split. It never sees arrays, blocks or time.

A search decides for all sequences of a request together. It asks for candidates in place of draws, and when every leaf
of a generation has answered, it names the leaves of the next, or concludes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from openwork.core.output import FinishReason, SearchReport
from openwork.core.sequence import Sequence
from openwork.core.step import Candidates, Choice, Draw, Expand


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
    expand: Expand | None  # what to ask of the last row beside draws

    @property
    def may_fork(self) -> bool:
        """Whether a line may split at the next decision, so that nothing can be planned for it before."""
        ...

    def draws(self, sequence: Sequence) -> tuple[Draw, ...]:
        """What to choose from the row of the sequence's last position. A pending token counts as there."""
        ...

    def feed(self, sequence: Sequence, choices: tuple[Choice, ...]) -> Decision:
        """Decide on the choices, one per draw. The sequence does not hold them yet."""
        ...


# -- searches --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Leaf:
    """A line that a search wants computed, and what it asks of the last row.

    line    | tokens after the prompt . . . . | fresh |
            the parent's line, or anybody's            each but the first is scored by the row before it
    """

    node: int  # how the search calls it; never used twice
    line: tuple[int, ...]
    expand: Expand
    fresh: int = 1
    parent: int | None = None  # the node that it goes on from; None: none, or itself


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of a leaf: the log-probabilities of its fresh tokens after the first, and the candidates."""

    scores: tuple[float, ...]
    candidates: Candidates


@dataclass(frozen=True, slots=True)
class Spent:
    """What a request has used so far."""

    tokens: int  # positions computed
    seconds: float


@dataclass(frozen=True, slots=True)
class Generation:
    """What a search does next. ``agreed`` are tokens that its best sequence will go on with, whatever comes."""

    leaves: tuple[Leaf, ...]
    agreed: tuple[int, ...] = ()


class SearchStrategy(Protocol):
    """Decides for a whole request. A function of the answers: the same ones lead to the same search."""

    def begin(self) -> Generation: ...

    def decide(self, answers: Mapping[int, Answer], spent: Spent) -> Generation | SearchReport:
        """The next generation, by the answers of all leaves of this one; or the end."""
        ...

    def leaf(self, node: int) -> Leaf:
        """The leaf that it has named for a node, once more."""
        ...

    def worth(self, node: int) -> float | None:
        """What a line that goes on from an answered node may score; None: none will. Asked after ``decide``."""
        ...


class Member:
    """Strategy of one sequence of a search: it asks once, and the search decides."""

    may_fork = True

    def __init__(self, node: int, expand: Expand) -> None:
        self.node = node
        self.expand: Expand | None = expand

    def draws(self, sequence: Sequence) -> tuple[Draw, ...]:
        return ()

    def feed(self, sequence: Sequence, choices: tuple[Choice, ...]) -> Decision:
        raise AssertionError("a search draws nothing")
