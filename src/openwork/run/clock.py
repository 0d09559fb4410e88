"""MonotonicClock: the time that really passes, for an engine that really runs."""

from __future__ import annotations

import time


class MonotonicClock:
    """Seconds of the system's steady clock."""

    def now(self) -> float:
        return time.perf_counter()

    def wait(self, until: float) -> None:
        time.sleep(max(0.0, until - time.perf_counter()))
