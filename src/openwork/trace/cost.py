"""StepCost: how long a step takes, fitted to the steps of a recording, and how well the fit does.

    seconds = base + rows (the first 8, those up to 32, those above) + works + heads + drawn rows
              + positions that single rows attend to + those that rows of prompts attend to + blocks copied

No part is negative. Residuals are relative to the fit itself and Huber's, so that the many short steps count as much as
the few long ones and slow moments count little: they are the machine's, and the Tempo has them. What steps usually cost
in proportion stands beside the data as a weak prior, so a part that the recording does not tell (no prompt was in it,
or ten steps are all there is) is what it usually is, and not zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random

import numpy as np

from openwork.core.errors import RequestError
from openwork.core.step import Step
from openwork.core.step import Work as Rows
from openwork.trace.entry import Began

PARTS = (
    "base",
    "row",  # of the first 8 of a step
    "row_above_8",
    "row_above_32",
    "work",  # a sequence that is in the step
    "head",  # a row that logits are computed of
    "drawn",  # a row whose token is not simply the likeliest
    "single_context",  # a position that a row which stands alone attends to
    "chunk_context",  # the same of rows of prompts
    "copy",  # a block
)
KNOTS = (8, 32)
# Parts of the base where nobody knows better: a row as in schedule/pace.py; weights are some thousand positions' keys.
USUAL = np.array([1.0, 0.03, 0.03, 0.03, 0.01, 0.01, 0.02, 2e-4, 5e-5, 5e-3])
PRIOR = 0.05  # weight of the prior of one part, against one step's
SPREAD = 0.7  # of a prior that is drawn: the deviation of its logarithm
LEAST_STEPS = 4
MOST_STEPS = 20_000  # that are fitted; of more, evenly spaced ones
ROUNDS = 10
HUBER = 1.5
FOLDS = 4


@dataclass(frozen=True, slots=True)
class Work:
    """What the time of a step is taken to depend on."""

    single_rows: int  # works of one row
    chunk_rows: int  # rows of works that have more
    single_context: int  # positions that these rows attend to
    chunk_context: int
    chunks: int = 0  # works that have more than one row
    heads: int = 0
    drawn: int = 0
    copies: int = 0

    @property
    def rows(self) -> int:
        return self.single_rows + self.chunk_rows

    @property
    def without_chunks(self) -> Work:
        """The same step, had no prompt been in it."""
        heads = min(self.heads, self.single_rows)
        return replace(self, chunk_rows=0, chunk_context=0, chunks=0, heads=heads, drawn=min(self.drawn, heads))

    @property
    def parts(self) -> tuple[int, ...]:
        """As many of each of PARTS."""
        rows, (low, high) = self.rows, KNOTS
        return (
            1,
            min(rows, low),
            max(0, min(rows, high) - low),
            max(0, rows - high),
            self.single_rows + self.chunks,
            self.heads,
            self.drawn,
            self.single_context,
            self.chunk_context,
            self.copies,
        )


@dataclass(frozen=True, slots=True)
class Lap:
    """A step that was run: ``took_s`` from when it could begin until it was back, ``elapsed_s`` of it computing."""

    work: Work
    start_s: float
    took_s: float
    elapsed_s: float


def work_of(step: Step) -> Work:
    """The size of a step."""
    single_rows = chunk_rows = single_context = chunk_context = chunks = heads = drawn = 0
    for work in step.works:
        count = work.count
        if count == 1:
            single_rows += 1
            single_context += work.start + 1
        else:
            chunks += 1
            chunk_rows += count
            chunk_context += count * work.start + count * (count + 1) // 2
        heads_here, drawn_here = _heads(work)
        heads += heads_here
        drawn += drawn_here
    return Work(single_rows, chunk_rows, single_context, chunk_context, chunks, heads, drawn, len(step.copies))


def _heads(work: Rows) -> tuple[int, int]:
    """Rows that logits are computed of, and those of them whose token is not simply the likeliest."""
    heads = drawn = 0
    if work.draws:
        heads = 1 + len(work.drafts)
        for draw in work.draws:
            params = draw.params
            if (
                not params.is_greedy
                or params.constraint is not None
                or params.has_penalties
                or params.logprobs is not None
            ):
                drawn += heads
    if work.score is not None:
        heads, drawn = heads + len(work.score.targets), drawn + len(work.score.targets)
    if work.expand is not None:
        heads, drawn = heads + 1, drawn + 1
    return heads, drawn


@dataclass(frozen=True, slots=True)
class StepCost:
    """The fit. ``pause_s`` of each step nobody computes: it is handed over and back, and others are planned."""

    rates: tuple[float, ...]  # seconds, of PARTS
    steps: int  # it was fitted to
    error: float  # median of |fitted / measured - 1|, of steps that were left out of the fit
    pause_s: float = 0.0
    most_rows: int = 0  # of a step that was measured

    def seconds(self, work: Work) -> float:
        """What a step of this size is expected to take."""
        return sum(part * rate for part, rate in zip(work.parts, self.rates, strict=True))


def usual(began: Began | None) -> np.ndarray:
    """What steps usually cost, in parts of the base; where the model's bytes are known, by what is read."""
    found = USUAL.copy()
    if began is not None and began.step_bytes and began.position_bytes:
        found[7] = began.position_bytes / began.step_bytes
        found[8] = found[7] / 4  # rows of a prompt read a key once for all of them
        found[9] = 2 * began.cache.block_size * found[7]
    return found


def fit(laps: Sequence[Lap], prior: np.ndarray = USUAL, draw: Random | None = None) -> StepCost:
    """Fit what was measured. With ``draw``, one of the fits that the same steps might as well have led to.

    Raises RequestError when there is too little of it.
    """
    timed = [lap for lap in laps if lap.took_s > 0 and lap.elapsed_s > 0]
    if len(timed) < LEAST_STEPS:
        raise RequestError(
            f"the recording holds {len(timed)} steps whose time was measured; {LEAST_STEPS} are needed to say what "
            "steps cost",
            "Record more.",
            param="record",
        )
    kept = timed[:: -(-len(timed) // MOST_STEPS)]
    parts = np.asarray([lap.work.parts for lap in kept], np.float64)  # (steps, parts)
    measured = np.asarray([lap.took_s for lap in kept], np.float64)  # (steps,)
    rates = _fitted(parts, measured, prior, draw)
    pauses = [lap.took_s - lap.elapsed_s for lap in kept]
    return StepCost(
        rates=tuple(rates.tolist()),
        steps=len(timed),
        error=0.0 if draw is not None else _error(parts, measured, prior),
        pause_s=max(0.0, float(np.median(pauses))),
        most_rows=max(lap.work.rows for lap in timed),
    )


def _error(parts: np.ndarray, measured: np.ndarray, prior: np.ndarray) -> float:
    """Of steps in one part of the recording, fitted to the others."""
    fold = np.arange(len(measured)) * FOLDS // len(measured)
    off = []
    for each in range(FOLDS):
        rates = _fitted(parts[fold != each], measured[fold != each], prior)
        off.append(np.abs(parts[fold == each] @ rates / measured[fold == each] - 1))
    return float(np.median(np.concatenate(off)))


def _fitted(parts: np.ndarray, measured: np.ndarray, prior: np.ndarray, draw: Random | None = None) -> np.ndarray:
    """Rates (parts,), none negative."""
    aims = np.ones(len(prior))
    if draw is not None:  # stretches of steps at random, for steps that stand together are alike
        size = max(1, len(measured) // 16)
        starts = [draw.randrange(len(measured) - size + 1) for _ in range(-(-len(measured) // size))]
        taken = np.concatenate([np.arange(start, start + size) for start in starts])
        parts, measured = parts[taken], measured[taken]
        aims = np.exp([draw.gauss(0, SPREAD) for _ in prior])
    scale = prior * float(np.median(measured / (parts @ prior)))  # seconds
    rates = scale
    for _ in range(ROUNDS):
        before, fitted = rates, np.maximum(parts @ rates, 1e-12)
        off = measured / fitted - 1
        spread = min(1.0, max(0.01, 1.4826 * float(np.median(np.abs(off)))))
        weights = np.minimum(1.0, HUBER * spread / np.maximum(np.abs(off), 1e-12))
        rates = scale * _not_negative(parts * scale / fitted[:, None], measured / fitted, weights, spread, aims)
        if np.allclose(rates, before, rtol=1e-4, atol=0):
            break
    return rates


def _not_negative(
    parts: np.ndarray, aimed: np.ndarray, weights: np.ndarray, spread: float, aims: np.ndarray
) -> np.ndarray:
    """Weighted least squares beside the prior ``aims``: the most negative part is left out until none is."""
    strength = PRIOR * max(spread, 0.05) ** 2  # of steps that say little, the prior is as good as more of them
    gram = (parts * weights[:, None]).T @ parts + strength * np.eye(len(aims))
    right = (parts * weights[:, None]).T @ aimed + strength * aims
    found, left = np.zeros(len(aims)), list(range(len(aims)))
    while left:
        solved = np.linalg.solve(gram[np.ix_(left, left)], right[left])
        if solved.min() >= 0:
            found[left] = solved
            break
        del left[int(np.argmin(solved))]
    return found
