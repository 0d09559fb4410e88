"""The ports of the engine: what runs a step, what tells the time, what writes things down.

Real, virtual, recorded and fake ones are interchangeable; the loop is the same object everywhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence as Line
from typing import Any, Protocol

from openwork.core.event import Event
from openwork.core.output import FinishReason
from openwork.core.request import Request
from openwork.core.sequence import Sequence
from openwork.core.step import Result, Step
from openwork.core.terms import Tenant, Terms
from openwork.schedule.scheduler import Scheduler
from openwork.schedule.searches import Hear


class Runner(Protocol):
    """Carries out steps, in the order they are submitted."""

    def submit(self, step: Step) -> Any:
        """Begin a step and return a ticket at once. A pending token of it is the one chosen in the step before."""
        ...

    def collect(self, ticket: Any) -> Result:
        """Wait for a step. Raises what went wrong when the step as a whole failed."""
        ...

    def close(self, wait: bool = True) -> None:
        """Let go of threads and memory: when what is in flight is done, which the caller may ``wait`` for."""
        ...


class Clock(Protocol):
    def now(self) -> float:
        """Seconds from an arbitrary beginning; never goes back."""
        ...

    def wait(self, until: float) -> None:
        """Return at this time or later."""
        ...


class Recorder(Protocol):
    """Hears all that a scheduler is told and answers, in order, with the time that it was told.

    A step comes before the runner has it, so that a crash leaves its cause behind. It raises nothing: an engine does
    not fail because of what is written about it.
    """

    def attend(self, scheduler: Scheduler) -> None:
        """Whose lines come: each when the scheduler has done what it says. It may be looked at then, and only then."""
        ...

    def submitted(
        self,
        time: float,
        number: int,
        name: str | None,
        request: Request,
        so_far: Mapping[int, Line[int]] | None,
        error: str,
    ) -> None:
        """``name`` None: nobody gave it one. ``error`` says why it was not accepted, if it was not."""
        ...

    def cancelled(
        self, time: float, number: int, index: int | None, reason: FinishReason, events: Line[Event]
    ) -> None: ...

    def pinned(self, time: float, terms: Terms, tokens: Line[int], until: float) -> None: ...

    def replaced(self, time: float, tenants: Mapping[str, Tenant]) -> None: ...

    def planned(self, time: float, step: Step, sequences: Line[Sequence], events: Line[Event]) -> None:
        """``sequences`` are those of the works. They change later: what is wanted of them is to be taken now."""
        ...

    def waited(self, time: float, events: Line[Event], for_guess: bool) -> None:
        """There was no step to plan, though somebody was waiting; or none was, to wait for what can be guessed then."""
        ...

    @property
    def decided(self) -> Hear:
        """Hears what a search that compares tokens does next, before the result that it decided by."""
        ...

    def ran(self, time: float, step: Step, result: Result, events: Line[Event]) -> None: ...

    def failed(self, time: float, step: Step, message: str, events: Line[Event]) -> None: ...

    def closed(self) -> None:
        """Nothing more will come."""
        ...
