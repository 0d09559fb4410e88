"""Pace: what steps take, by their rows, so that it is known what one more row costs.

Steps without prompts are kept by their number of rows, for kernels take work in whole tiles and a line does not fit; of
those with prompts only the slope is wanted, which StepBudget has. What was not measured often enough is guessed from
what was. A calculation: the times are handed in with the results.
"""

from __future__ import annotations

from collections import deque
from statistics import median

_KEPT = 5  # times of one number of rows, the latest
_TRUST = 3  # that are needed before they are believed: one slow moment of the machine must not decide for long
_ROW = 0.03  # what a row adds to a step, in parts of it, where nothing was measured


class Pace:
    """``gap_s`` is what passes between two steps when the second is planned after the first has come back."""

    def __init__(self) -> None:
        self._times: dict[int, deque[float]] = {}  # rows -> seconds
        self._gaps: deque[float] = deque(maxlen=_KEPT)

    def learn(self, rows: int, seconds: float) -> None:
        """A step without prompts took so long; 0 means that nobody measured."""
        if seconds > 0:
            self._times.setdefault(rows, deque(maxlen=_KEPT)).append(seconds)

    def learn_gap(self, seconds: float) -> None:
        self._gaps.append(max(0.0, seconds))

    @property
    def gap_s(self) -> float:
        return median(self._gaps) if self._gaps else 0.0

    def seconds(self, first: int, last: int) -> list[float]:
        """What steps of ``first`` to ``last`` rows take; in an unknown unit while nothing was measured."""
        known = {rows: median(times) for rows, times in sorted(self._times.items()) if len(times) >= _TRUST}
        return [_between(known, rows) for rows in range(first, last + 1)]


def _between(known: dict[int, float], rows: int) -> float:
    """``known`` is in order of rows."""
    if rows in known:
        return known[rows]
    below = max((each for each in known if each < rows), default=None)
    above = min((each for each in known if each > rows), default=None)
    if below is not None and above is not None:
        part = (rows - below) / (above - below)
        return known[below] + part * (known[above] - known[below])
    nearest = below if above is None else above
    return _guess(rows) if nearest is None else known[nearest] * _guess(rows) / _guess(nearest)


def _guess(rows: int) -> float:
    return 1 + _ROW * (rows - 1)
