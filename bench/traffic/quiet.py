"""Quiet: how much of the machine went to others while something was measured.

The processor time of the whole machine, less that of the servers and of this client, over what there was; and the
longest that the client itself was kept from running. Linux tells it; elsewhere nothing is known.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterable
from pathlib import Path

from traffic.servers import processor_s

TICK_S = 0.05
_IDLE = (3, 4)  # idle, and waiting for a disk: places in /proc/stat


class Watch:
    """From ``with`` to its end. The time of ``roots``, and of their children, is nobody else's."""

    def __init__(self, roots: Iterable[int] = ()) -> None:
        self._roots = [os.getpid(), *roots]
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._tick, daemon=True)
        self.others: float | None = None  # share of all cores
        self.stalled_s = 0.0

    def __enter__(self) -> Watch:
        self._began_s, self._before = time.perf_counter(), self._busy_s()
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._is_over.set()
        self._thread.join()
        after = self._busy_s()
        there_was = (time.perf_counter() - self._began_s) * (os.cpu_count() or 1)
        if self._before is not None and after is not None:
            busy, own = (now - before for now, before in zip(after, self._before, strict=True))
            self.others = max(0.0, (busy - own) / there_was)

    def _tick(self) -> None:
        last_s = time.perf_counter()
        while not self._is_over.wait(TICK_S):
            now_s = time.perf_counter()
            self.stalled_s = max(self.stalled_s, now_s - last_s - TICK_S)
            last_s = now_s

    def _busy_s(self) -> tuple[float, float] | None:
        """Processor seconds of the whole machine, and of those who belong here."""
        try:
            line = [int(each) for each in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
        except (OSError, ValueError, IndexError):
            return None
        own = {pid: spent for root in self._roots for pid, spent in processor_s(root).items()}
        busy = sum(value for at, value in enumerate(line) if at not in _IDLE)
        return busy / os.sysconf("SC_CLK_TCK"), sum(own.values())
