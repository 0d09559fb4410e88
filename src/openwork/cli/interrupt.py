"""Interrupt: Ctrl-C noticed between steps of the engine, never in the middle of one.

The first Ctrl-C is remembered until the work comes to a place where it can be left; the second does not wait. Only the
main thread of a process receives signals, so elsewhere nothing is changed.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

Progress = Callable[[str, int, int], None]


class Interrupt:
    """In a ``with`` statement; ``check`` raises KeyboardInterrupt once Ctrl-C was pressed."""

    def __init__(self) -> None:
        self.is_asked = False
        self._before: Any = None

    def check(self) -> None:
        if self.is_asked:
            raise KeyboardInterrupt

    def passing(self, progress: Progress) -> Progress:
        """Progress reports come between steps: a place to leave a long prompt."""

        def report(stage: str, done: int, total: int) -> None:
            self.check()
            progress(stage, done, total)

        return report

    def __enter__(self) -> Interrupt:
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGINT, self._take)
        return self

    def __exit__(self, *exc: object) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)

    def _take(self, number: int, frame: FrameType | None) -> None:
        if self.is_asked:
            raise KeyboardInterrupt
        self.is_asked = True
