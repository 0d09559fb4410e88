"""Stamping: which rows of a step are stamped, and whose choices the stamps are.

    rows that tokens are drawn from   | . . x . . . | x . . . . . | . . . . x . |      one of every six

It counts the rows itself and asks nobody, so which are stamped follows from the steps alone. The place within each
run of ``every`` moves, so that a batch whose size divides ``every`` has not always the same sequence stamped. It does
not know what a stamp says, nor who keeps it.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import replace

from openwork.core.step import Outcome, Step
from openwork.ops.stamps import Stamps
from openwork.run.batch import Batch

_GOLDEN = 0.6180339887498949  # its multiples, modulo 1, fill the unit interval evenly


class Stamping:
    """``every``: one row of so many that are drawn from; 1 is all, 0 none."""

    def __init__(self, every: int, num_layers: int) -> None:
        self._every = every
        self._num_layers = num_layers
        self._num_seen = 0  # rows
        self._num_stamped = 0

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
        rows, first = [], self._num_seen
        self._num_seen += len(drawn)
        while (due := self._next()) < self._num_seen:
            rows.append(drawn[due - first])
            self._num_stamped += 1
        return Stamps.empty(rows, self._num_layers) if rows else None

    def _next(self) -> int:
        """The number of the row that is stamped next."""
        run = self._num_stamped
        return run * self._every + int(run * _GOLDEN % 1 * self._every)


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
