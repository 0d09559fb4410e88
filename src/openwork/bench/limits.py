"""The ceilings of a machine: how fast it reads memory, and how fast it multiplies in registers.

Decoding reads every weight for every step, so read bandwidth bounds it; prefill multiplies every weight with every
token, so the dot-product instruction does. Both drift on a shared machine, by a factor of two within minutes, so a
ceiling is measured right beside the work it bounds. A ceiling is the best of many short runs, over memory in small
pages and in huge ones: whoever comes near it cannot have been flattered by a slow measurement. It knows the machine,
and nothing of models.
"""

from __future__ import annotations

import mmap
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from openwork.ops.cpu import Cpu

READ_BYTES = 384 << 20  # of each kind of page; no cache holds it
PEAK_STEPS = 2_000_000
RUNS = 3  # of each pattern, for one ceiling

DOTS = {"float32": "float32", "bfloat16": "bfloat16", "int8": "int8", "int8-channel": "int8", "int4": "int8"}
"""Whose dot product a format is multiplied by: the quantised ones are integers by then."""

_NAMES = {"bfloat16": "bf16_gflop_s", "float32": "f32_gflop_s", "int8": "int8_gop_s"}


@dataclass(frozen=True, slots=True)
class Ceiling:
    """What the machine could do at one moment, a second."""

    read: float  # bytes
    dots: Mapping[str, float]  # operations, a multiplication and an addition counted as two; by dot product


class Limits:
    """The ceilings of the machine that ``ops`` runs on, with as many threads. Keeps the best it has ever seen."""

    def __init__(self, ops: Cpu) -> None:
        self._ops = ops
        self._buffers = [_pages(READ_BYTES, huge) for huge in (True, False)]
        self._best_read, self._best_dots = 0.0, dict.fromkeys(_NAMES, 0.0)

    def now(self, formats: Iterable[str]) -> Ceiling:
        """Measure the ceilings of this moment: read bandwidth, and the dot products that number formats need."""
        dots = {dot: self.operations_s(dot) for dot in sorted({DOTS[each] for each in formats})}
        return Ceiling(self.read_bytes_s(), dots)

    def read_bytes_s(self) -> float:
        """Bytes a second that all threads together read."""
        found = max(self._read(each) for each in self._buffers for _ in range(RUNS))
        self._best_read = max(self._best_read, found)
        return found

    def operations_s(self, dot: str) -> float:
        """Operations a second of "float32", "bfloat16" or "int8" dot products, all threads together."""
        found = max(self._multiply(dot) for _ in range(2 * RUNS))
        self._best_dots[dot] = max(self._best_dots[dot], found)
        return found

    def summary(self) -> dict[str, float]:
        """The best that was seen so far, in thousand millions, for people and for JSON."""
        if not self._best_read:
            self.read_bytes_s()
        for dot, best in self._best_dots.items():
            if not best:
                self.operations_s(dot)
        return {"read_gb_s": self._best_read / 1e9} | {_NAMES[dot]: best / 1e9 for dot, best in self._best_dots.items()}

    def _read(self, buffer: np.ndarray) -> float:
        began = time.perf_counter()
        self._ops.read_all(buffer)
        return buffer.nbytes / (time.perf_counter() - began)

    def _multiply(self, dot: str) -> float:
        began = time.perf_counter()
        count = self._ops.multiply_all(dot, PEAK_STEPS)
        return count / (time.perf_counter() - began)


def _pages(size: int, huge: bool) -> np.ndarray:
    """Memory of its own, written once; in huge pages where the system has them and is asked to."""
    pages = mmap.mmap(-1, size)
    if huge and hasattr(mmap, "MADV_HUGEPAGE"):
        pages.madvise(mmap.MADV_HUGEPAGE)
    array = np.frombuffer(pages, np.uint8)
    array[:] = 1
    return array
