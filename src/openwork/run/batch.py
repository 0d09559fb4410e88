"""Batch: the rows of a Step as arrays.

    works     | a: positions 5 6 7 | b: 70 | c: 0 1 |
    ids       | .  .  .            | .     | . .    |     one row a token, in the order of the works
    last      |       ^              ^         ^          the row that each work's draws look at, guesses aside

It fills in pending tokens from what was chosen in the step before. It does not look at block contents or weights.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from openwork.core.step import Step
from openwork.ops.paged import Rows

CosSin = Callable[[np.ndarray], tuple[np.ndarray | None, np.ndarray | None]]


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    ids: np.ndarray  # (rows,) int32
    rows: Rows
    starts: list[int]  # first row of each work, and the number of rows


def assemble(step: Step, chosen: Mapping[int, int], cos_sin: CosSin) -> Batch:
    """Arrays for one step; ``chosen`` maps a sequence to the token that was chosen for it in the step before."""
    ids: list[int] = []
    starts = [0]
    for work in step.works:
        ids += work.tokens
        if work.is_pending:
            ids.append(chosen[work.sequence])
        ids += work.drafts
        starts.append(len(ids))
    if len(ids) == len(step.works):  # decode rows only: the usual step
        positions = np.array([work.start for work in step.works], np.int32)
    else:
        positions = np.concatenate([np.arange(w.start, w.start + w.count, dtype=np.int32) for w in step.works])
    width = max(len(work.blocks) for work in step.works)
    tables = np.zeros((len(step.works), width), np.int32)  # (sequences, blocks)
    for row, work in enumerate(step.works):
        tables[row, : len(work.blocks)] = work.blocks
    cos, sin = cos_sin(positions)
    return Batch(np.array(ids, np.int32), Rows(positions, np.array(starts, np.int32), tables, cos, sin), starts)
