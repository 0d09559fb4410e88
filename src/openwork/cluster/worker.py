"""Worker: the engine in its own process. One thread reads what came, applies it, turns the loop, says what happened.

    python -m openwork.cluster.worker FD PARENT

FD is a connected socket that only the parent has the other end of; there is nothing to connect to from outside. Between
two turns everything that came is applied, so a cancel takes effect within a step; with nothing to do the worker sleeps
on the socket. The parent hears of a step before the runner does. Nothing is kept for a parent that does not read: the
worker waits for it before the next step. When the parent ends, whatever way, so does the worker, at once. It knows no
text, and no request that has ended; a tokenizer is read for the first constraint, and known to the guide alone.
"""

from __future__ import annotations

import os
import socket
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

from openwork.build import wire
from openwork.cluster import kept_cache
from openwork.cluster.pipe import Gone, Pipe, stay_with
from openwork.cluster.wire import (
    Accepted,
    Cancel,
    Down,
    Loading,
    Pin,
    Pinned,
    Planned,
    Ready,
    Refused,
    Rejected,
    Replace,
    Report,
    Start,
    Stop,
    Submit,
    Turned,
    Withdraw,
    Withdrawn,
    as_trouble,
    happened,
)
from openwork.core.errors import OpenworkError
from openwork.core.event import Ended, Event
from openwork.core.step import Step
from openwork.core.terms import Tenants
from openwork.engine.face import Facts
from openwork.engine.loop import Loop
from openwork.trace.log import FlightRecorder
from openwork.wiring import Wired, make_recorder

LEAST_S = 0.1  # between two reports, or two words on loading
REPORT_SHARE = 0.02  # of the time that reports may take: counting the blocks of a large cache is not free
Load = Callable[[Start, Tenants, Callable[[str, int, int], None]], Wired]


class Worker:
    """A loop between two ends of a pipe."""

    def __init__(self, pipe: Pipe, wired: Wired, recorder: FlightRecorder | None = None) -> None:
        self._pipe = pipe
        self._recorder = recorder
        self._scheduler = wired.scheduler
        self._clock = wired.clock
        self._guide = wired.guide
        self._loop = Loop(wired.scheduler, wired.runner, wired.clock, recorder, self._announce)
        self._num_planned = self._num_landed = 0
        self._report_at = 0.0
        self._is_reported = False  # all that happened

    def run(self) -> None:
        """Until the parent says stop. Raises Gone when there is no parent."""
        while True:
            is_idle = self._loop.is_idle
            messages = self._pipe.receive(self._wait_s() if is_idle else 0.0)
            if is_idle and not messages:
                self._report()
            for message in messages:
                if isinstance(message, Stop):
                    return
                self.apply(message)
            self.turn()

    def _wait_s(self) -> float | None:
        """How long to sleep with nothing to do: until what happened last may be reported, and after that for ever."""
        return None if self._is_reported else max(0.0, self._report_at - self._clock.now())

    def close(self) -> None:
        """Wait for the step in flight and let the runner go."""
        self._loop.land()
        self._loop.close()

    # -- a turn --------------------------------------------------------------------------------------------------

    def _announce(self, step: Step) -> None:
        """The parent has it in hand before the runner begins."""
        self._num_planned = step.number + 1
        requests = sorted({sequence.request_id for sequence in self._scheduler.sequences_of(step)})
        self._pipe.post(Planned(step.number, step.num_rows, requests))
        self._pipe.flush()

    def turn(self) -> None:
        """One turn of the loop, if there is anything to do."""
        if self._loop.is_idle:
            return
        before = self._num_planned
        self._is_reported = False
        events = self._loop.turn()
        # A step planned in this turn is still under way; all before it have come back.
        self._num_landed = before if self._num_planned > before else self._num_planned
        self._tell(events)
        if self._clock.now() >= self._report_at:
            self._report()

    def _tell(self, events: list[Event]) -> None:
        running, waiting = self._scheduler.num_running, self._scheduler.num_waiting
        # Log-probabilities of whole prompts go by themselves: many of them may end in one turn.
        parts: list[list[Event]] = [[event for event in events if not _is_large(event)]]
        parts += [[event] for event in events if _is_large(event)]
        for part in parts:
            self._pipe.post(Turned(self._num_landed, running, waiting, happened(part)))

    def _report(self) -> None:
        began = self._clock.now()
        recorded = None if self._recorder is None else self._recorder.state
        self._pipe.post(Report(*self._scheduler.gauges(), recorded))
        took = self._clock.now() - began
        self._report_at = began + max(LEAST_S, took / REPORT_SHARE)
        self._is_reported = True

    # -- what the parent says ------------------------------------------------------------------------------------

    def apply(self, message: Down) -> None:
        """Do what the parent says."""
        self._is_reported = False
        match message:
            case Submit():
                self._submit(message)
            case Cancel(id=id, index=index, reason=reason):
                self._tell(self._loop.cancel(id, index, reason))
            case Withdraw(id=id):
                self._loop.cancel(id)
                self._pipe.post(Withdrawn(id))
            case Pin(ask=ask, terms=terms, tokens=tokens, seconds=seconds):
                self._pipe.post(Pinned(ask, self._loop.pin(terms, tokens, seconds)))
            case Replace(tenants=tenants):
                self._loop.replace_tenants(tenants)
            case _:
                raise ValueError(f"a {type(message).__name__} message has no place here")

    def _submit(self, message: Submit) -> None:
        try:
            events = self._loop.add(message.id, message.request, message.so_far, message.name)
        except OpenworkError as error:
            self._pipe.post(Rejected(message.id, as_trouble(error)))
        else:
            self._pipe.post(Accepted(message.id))
            if message.request.params.constraint is not None:  # while its prompt waits and is computed
                self._guide.prepare(message.request.params.constraint)
            self._tell(events)


def _is_large(event: Event) -> bool:
    return isinstance(event, Ended) and event.prompt_logprobs is not None


# -- the process -----------------------------------------------------------------------------------------------------


def load(start: Start, tenants: Tenants, progress: Callable[[str, int, int], None]) -> Wired:
    how = (start.schedule, start.admission, tenants, progress)
    return wire(start.model, start.load, *how, record=start.record)


def main(arguments: Sequence[str], load: Load = load) -> int:
    """Serve the parent until it says stop; the exit status. ``load`` is another one in tests of what may go wrong."""
    stay_with(parent=int(arguments[1]))
    pipe = Pipe(socket.socket(fileno=int(arguments[0])))
    try:
        start = pipe.receive_first(Start)
        try:
            tenants = Tenants(start.tenants)
            wired = load(start, tenants, _Telling(pipe))
            kept = None if start.cache_dir is None else kept_cache.KeptCache(Path(start.cache_dir), wired)
            restored = kept.restore() if kept is not None and start.restores else 0
            recorder = None
            if (
                start.record is not None
            ):  # a later process records when it can: the first has shown that there is a place
                recorder = make_recorder(start.record, wired, insists=start.restores)
                if kept is not None and kept.records:
                    recorder.restored(wired.clock.now(), kept.records)
        except Gone:
            raise
        except Exception as error:
            if not isinstance(error, OpenworkError):
                traceback.print_exc()  # a fault of ours: the parent is told in a word, the operator in full
            pipe.post(Refused(as_trouble(error)))
            pipe.flush()
            return 2
        worker = Worker(pipe, wired, recorder)
        pipe.post(Ready(_facts(wired), kept_cache.likeness(Path(wired.info.directory)), wired.info.kv_bytes, restored))
        worker.run()
        worker.close()
        if kept is not None:
            kept.save()
    except Gone:
        os._exit(0)  # nobody is left to wait for the step in flight
    return 0


class _Telling:
    """Tells the parent how far loading is, not too often."""

    def __init__(self, pipe: Pipe) -> None:
        self._pipe = pipe
        self._told_at = float("-inf")
        self._stage = ""

    def __call__(self, stage: str, done: int, total: int) -> None:
        now = time.perf_counter()
        if stage != self._stage or done >= total or now - self._told_at >= LEAST_S:
            self._stage, self._told_at = stage, now
            self._pipe.post(Loading(stage, done, total))
            self._pipe.flush()


def _facts(wired: Wired) -> Facts:
    info = wired.info
    return Facts(
        model=info.model,
        limits=wired.limits,
        defaults=wired.generation.as_params(),
        directory=info.directory,
        contract_id=info.contract_id,
        dtype=info.dtype,
        kv_dtype=info.kv_dtype,
        threads=info.threads,
        block_size=info.block_size,
        num_blocks=info.num_blocks,
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
