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
from openwork.schedule.scheduler import Scheduler
from openwork.trace.coding.encode import Encoder
from openwork.trace.coding.plain import plain, table
from openwork.trace.coding.shape import BEGAN, rare
from openwork.trace.entry import WRITTEN, Began
from openwork.trace.segments import MARK, SegmentFile, frame, segments

SEGMENTS = 16  # files that a full recording is spread over: one of them goes at a time
LEAST_SEGMENT_BYTES = 64 << 10
KEY_EVERY_BYTES = 64 << 10  # at least; and so seldom that keys are a small part of all
KEY_SHARE = 1 / 32
PICTURE_SHARE = 1 / 200  # of the time, at most, where a file does not begin
MOST_PICTURES = 1 / 4  # of the bytes, where files are so small that one at each head is more
MOST_OF_ALL = 1 / 8  # of the room for all files: a picture beyond it is left out
RETRY_S = 5.0


class Album:
    """When another picture is due: at the head of each file, and wherever they are a small part of bytes and time."""

    def __init__(self) -> None:
        self._is_open = True
        self._is_wanted = False  # whatever the time: a file began
        self._least_bytes = 0  # before which there is none
        self._next_bytes = 0
        self._next_s = 0.0

    def turn(self) -> None:
        """A file begins."""
        self._is_wanted = True

    def is_due(self, num_bytes: int, now_s: float) -> bool:
        is_cheap = num_bytes >= self._next_bytes and now_s >= self._next_s
        return self._is_open and num_bytes >= self._least_bytes and (self._is_wanted or is_cheap)

    def add(self, num_bytes: int, own_bytes: int, took_s: float) -> None:
        self._is_wanted = False
        self._least_bytes = num_bytes + int(own_bytes / MOST_PICTURES)
        self._next_bytes = num_bytes + int(own_bytes / KEY_SHARE)
        self._next_s = clock.perf_counter() + took_s / PICTURE_SHARE

    def close(self) -> None:
        """No more of them."""
        self._is_open = False


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
        self._album = Album()
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

    def attend(self, scheduler: Scheduler) -> None:
        self._encoder.attend(scheduler)

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
            decided = self._encoder.decided
            self._write(time, lambda: decided(time, number, generation, worths), is_settled=False)

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

    def _write(self, time: float, encode: Callable[[], bytes], is_settled: bool = True) -> None:
        """Encode a line, whether or not it can be written: what follows is said against it.

        ``is_settled``: the scheduler has done what it says, so that a file may begin behind it, with a picture.
        """
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
                if self._retry_at is None or clock.monotonic() < self._retry_at or not is_settled:
                    return
                self._next(time)  # key and picture hold what this line said
                self._tell_safely(f"recording goes on; {self._num_lost} lines were lost")
                self._why, self._num_lost = "", 0
                return
            self._put(frame(body))
            if not is_settled:
                return
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
        self._put_picture(time)
        self._next_key = self._file.num_bytes + max(KEY_EVERY_BYTES, int(len(key) / KEY_SHARE))

    def _put_picture(self, time: float) -> None:
        """A picture of the scheduler, at the head of a file and wherever it costs next to nothing."""
        assert self._file is not None
        begin = clock.perf_counter()
        if not self._album.is_due(self._num_bytes, begin):
            return
        try:
            picture = self._encoder.picture(time)
        except Exception as error:  # a fault of ours: what was recorded so far has not needed one
            self._album.close()
            self._tell_safely(f"no more pictures: {type(error).__name__}: {error}. A replay begins with the process.")
            return
        if picture is not None:
            if len(picture) <= self._max_bytes * MOST_OF_ALL:
                self._put(frame(picture))
            self._album.add(self._num_bytes, len(picture), clock.perf_counter() - begin)

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
        self._album.turn()
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
