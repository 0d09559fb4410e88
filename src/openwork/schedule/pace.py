"""Pace: what steps take, by their rows, so that it is known what one more row costs.

Steps without prompts are kept by their number of rows, for kernels take work in whole tiles and a line does not fit; of
those with prompts only the slope is wanted, which StepBudget has. What was not measured often enough is guessed from
what was. A calculation: the times are handed in with the results.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque

_KEPT = 5  # times of one number of rows, the latest
_TRUST = 3  # that are needed before they are believed: one slow moment of the machine must not decide for long
_ROW = 0.03  # what a row adds to a step, in parts of it, where nothing was measured


class Pace:
    """``gap_s`` is what passes between two steps when the second is planned after the first has come back."""

    def __init__(self) -> None:
        self.gap_s = 0.0
        self._gaps: deque[float] = deque(maxlen=_KEPT)
        self._times: dict[int, deque[float]] = {}  # rows -> seconds
        self._typical: dict[int, float] = {}  # rows -> seconds, of those measured often enough
        self._known: list[int] = []  # its keys in order

    def learn(self, rows: int, seconds: float) -> None:
        """A step without prompts took so long; 0 means that nobody measured."""
        if seconds <= 0:
            return
        times = self._times.setdefault(rows, deque(maxlen=_KEPT))
        times.append(seconds)
        if len(times) >= _TRUST:
            if rows not in self._typical:
                insort(self._known, rows)
            self._typical[rows] = sorted(times)[len(times) // 2]

    @property
    def is_known(self) -> bool:
        """Whether anything was measured often enough."""
        return bool(self._known)

    def learn_gap(self, seconds: float) -> None:
        self._gaps.append(max(0.0, seconds))
        if len(self._gaps) >= _TRUST:
            self.gap_s = sorted(self._gaps)[len(self._gaps) // 2]

    def seconds(self, first: int, last: int) -> list[float]:
        """What steps of ``first`` to ``last`` rows take; in an unknown unit while nothing was measured."""
        return [self._second(rows) for rows in range(first, last + 1)]

    def _second(self, rows: int) -> float:
        known = self._known
        if rows in self._typical or not known:
            return self._typical.get(rows, _guess(rows))
        place = bisect_left(known, rows)
        if 0 < place < len(known):
            below, above = known[place - 1], known[place]
            part = (rows - below) / (above - below)
            return (1 - part) * self._typical[below] + part * self._typical[above]
        nearest = known[0] if place == 0 else known[-1]
        return self._typical[nearest] * _guess(rows) / _guess(nearest)


def _guess(rows: int) -> float:
    return 1 + _ROW * (rows - 1)
