"""Bars: progress on standard error, for people, and only when something takes long enough to be watched.

Called as ``progress(stage, done, total)`` by whatever works. Draws nothing when standard error is no terminal, and
imports nothing heavy before it draws. The bar is wiped when its stage is done.
"""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, TextIO

from openwork.cli import terminal

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

PATIENCE_S = 0.3
LABELS = {
    "loading": "loading weights",
    "packing": "packing weights",
    "saving": "saving them for the next start",
    "prefill": "reading the prompt",
    "requests": "answering",
    "comparing": "comparing with float32",
    "reading": "reading the recording",
}
IN_BYTES = ("loading", "packing", "saving", "reading")


class Bars:
    """One bar at a time, for the stage that reports. Close it before other output, or use a ``with`` statement."""

    def __init__(self, stream: TextIO | None = None, patience_s: float = PATIENCE_S) -> None:
        self._stream = stream or sys.stderr
        self._patience_s = patience_s
        self._is_watched = terminal.is_terminal(self._stream)
        self._stage = ""
        self._began = 0.0
        self._bar: Progress | None = None
        self._task: TaskID | None = None

    def __call__(self, stage: str, done: int, total: int) -> None:
        if not self._is_watched:
            return
        if stage != self._stage:
            self.close()
            self._stage, self._began = stage, time.monotonic()
        if done >= total:
            self.close()
        elif self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=done, total=total)
        elif time.monotonic() - self._began >= self._patience_s:
            self._draw(stage, done, total)

    def _draw(self, stage: str, done: int, total: int) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
        )

        amount = DownloadColumn() if stage in IN_BYTES else MofNCompleteColumn()
        console = Console(file=self._stream, force_terminal=True)
        label = TextColumn("{task.description}", style="dim")
        self._bar = Progress(label, BarColumn(), amount, TimeRemainingColumn(), console=console, transient=True)
        self._task = self._bar.add_task(LABELS.get(stage, stage), completed=done, total=total)
        self._bar.start()

    def close(self) -> None:
        """Wipe the bar, if one is drawn; the next report starts anew."""
        if self._bar is not None:
            self._bar.stop()
        self._bar = self._task = None
        self._stage = ""

    def __enter__(self) -> Bars:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
