"""StepBudget: how many rows the next step may have, so that those who wait for a token get it in time.

The time of a step is taken to be a + b * rows, fitted to the steps measured lately (least squares, older ones fading).
A time is set by the operator, wished for by a request, or a multiple of what the running sequences need by themselves.
While nobody decodes, or there is no such time, a step may be as large as the settings allow. A calculation: the times
are handed in with the results.
"""

from __future__ import annotations

from collections.abc import Sequence as Line
from typing import Literal

from openwork.core.sequence import Sequence
from openwork.core.settings import ScheduleSettings

_FADE = 0.95  # what one step later is left of a measurement's weight
_TRUST = 4  # how many times the rows of a measured step the fit is believed: one noisy time must not stall everybody
_FURTHER = 3  # with 1 first tokens waited a second longer, and half as many requests met both targets (docs/log.md)
_LEAST_CHUNK = 16  # rows of a prompt that go into a step whatever the target, so that prompts end


class StepBudget:
    """Learns from every result; answers for every step."""

    def __init__(self, settings: ScheduleSettings) -> None:
        self._most = settings.max_step_tokens
        self._target = settings.next_token_s
        self._stretch = settings.stretch
        self._alone: tuple[int, float] | None = None  # rows and seconds of a step without prompts, lately
        # Faded sums over the steps measured: of 1, rows, seconds, rows * rows, rows * seconds.
        self._n = self._r = self._t = self._rr = self._rt = 0.0
        self._largest = 0.0  # rows of the largest step measured, fading too

    def learn(self, rows: int, elapsed_s: float, is_alone: bool = False) -> None:
        """A step of ``rows`` took ``elapsed_s``; 0 means that nobody measured. ``is_alone``: no prompt was in it."""
        if elapsed_s <= 0:
            return
        if is_alone:
            before = elapsed_s if self._alone is None or self._alone[0] != rows else self._alone[1]
            self._alone = rows, 0.8 * before + 0.2 * elapsed_s
        self._n = self._n * _FADE + 1
        self._r = self._r * _FADE + rows
        self._t = self._t * _FADE + elapsed_s
        self._rr = self._rr * _FADE + rows * rows
        self._rt = self._rt * _FADE + rows * elapsed_s
        self._largest = max(float(rows), self._largest * _FADE)

    def within(self, seconds: float) -> int:
        """Rows whose step is expected to take no longer than ``seconds``."""
        base, slope = self.line()
        if slope <= 0:
            return self._most
        trusted = int(_TRUST * self._largest) + _LEAST_CHUNK
        return max(0, min(self._most, trusted, int((seconds - base) / slope)))

    def rows(self, due: Line[Sequence], num_waiting: int) -> tuple[int, Literal["tokens", "latency"]]:
        """Rows of a step in which these running sequences are due, and what set the number.

        ``num_waiting`` sequences wait to begin beside those that are due.
        """
        waiting = [sequence for sequence in due if sequence.due == 1 and sequence.generated + sequence.pending > 0]
        targets = [s.request.terms.next_token_s for s in waiting]
        stretched = self._stretched(len(waiting), len(due) - len(waiting) + num_waiting)
        wanted = min((t for t in [*targets, self._target, stretched] if t is not None), default=None)
        if wanted is None or not waiting:
            return self._most, "tokens"
        rows = max(self.within(wanted), len(waiting) + _LEAST_CHUNK)
        return (rows, "latency") if rows < self._most else (self._most, "tokens")

    def _stretched(self, count: int, num_prompts: int) -> float | None:
        """What ``count`` sequences may wait for their next token beside prompts, if that is bounded.

        One prompt has what the operator grants. Each further one widens that by _FURTHER times the part that it is of
        those who decode: fifteen are not to stand in line for the pace of one.
        """
        if self._stretch is None or not self._n or not count:
            return None
        stretch = 1 + (self._stretch - 1) * (1 + _FURTHER * max(0, num_prompts - 1) / count)
        base, slope = self.line()
        if self._alone is None:
            return stretch * (base + slope * count)
        rows, seconds = self._alone  # measured, not extrapolated: what steps with prompts took must not feed itself
        return stretch * max(seconds, seconds + slope * (count - rows))

    def line(self) -> tuple[float, float]:
        """Seconds of a step as (base, slope of a row). Where sizes do not tell, all of it is laid on the rows."""
        if not self._n:
            return 0.0, 0.0
        rows, time = self._r / self._n, self._t / self._n
        spread = self._rr / self._n - rows * rows
        slope = (self._rt / self._n - rows * time) / spread if spread > 0.25 else 0.0
        slope = slope if slope > 0 else time / rows
        return max(0.0, time - slope * rows), slope
