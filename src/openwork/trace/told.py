"""Told: a proposer that guesses what was guessed, for a replay that does not know the tokens a guess follows from.

What a scheduler guesses depends on which tokens repeat. A recording without tokens holds stand-ins, in which nothing
repeats that should, but it holds how many guesses each step had: so many are proposed here, as if they were certain,
and a step that was not planned because a guess was worth waiting for is waited for again.
"""

from __future__ import annotations

from collections.abc import Sequence as Line

from openwork.core.sequence import Sequence
from openwork.core.step import Step

SURE = 1e9  # odds that no cost outweighs


class Told:
    """What the next call of ``plan`` is to come to."""

    def __init__(self) -> None:
        self.drafts: dict[int, tuple[int, ...]] = {}  # by id of a sequence
        self.is_waiting = False

    def plan(self, step: Step) -> None:
        """A step with these guesses."""
        self.drafts = {work.sequence: work.drafts for work in step.works if work.drafts}
        self.is_waiting = False

    def wait(self) -> None:
        """None, for now."""
        self.drafts, self.is_waiting = {}, True

    def proposer(self, sequence: Sequence) -> _Proposer:
        return _Proposer(sequence.id, self)


class _Proposer:
    guess_s = 0.0

    def __init__(self, sequence_id: int, told: Told) -> None:
        self._id = sequence_id
        self._told = told

    def follow(self, tokens: Line[int], known: int) -> None:
        """There is nothing to learn from tokens."""

    def odds(self, most: int) -> list[float]:
        count = most if self._told.is_waiting else len(self._told.drafts.get(self._id, ()))
        return [SURE] * min(most, count)

    def prepare(self, num: int) -> None:
        pass

    def propose(self, num: int) -> tuple[int, ...]:
        return self._told.drafts[self._id][:num]
