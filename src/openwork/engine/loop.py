"""Loop: plan -> submit -> collect -> commit, with one step in flight; and the one way to the scheduler.

    turn i     plan step i    submit i    collect i-1    commit i-1
                              |------ the runner works on i ------ ...

While the runner works on a step, the result of the one before is committed and its events reach their readers; then
the next step is planned without waiting, tokens still unknown standing in it as pending. A search cannot go on before
it has its answers, and would move in every second step only; where steps are long, the one that holds them is waited
for before the next is planned, which costs everybody the planning and the search no step. It guarantees that results
are committed in order, that a step that failed ends its own sequences and never the loop, that an interrupt while it
waits loses no step, and that a recorder hears of everything the scheduler is told, with the same time. It does not know
what a runner is made of, nor which clock it reads.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from collections.abc import Sequence as Line
from typing import Any

from openwork.core.errors import EngineError, OpenworkError
from openwork.core.event import Event
from openwork.core.output import FinishReason
from openwork.core.request import Request
from openwork.core.step import Step
from openwork.core.terms import Tenant, Terms
from openwork.engine.ports import Clock, Recorder, Runner
from openwork.schedule.scheduler import Scheduler

# Above it a step takes many times as long as planning the next, which is some tenths of a millisecond.
LONG_STEP_S = 5e-3


class Loop:
    """Turns until nothing is left to do. ``before`` is called with every step before the runner has it."""

    def __init__(
        self,
        scheduler: Scheduler,
        runner: Runner,
        clock: Clock,
        recorder: Recorder | None = None,
        before: Callable[[Step], None] | None = None,
    ) -> None:
        self.scheduler = scheduler
        self.clock = clock
        self._runner = runner
        self._recorder = recorder
        if recorder is not None:
            scheduler.hear(recorder.decided)
        self._before = before
        self._last_s = 0.0  # what the last step took
        self._in_flight: deque[tuple[Step, Any]] = deque()  # oldest first; more than one only after an interrupt
        if recorder is not None:
            recorder.attend(scheduler)

    @property
    def is_idle(self) -> bool:
        return not self._in_flight and self.scheduler.is_idle

    # -- what the scheduler is told ------------------------------------------------------------------------------

    def add(
        self, number: int, request: Request, so_far: Mapping[int, Line[int]] | None = None, name: str | None = None
    ) -> list[Event]:
        """Take a request in, as Scheduler.add; ``name`` is what its caller knows it by. Raises the same."""
        now, error = self.clock.now(), ""
        try:
            return self.scheduler.add(number, request, now, so_far)
        except OpenworkError as refusal:
            error = str(refusal)
            raise
        finally:
            if self._recorder is not None:
                self._recorder.submitted(now, number, name, request, so_far, error)

    def cancel(self, number: int, index: int | None = None, reason: FinishReason = "cancelled") -> list[Event]:
        """End a request or one of its sequences, as Scheduler.cancel."""
        now = self.clock.now()
        events = self.scheduler.cancel(number, now, index, reason)
        if self._recorder is not None and events:
            self._recorder.cancelled(now, number, index, reason, events)
        return events

    def pin(self, terms: Terms, tokens: Line[int], seconds: float) -> int:
        """Keep what is cached of ``tokens`` for a time, as Scheduler.pin."""
        now = self.clock.now()
        num_tokens = self.scheduler.pin(terms, tokens, now, now + seconds)
        if self._recorder is not None:
            self._recorder.pinned(now, terms, tokens, now + seconds)
        return num_tokens

    def replace_tenants(self, known: Mapping[str, Tenant]) -> None:
        """Let a new list of tenants take effect."""
        self.scheduler.cache.tenants.replace(known)
        if self._recorder is not None:
            self._recorder.replaced(self.clock.now(), known)

    # -- turning -------------------------------------------------------------------------------------------------

    def turn(self) -> list[Event]:
        """Submit the next step, if there is one, and commit the one before. Returns what happened, in order."""
        events = self._settle(keep=0 if self._is_awaited() else 1)
        step, planned = self._plan()
        events += planned
        if step is None and not self._in_flight and not self.scheduler.is_idle:
            raise EngineError("the scheduler has requests but planned no step", "This is a bug: please report it.")
        if step is not None:
            if self._before is not None:
                self._before(step)
            self._in_flight.append((step, self._runner.submit(step)))
        return events + self._settle(keep=0 if step is None else 1)

    def _plan(self) -> tuple[Step | None, list[Event]]:
        now = self.clock.now()
        step, events = self.scheduler.plan(now)
        if self._recorder is None:
            return step, events
        if step is not None:
            self._recorder.planned(now, step, self.scheduler.sequences_of(step), events)
        elif not self.scheduler.is_idle:
            self._recorder.waited(now, events, self.scheduler.awaits_guess)
        return step, events

    def land(self) -> list[Event]:
        """Wait for the step in flight and commit it, submitting no other."""
        return self._settle(keep=0)

    def close(self, wait: bool = True) -> None:
        """Let the runner go, waiting until it has."""
        self._runner.close(wait)
        if self._recorder is not None:
            self._recorder.closed()

    def _is_awaited(self) -> bool:
        """Whether a search waits for the step in flight, and steps are so long that it should not wait for another."""
        if not self._in_flight or self._last_s < LONG_STEP_S:
            return False
        return any(work.expand is not None for work in self._in_flight[-1][0].works)

    def _settle(self, keep: int) -> list[Event]:
        """Commit the oldest steps in flight until ``keep`` are left. One whose wait is interrupted stays in flight."""
        events: list[Event] = []
        while len(self._in_flight) > keep:
            events += self._commit(*self._in_flight[0])
        return events

    def _commit(self, step: Step, ticket: Any) -> list[Event]:
        try:
            result = self._runner.collect(ticket)
        except Exception as error:  # whatever a runner raises ends this step's sequences, not the loop
            self._in_flight.popleft()
            return self._fail(step, error)
        self._in_flight.popleft()
        self._last_s = result.elapsed_s
        now = self.clock.now()
        events = self.scheduler.commit(step, result, now)
        if self._recorder is not None:
            self._recorder.ran(now, step, result, events)
        return events

    def _fail(self, step: Step, error: Exception) -> list[Event]:
        """End the sequences of a failed step; those it shares with the step in flight are not waited for."""
        message = f"step {step.number} failed: {type(error).__name__}: {error}"
        now = self.clock.now()
        events = self.scheduler.fail(step, message, now)
        if self._recorder is not None:
            self._recorder.failed(now, step, message, events)
        return events
