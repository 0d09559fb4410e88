"""StepCost: how long a step takes, fitted to the steps of a recording, and how well the fit does.

    seconds = base + row * rows + chunk * rows of prompts + context * positions attended to

Least squares on relative errors, so that the many short steps count as much as the few long ones; no part is negative;
steps that took more than three times what a fit says are left out of the next (the machine was busy with something
else, and that is no property of the work). ``error`` is the median of |fitted / measured - 1| of all steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from openwork.core.errors import RequestError
from openwork.core.step import Step

OUTLIER = 3.0
MOST_FITS = 5
LEAST_STEPS = 4


@dataclass(frozen=True, slots=True)
class Work:
    """What the time of a step is taken to depend on."""

    rows: int
    chunk_rows: int  # rows of works that have more than one
    context: int  # positions that all rows attend to

    @property
    def parts(self) -> tuple[float, ...]:
        return 1.0, self.rows, self.chunk_rows, self.context


def work_of(step: Step) -> Work:
    """The size of a step."""
    chunks = sum(work.count for work in step.works if work.count > 1)
    return Work(step.num_rows, chunks, sum(w.count * w.start + w.count * (w.count + 1) // 2 for w in step.works))


@dataclass(frozen=True, slots=True)
class StepCost:
    """The fit. ``between_s`` is what passes between two steps beside them, while nobody computes."""

    base_s: float
    row_s: float
    chunk_row_s: float  # on top of row_s
    context_s: float
    between_s: float
    steps: int
    error: float  # median of |fitted / measured - 1|
    total_error: float  # of the time of all steps together: fitted / measured - 1

    def seconds(self, work: Work) -> float:
        """What a step of this size is expected to take."""
        rates = (self.base_s, self.row_s, self.chunk_row_s, self.context_s)
        return sum(part * rate for part, rate in zip(work.parts, rates, strict=True))


def fit(works: Sequence[Work], seconds: Sequence[float], between: Sequence[float] = ()) -> StepCost:
    """Fit what was measured. Raises RequestError when there is too little of it."""
    measured = np.asarray(seconds, np.float64)  # (steps,)
    parts = np.asarray([work.parts for work in works], np.float64).reshape(-1, 4)  # (steps, 4)
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
    fitted = parts @ rates
    pauses = [each for each in between if each >= 0]
    base, row, chunk_row, context = map(float, rates)
    return StepCost(
        base_s=base,
        row_s=row,
        chunk_row_s=chunk_row,
        context_s=context,
        between_s=float(np.median(pauses)) if pauses else 0.0,
        steps=len(measured),
        error=float(np.median(np.abs(fitted / measured - 1))),
        total_error=float(fitted.sum() / measured.sum() - 1),
    )


def _least_squares(parts: np.ndarray, measured: np.ndarray) -> np.ndarray:
    """Rates (4,), none negative: the most negative part is left out until none is."""
    scaled, ones = parts / measured[:, None], np.ones(len(measured))
    left = [0, 1, 2, 3]
    while True:
        norms = np.linalg.norm(scaled[:, left], axis=0)
        norms[norms == 0] = 1.0  # what no step has: its rate comes out as 0
        found = np.linalg.lstsq(scaled[:, left] / norms, ones, rcond=None)[0] / norms
        if len(left) == 1 or found.min() >= 0:
            rates = np.zeros(4)
            rates[left] = np.maximum(found, 0)
            return rates
        del left[int(np.argmin(found * norms))]
