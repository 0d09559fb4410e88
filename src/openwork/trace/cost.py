"""StepCost: how long a step takes, fitted to the steps of a recording, and how well the fit does.

    seconds = base + single * rows of one-row works + chunk * rows of longer ones
              + context * positions that single rows attend to + chunk_context * those of the others

Least squares on relative errors, so that the many short steps count as much as the few long ones; no part is negative;
steps that took more than three times what a fit says are left out of the next (the machine was busy with something
else, and that is no property of the work). What remains is not thrown away: ``draw`` gives a step of some size the luck
of a recorded one of about that size, so that a slow moment is as frequent in a simulation as it was.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

import numpy as np

from openwork.core.errors import RequestError
from openwork.core.step import Step

OUTLIER = 3.0
MOST_FITS = 5
LEAST_STEPS = 4
NEIGHBOURS = 32  # recorded steps of about a size


@dataclass(frozen=True, slots=True)
class Work:
    """What the time of a step is taken to depend on."""

    single_rows: int  # works of one row
    chunk_rows: int  # rows of works that have more
    single_context: int  # positions that these rows attend to
    chunk_context: int

    @property
    def parts(self) -> tuple[float, ...]:
        return 1.0, self.single_rows, self.chunk_rows, self.single_context, self.chunk_context


def work_of(step: Step) -> Work:
    """The size of a step."""
    singles = [work for work in step.works if work.count == 1]
    chunks = [work for work in step.works if work.count > 1]
    context = sum(w.count * w.start + w.count * (w.count + 1) // 2 for w in chunks)
    return Work(len(singles), sum(w.count for w in chunks), sum(w.start + 1 for w in singles), context)


@dataclass(frozen=True, slots=True)
class StepCost:
    """The fit. ``between_s`` is what passes between two steps beside them, while nobody computes."""

    base_s: float
    single_row_s: float
    chunk_row_s: float
    single_context_s: float  # a position
    chunk_context_s: float
    between_s: float
    steps: int
    error: float  # median of |fitted / measured - 1|, of all steps
    total_error: float  # of the time of all steps together: fitted / measured - 1
    lucks: tuple[tuple[float, float], ...] = ()  # (fitted seconds, measured / fitted) of each step, by size

    def seconds(self, work: Work) -> float:
        """What a step of this size is expected to take."""
        rates = (self.base_s, self.single_row_s, self.chunk_row_s, self.single_context_s, self.chunk_context_s)
        return sum(part * rate for part, rate in zip(work.parts, rates, strict=True))

    def draw(self, work: Work, random: Random) -> float:
        """What a step of this size takes, with the luck of a recorded one of about that size."""
        expected = self.seconds(work)
        if not self.lucks:
            return expected
        place = bisect_left(self.lucks, (expected, 0.0)) - NEIGHBOURS // 2
        first = max(0, min(place, len(self.lucks) - NEIGHBOURS))
        return expected * random.choice(self.lucks[first : first + NEIGHBOURS])[1]


def fit(works: Sequence[Work], seconds: Sequence[float], between: Sequence[float] = ()) -> StepCost:
    """Fit what was measured. Raises RequestError when there is too little of it."""
    measured = np.asarray(seconds, np.float64)  # (steps,)
    parts = np.asarray([work.parts for work in works], np.float64).reshape(-1, 5)  # (steps, 5)
    is_timed = measured > 0
    parts, measured = parts[is_timed], measured[is_timed]
    if len(measured) < LEAST_STEPS:
        raise RequestError(
            f"the recording holds {len(measured)} steps whose time was measured; {LEAST_STEPS} are needed to say what "
            "steps cost",
            "Record more.",
            param="record",
        )
    rates, usual = _least_squares(parts, measured), np.ones(len(measured), bool)
    for _ in range(MOST_FITS):
        before, usual = usual, measured <= OUTLIER * np.maximum(parts @ rates, 1e-12)
        if usual.sum() < LEAST_STEPS or (usual == before).all():
            break
        rates = _least_squares(parts[usual], measured[usual])
    fitted = np.maximum(parts @ rates, 1e-9)
    pauses = [each for each in between if each >= 0]
    base, single_row, chunk_row, single_context, chunk_context = map(float, rates)
    return StepCost(
        base_s=base,
        single_row_s=single_row,
        chunk_row_s=chunk_row,
        single_context_s=single_context,
        chunk_context_s=chunk_context,
        between_s=float(np.median(pauses)) if pauses else 0.0,
        steps=len(measured),
        error=float(np.median(np.abs(fitted / measured - 1))),
        total_error=float(fitted.sum() / measured.sum() - 1),
        lucks=tuple(sorted(zip(fitted.tolist(), (measured / fitted).tolist(), strict=True))),
    )


def _least_squares(parts: np.ndarray, measured: np.ndarray) -> np.ndarray:
    """Rates (5,), none negative: the most negative part is left out until none is."""
    scaled, ones = parts / measured[:, None], np.ones(len(measured))
    left = list(range(parts.shape[1]))
    while True:
        norms = np.linalg.norm(scaled[:, left], axis=0)
        norms[norms == 0] = 1.0  # what no step has: its rate comes out as 0
        found = np.linalg.lstsq(scaled[:, left] / norms, ones, rcond=None)[0] / norms
        if len(left) == 1 or found.min() >= 0:
            rates = np.zeros(parts.shape[1])
            rates[left] = np.maximum(found, 0)
            return rates
        del left[int(np.argmin(found * norms))]
