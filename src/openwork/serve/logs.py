"""Log: what happened, one line an event, for machines as JSON and for people when they look on.

It guarantees that a line stays a line whatever a client sends, that writing never holds up the server, that no kind of
event floods the log, and that what was left out is counted. Prompts, keys and bodies are never handed in; of an
exception only its kind and the places in the code are written, since its message may hold a piece of them.
"""

from __future__ import annotations

import json
import logging
import os
import queue
import threading
import time
import traceback
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import PurePath
from typing import Any, Literal, TextIO

Level = Literal["info", "warning", "error"]
LINES_PER_S, LINES_AT_ONCE = 100.0, 500.0  # of each kind of event
_QUEUED_LINES = 10_000
_FLUSH_S = 2.0
_MAX_FIELD = 512  # characters


class Log:
    """``write`` an event; ``dropped`` counts those that were not written, by kind. Safe from every thread."""

    def __init__(self, stream: TextIO, is_human: bool, clock: Callable[[], float] = time.monotonic) -> None:
        self.dropped: dict[str, int] = {}
        self.written = 0
        self._stream = stream
        self._is_human = is_human
        self._clock = clock
        self._allowances: dict[str, tuple[float, float]] = {}  # kind -> lines left, when that was
        self._untold: dict[str, int] = {}  # dropped since a line of the kind was last written
        self._lock = threading.Lock()
        self._lines: queue.Queue[str | None] = queue.Queue(_QUEUED_LINES)
        self._writer = threading.Thread(target=self._write_all, name="log", daemon=True)  # a full pipe blocks it alone
        self._writer.start()

    def write(self, event: str, level: Level = "info", **fields: Any) -> None:
        """One line. ``event`` is one of ours and bounds how many kinds there are; fields hold anything."""
        with self._lock:
            if not self._may(event):
                self._drop(event)
                return
            untold = self._untold.pop(event, 0)
            if untold:
                fields["dropped_before"] = untold
            try:
                self._lines.put_nowait(self._format(event, level, fields))
                self.written += 1
            except queue.Full:
                self._untold[event] = untold
                self._drop(event)

    def write_exception(self, event: str, error: BaseException, **fields: Any) -> None:
        """An error of ours that nobody expected: its kind and where it came from, innermost last."""
        frames = traceback.extract_tb(error.__traceback__)[-12:]
        where = [f"{PurePath(frame.filename).name}:{frame.lineno} {frame.name}" for frame in frames]
        if os.environ.get("OPENWORK_DEBUG") == "1":
            fields["message"] = str(error)
        self.write(event, "error", exception=type(error).__name__, where=" < ".join(reversed(where)), **fields)

    def close(self) -> None:
        """Write what is left, for a moment."""
        try:
            self._lines.put(None, timeout=_FLUSH_S)
        except queue.Full:
            return
        self._writer.join(_FLUSH_S)

    def _may(self, event: str) -> bool:
        now = self._clock()
        left, at = self._allowances.get(event, (LINES_AT_ONCE, now))
        left = min(LINES_AT_ONCE, left + (now - at) * LINES_PER_S)
        self._allowances[event] = (left - 1 if left >= 1 else left, now)
        return left >= 1

    def _drop(self, event: str) -> None:
        self.dropped[event] = self.dropped.get(event, 0) + 1
        self._untold[event] = self._untold.get(event, 0) + 1

    def _format(self, event: str, level: Level, fields: dict[str, Any]) -> str:
        now = datetime.now(UTC)
        shown = {name: _short(value) for name, value in fields.items()}
        if not self._is_human:
            record = {"time": now.isoformat(timespec="milliseconds"), "level": level, "event": event, **shown}
            return json.dumps(record)
        words = [f"{name}={json.dumps(value)}" for name, value in shown.items() if value not in ("", None)]
        mark = "" if level == "info" else f"{level} "
        return f"{now.astimezone():%H:%M:%S} {mark}{event} {' '.join(words)}".rstrip()

    def _write_all(self) -> None:
        while (line := self._lines.get()) is not None:
            try:
                self._stream.write(line + "\n")
                if self._lines.empty():
                    self._stream.flush()
            except (OSError, ValueError):  # nobody reads any more; the server goes on
                pass


class StdlibBridge(logging.Handler):
    """Hands what libraries say through ``logging`` to the log: who says it and where, not what it is about."""

    def __init__(self, log: Log) -> None:
        super().__init__(logging.WARNING)
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        place = f"{record.name}:{record.lineno}"
        if error is not None:
            self._log.write_exception("library", error, by=place)
        else:
            self._log.write("library", "error" if record.levelno >= logging.ERROR else "warning", by=place)


def _short(value: Any) -> Any:
    if isinstance(value, bool) or value is None or isinstance(value, (int, float)):
        return value
    text = str(value)
    return text if len(text) <= _MAX_FIELD else text[: _MAX_FIELD - 3] + "..."
