"""Stamps: which rows of a step are stamped, and where operations leave the hashes of what passes (core/stamp.py).

An operation that computes a whole layer or block fills in what lies inside it; the wiring of a model fills in the rest
with Reference.stamp. Rows that are not stamped cost nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from openwork.core.stamp import Stamp, num_points


@dataclass(frozen=True, slots=True, eq=False)
class Stamps:
    rows: np.ndarray  # (stamped,) int32, of the step
    points: np.ndarray  # (stamped, points) uint32; written to

    @classmethod
    def empty(cls, rows: Sequence[int], num_layers: int) -> Stamps:
        return cls(np.array(rows, np.int32), np.zeros((len(rows), num_points(num_layers)), np.uint32))

    def by_row(self) -> dict[int, Stamp]:
        """What was filled in."""
        return dict(zip(self.rows.tolist(), map(tuple, self.points.tolist()), strict=True))
