"""The two ceilings of a machine: how fast it reads memory, and how fast it multiplies in registers.

Decoding reads every weight for every step, so read bandwidth bounds it; prefill multiplies every weight with every
token, so the dot-product instruction does. Both drift on a shared machine, by a factor of two within minutes, so a
ceiling is measured right beside the work it bounds and a share is taken pair by pair.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from openwork.ops.cpu import Cpu

READ_BYTES = 512 << 20  # no cache holds it
PEAK_STEPS = 4_000_000


@dataclass(frozen=True, slots=True)
class Share:
    """A rate beside its ceiling, both in the same unit: medians over the pairs, the share's own median included."""

    rate: float
    limit: float
    share: float


class Limits:
    """The ceilings of the machine that ``ops`` runs on, with as many threads."""

    def __init__(self, ops: Cpu) -> None:
        self._ops = ops
        self._buffer = np.ones(READ_BYTES, np.uint8)

    def read_bytes_s(self) -> float:
        """Bytes a second that all threads together read."""
        began = time.perf_counter()
        self._ops.read_all(self._buffer)
        return READ_BYTES / (time.perf_counter() - began)

    def flops_s(self, dtype: str) -> float:
        """Operations a second of the dot product of a dtype, a multiplication and an addition counted as two."""
        began = time.perf_counter()
        count = self._ops.multiply_all(dtype, PEAK_STEPS)
        return count / (time.perf_counter() - began)

    def summary(self) -> dict[str, float]:
        """The best of a few measurements of each, for people and for JSON."""
        return {
            "read_gb_s": max(self.read_bytes_s() for _ in range(5)) / 1e9,
            "bf16_gflop_s": max(self.flops_s("bfloat16") for _ in range(5)) / 1e9,
            "f32_gflop_s": max(self.flops_s("float32") for _ in range(5)) / 1e9,
        }


def beside(work: Callable[[], float], ceiling: Callable[[], float], pairs: int) -> Share:
    """Measure a rate and its ceiling in turn, ``pairs`` times."""
    found = [(work(), ceiling()) for _ in range(pairs)]
    rates, limits = zip(*found, strict=True)
    return Share(
        statistics.median(rates),
        statistics.median(limits),
        statistics.median(rate / limit for rate, limit in found),
    )
