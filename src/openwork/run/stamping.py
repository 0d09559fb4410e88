"""Stamping: which rows of a step are stamped, and whose choices the stamps are.

    rows that tokens are drawn from, step by step   | x x x x . . . . | . . . . . . . . | . . . . x x x x | . . . . .

It counts the rows itself and asks nobody, so which are stamped follows from the steps alone: some of the first, then
one of so many. Several are stamped together, as the first of a step costs as much as ten more: what hashing needs has
left the caches. Where in a step they begin moves, so that every sequence has its turn. It does not know what a stamp
says, nor who keeps it.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import replace

from openwork.core.step import Outcome, Step
from openwork.ops.stamps import Stamps
from openwork.run.batch import Batch

AT_ONCE = 4  # rows of a step, if it has so many
_GOLDEN = 0.6180339887498949  # its multiples, modulo 1, fill the unit interval evenly


class Stamping:
    """``every``: one row of so many that are drawn from; 1 is all, 0 none."""

    def __init__(self, every: int, num_layers: int) -> None:
        self._every = every
        self._num_layers = num_layers
        self._num_owed = AT_ONCE * every - 1  # rows, as if so many had been passed over
        self._num_turns = 0

    def choose(self, step: Step, batch: Batch) -> Stamps | None:
        """Room for the stamps of this step's rows; None: it has none."""
        if not self._every:
            return None
        drawn = [
            row
            for begin, end, work in zip(batch.starts, batch.starts[1:], step.works, strict=False)
            if work.draws
            for row in range(begin + work.num_sure - 1, end)
        ]
        self._num_owed += len(drawn)
        count = min(self._num_owed // self._every, len(drawn))
        if not drawn or count < min(AT_ONCE, len(drawn)):
            return None
        self._num_owed -= count * self._every
        first = int(self._num_turns * _GOLDEN % 1 * len(drawn))
        self._num_turns += 1
        rows = sorted(drawn[(first + i) % len(drawn)] for i in range(count))
        return Stamps.empty(rows, self._num_layers)


def stamped(outcomes: list[Outcome], step: Step, batch: Batch, stamps: Stamps) -> list[Outcome]:
    """The same, with each stamp at the first choice that was made from its row, if one was."""
    outcomes = list(outcomes)
    for row, stamp in stamps.by_row().items():
        index = bisect_right(batch.starts, row) - 1
        place = row - batch.starts[index] - step.works[index].num_sure + 1  # behind so many right guesses
        choices = list(outcomes[index].choices)
        if place < len(choices):
            choices[place] = replace(choices[place], stamp=stamp)
            outcomes[index] = replace(outcomes[index], choices=tuple(choices))
    return outcomes
