"""Tempo: how much of the work that was expected the machine did in each moment of a recording.

    1.0 |----    ----|   |-----------      what steps should have taken, over what they took
    0.3 |    ----    |   |           ----  another process had the cores
        +-------------------------------> seconds

A simulated step that begins at some moment is done when the tempo from there on adds up to its cost. So a stall of ten
milliseconds costs a short step and a long one ten milliseconds, and cores that were shared for a second make all steps
of that second as much slower, whatever their size. It guarantees that the recorded steps, at their times, take what
they took. Where nobody computed nothing is known, and the mean of the rest is taken.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from random import Random

from openwork.trace.cost import Lap, StepCost

STRETCH = 32  # steps that stand together when moments are drawn
DISTURBED = 2.0  # times what a step should have taken, from which on the machine was busy with something else
LEAST = 1e-6  # a tempo that still ends


class Tempo:
    """``spans`` are (start, end, tempo), in order and apart; ``mean`` holds between them."""

    def __init__(self, spans: Iterable[tuple[float, float, float]], mean: float = 1.0) -> None:
        self._spans = [span for span in spans if span[1] > span[0]]
        self._starts = [start for start, _, _ in self._spans]
        self._mean = max(LEAST, mean)

    def end(self, start: float, work_s: float) -> float:
        """When a step is done that begins at ``start`` and should take ``work_s``."""
        now, left = start, work_s
        at = max(0, bisect_right(self._starts, now) - 1)
        while left > 0 and at < len(self._spans):
            begins, ends, tempo = self._spans[at]
            if now < begins:
                if (begins - now) * self._mean >= left:
                    return now + left / self._mean
                left -= (begins - now) * self._mean
                now = begins
            if now < ends:
                if (ends - now) * tempo >= left:
                    return now + left / tempo
                left -= (ends - now) * tempo
                now = ends
            at += 1
        return now + max(0.0, left) / self._mean


def as_it_was(laps: Sequence[Lap], cost: StepCost, is_calm: bool = False) -> Tempo:
    """The tempo of the same moments. ``is_calm``: without those in which something else ran on the machine."""
    spans = _spans(laps, cost, is_calm)
    return Tempo(spans, _mean(spans))


def as_it_might_be(laps: Sequence[Lap], cost: StepCost, draw: Random, until_s: float, is_calm: bool = False) -> Tempo:
    """Stretches of the same moments, in another order, up to a time; behind it, their mean."""
    spans = _spans(laps, cost, is_calm)
    drawn: list[tuple[float, float, float]] = []
    now = 0.0
    while spans and now < until_s:
        first = draw.randrange(max(1, len(spans) - STRETCH + 1))
        for start, end, tempo in spans[first : first + STRETCH]:
            drawn.append((now, now + end - start, tempo))
            now += end - start
    return Tempo(drawn, _mean(spans))


def disturbed(laps: Sequence[Lap], cost: StepCost) -> float:
    """The part of the time of all steps that went beyond twice what they should have taken."""
    took = sum(lap.took_s for lap in laps)
    beyond = sum(max(0.0, lap.took_s - DISTURBED * cost.seconds(lap.work)) for lap in laps)
    return beyond / took if took > 0 else 0.0


def _spans(laps: Sequence[Lap], cost: StepCost, is_calm: bool) -> list[tuple[float, float, float]]:
    found = []
    for lap in laps:
        if lap.took_s > 0 and lap.elapsed_s > 0:
            tempo = cost.seconds(lap.work) / lap.took_s
            if is_calm and tempo * DISTURBED < 1:
                continue
            found.append((lap.start_s, lap.start_s + lap.took_s, max(LEAST, tempo)))
    return found


def _mean(spans: Sequence[tuple[float, float, float]]) -> float:
    took = sum(end - start for start, end, _ in spans)
    return sum((end - start) * tempo for start, end, tempo in spans) / took if took > 0 else 1.0
