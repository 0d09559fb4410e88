"""The ports of the engine: what runs a step, what tells the time, what writes things down.

Real, virtual, recorded and fake ones are interchangeable; the loop is the same object everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from openwork.core.event import Event
from openwork.core.step import Result, Step


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
    """Gets every step before the runner does, so that a crash leaves its cause behind."""

    def planned(self, step: Step, events: Sequence[Event]) -> None: ...

    def ran(self, step: Step, result: Result, events: Sequence[Event]) -> None: ...
