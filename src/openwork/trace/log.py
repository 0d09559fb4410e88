"""Log: the flight recorder. Everything the scheduler is told and answers, in files, while the engine runs.

It guarantees that a line is with the operating system before the step it announces is begun, so that a process killed
at any moment loses at most the line it was writing; that the files together stay within a bound, the oldest going
first; and that nothing which befalls it reaches the engine: where it cannot write it says so once, lets the engine be,
and begins anew when it can. It knows no model, no text and no reader.
"""

from __future__ import annotations

import time as clock
from collections.abc import Callable, Mapping
from collections.abc import Sequence as Line_of
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from openwork.core.errors import TraceError
from openwork.core.event import Event
from openwork.core.output import FinishReason
from openwork.core.request import Request
from openwork.core.sequence import Sequence
from openwork.core.settings import RecordSettings
from openwork.core.step import Result, Step
from openwork.core.terms import Tenant, Terms
from openwork.decode.strategy import Generation
from openwork.engine.face import Recorded
from openwork.kv.saved import Saved
from openwork.trace.coding.encode import Encoder
from openwork.trace.coding.plain import plain, table
from openwork.trace.coding.shape import BEGAN, rare
from openwork.trace.entry import WRITTEN, Began
from openwork.trace.segments import MARK, SegmentFile, frame, segments

SEGMENTS = 16  # files that a full recording is spread over: one of them goes at a time
LEAST_SEGMENT_BYTES = 64 << 10
KEY_EVERY_BYTES = 64 << 10  # at least; and so seldom that keys are a small part of all
KEY_SHARE = 1 / 32
RETRY_S = 5.0


class FlightRecorder:
    """Recorder of one engine process. ``tell`` hears, in a sentence, when recording stops and when it goes on.

    Raises TraceError when there is no place to write to, unless ``insists`` is False: then it begins when there is one.
    """

    def __init__(
        self,
        settings: RecordSettings,
        began: Began,
        tell: Callable[[str], None] = lambda message: None,
        insists: bool = True,
    ) -> None:
        self._directory = Path(settings.directory).expanduser()
        self._max_bytes = settings.max_bytes
        self._segment_bytes = max(LEAST_SEGMENT_BYTES, settings.max_bytes // SEGMENTS)
        self._tell = tell
        self._encoder = Encoder(settings.keeps_prompts)
        self._began = replace(began, has_tokens=settings.keeps_prompts)
        self._file: SegmentFile | None = None
        self._number: int | None = None  # of the file; None: there was none yet
        self._num_bytes = 0
        self._num_failures = 0
        self._num_lost = 0  # lines since the last that was written
        self._why = ""  # it does not write
        self._retry_at: float | None = None  # None: never
        self._next_key = 0
        try:
            self._first()
        except OSError as error:
            if not insists:
                self._stop(f"recording stopped: {error.strerror}", is_final=False)
                return
            raise TraceError(
                f"nothing can be recorded in {self._directory}: {error.strerror}", "Name a directory you may write to."
            ) from error

    @property
    def run(self) -> int:
        return self._began.run

    @property
    def state(self) -> Recorded:
        return Recorded(self._file is not None, self._num_bytes, self._num_failures, self._why)

    # -- Recorder ------------------------------------------------------------------------------------------------

    def submitted(
        self,
        time: float,
        number: int,
        name: str | None,
        request: Request,
        so_far: Mapping[int, Line_of[int]] | None,
        error: str,
    ) -> None:
        if name is None:  # the first process in a directory names its requests 0, 1, ...
            name = str(number) if self.run == 0 else f"{self.run}-{number}"
        self._write(time, lambda: self._encoder.submitted(time, number, name, request, so_far, error))

    def cancelled(
        self, time: float, number: int, index: int | None, reason: FinishReason, events: Line_of[Event]
    ) -> None:
        self._write(time, lambda: self._encoder.cancelled(time, number, index, reason, events))

    def pinned(self, time: float, terms: Terms, tokens: Line_of[int], until: float) -> None:
        self._write(time, lambda: self._encoder.pinned(time, terms, tokens, until))

    def replaced(self, time: float, tenants: Mapping[str, Tenant]) -> None:
        self._began = replace(self._began, tenants=dict(tenants))
        self._write(time, lambda: self._encoder.replaced(time, tenants))

    def restored(self, time: float, records: Line_of[Saved]) -> None:
        self._write(time, lambda: self._encoder.restored(time, records))

    def planned(self, time: float, step: Step, sequences: Line_of[Sequence], events: Line_of[Event]) -> None:
        self._write(time, lambda: self._encoder.planned(time, step, sequences, events))

    def waited(self, time: float, events: Line_of[Event], for_guess: bool) -> None:
        self._write(time, lambda: self._encoder.waited(time, events, for_guess))

    def decided(self, time: float, number: int, generation: Generation, worths: Mapping[int, float]) -> None:
        if not self._encoder.keeps_tokens:  # else it decides so again by itself
            self._write(time, lambda: self._encoder.decided(time, number, generation, worths))

    def ran(self, time: float, step: Step, result: Result, events: Line_of[Event]) -> None:
        self._write(time, lambda: self._encoder.ran(time, result, events))

    def failed(self, time: float, step: Step, message: str, events: Line_of[Event]) -> None:
        self._write(time, lambda: self._encoder.failed(time, step.number, message, events))

    def closed(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
        self._retry_at = None

    # -- writing -------------------------------------------------------------------------------------------------

    def _write(self, time: float, encode: Callable[[], bytes]) -> None:
        """Encode a line, whether or not it can be written: what follows is said against it."""
        if self._why and self._retry_at is None:
            return
        try:
            body = encode()
        except Exception as error:  # a fault of ours, which is not to become the engine's
            self._stop(f"a line could not be made: {type(error).__name__}: {error}", is_final=True)
            return
        try:
            if self._file is None:
                self._num_lost += 1
                if self._retry_at is None or clock.monotonic() < self._retry_at:
                    return
                self._next(time)  # its key holds what this line said
                self._tell_safely(f"recording goes on; {self._num_lost} lines were lost")
                self._why, self._num_lost = "", 0
                return
            self._put(frame(body))
            if self._file.num_bytes >= self._segment_bytes:
                self._next(time)
            elif self._file.num_bytes >= self._next_key:
                self._put_key(time)
        except OSError as error:
            self._stop(f"recording stopped: {error.strerror}", is_final=False)

    def _put(self, data: bytes) -> None:
        assert self._file is not None
        self._file.write(data)
        self._num_bytes += len(data)

    def _put_key(self, time: float) -> None:
        assert self._file is not None
        key = MARK + frame(self._encoder.key(time))
        self._put(key)
        self._next_key = self._file.num_bytes + max(KEY_EVERY_BYTES, int(len(key) / KEY_SHARE))

    def _stop(self, why: str, is_final: bool) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
        if not self._why:
            self._num_failures += 1
            self._why = why
            self._num_lost = max(1, self._num_lost)
            self._tell_safely(f"{why}. The engine goes on without.")
        self._retry_at = None if is_final else clock.monotonic() + RETRY_S

    def _tell_safely(self, message: str) -> None:
        with suppress(Exception):  # a warning that somebody made an error of
            self._tell(message)

    # -- files ---------------------------------------------------------------------------------------------------

    def _first(self) -> None:
        """The first file, under a number that nobody has."""
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        known = segments(self._directory)
        self._began = replace(self._began, run=known[-1].run + 1 if known else 0)
        while self._file is None:
            try:
                self._file = self._open(0)
            except FileExistsError:
                self._began = replace(self._began, run=self._began.run + 1)
        self._number = 0
        self._next_key = KEY_EVERY_BYTES

    def _next(self, time: float) -> None:
        """Another file, which says all that is needed to read it alone; the oldest make room."""
        if self._file is not None:
            self._file.close()
            self._file = None
        if self._number is None:
            self._first()
        else:
            self._file = self._open(self._number + 1)
            self._number += 1
        self._put_key(time)

    def _open(self, number: int) -> SegmentFile:
        self._make_room()
        about = [self.run, number, self._num_lost, table(WRITTEN), plain(self._began)]
        file = SegmentFile(self._directory, self.run, number, frame(rare(BEGAN, self._began.time, about)))
        self._num_bytes += file.num_bytes
        return file

    def _make_room(self) -> None:
        known = [(segment, segment.path.stat().st_size) for segment in segments(self._directory)]
        total = sum(size for _, size in known) + self._segment_bytes
        for segment, size in known:
            if total <= self._max_bytes:
                return
            segment.path.unlink(missing_ok=True)
            total -= size
