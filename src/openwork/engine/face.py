"""AsyncEngine: what a server asks of an engine, wherever the engine is: in this process, in another, one or many.

It guarantees that each accepted request has a stream whose events come in order and which ends exactly once, whatever
becomes of the process that computes it. It knows no text, no HTTP and no way of crossing between processes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from openwork.core.event import Event
from openwork.core.gauges import Gauges
from openwork.core.output import FinishReason
from openwork.core.request import Limits, Request, SamplingParams
from openwork.core.terms import Tenant

State = Literal["loading", "ready", "restarting", "draining", "closed"]


@dataclass(frozen=True, slots=True)
class Facts:
    """What stays true of a served model as long as it is served."""

    model: str  # the name it is served under
    limits: Limits
    defaults: SamplingParams  # what the checkpoint recommends
    directory: str = ""  # where its tokenizer and chat template are; never told to a client
    contract_id: str = ""
    dtype: str = ""
    kv_dtype: str = ""
    threads: int = 0
    block_size: int = 16
    num_blocks: int = 0


@dataclass(frozen=True, slots=True)
class Recorded:
    """How a flight recorder is doing. ``why_off`` says why it writes nothing, when it should."""

    is_on: bool
    num_bytes: int = 0
    num_failures: int = 0  # times it had to stop
    why_off: str = ""


@dataclass(frozen=True, slots=True)
class Status:
    """How an engine is doing: counts since it was first started, and sizes now.

    ``last_step_age_s`` is the time since a step was last completed, or None when nothing is to be done: an engine that
    has work and completes no step is not healthy, whatever else it says.
    """

    state: State
    running: int = 0  # sequences that hold blocks
    waiting: int = 0  # sequences that do not
    steps: int = 0
    rows: int = 0  # positions computed
    preemptions: int = 0
    prefix_queries: int = 0  # prompt tokens that were looked up in the prefix cache
    prefix_hits: int = 0  # of those, found
    restarts: int = 0
    last_step_age_s: float | None = None
    gauges: Gauges | None = None
    by_tenant: Mapping[str, Gauges] = field(default_factory=dict)
    why: str = ""  # of one that is closed: what for
    recorded: Recorded | None = None  # None: nothing is to be


class AsyncStream(Protocol):
    """The events of one request."""

    request: Request

    async def take(self) -> list[Event]:
        """Wait for events and take all there are; never empty. Nothing comes after Ended: not to be called then."""
        ...

    def cancel(self, index: int | None = None, reason: FinishReason = "cancelled") -> None:
        """End the request, or its sequence ``index``, within a step. Its last events still come. Idempotent."""
        ...


class AsyncEngine(Protocol):
    """An engine that is awaited rather than turned."""

    @property
    def facts(self) -> Facts:
        """Raises EngineUnavailable before the model was first loaded."""
        ...

    async def submit(self, request: Request, name: str | None = None) -> AsyncStream:
        """Hand a request in; returns when it is accepted. ``name`` is what a recording calls it, and unique.

        Raises RequestError when it can never be served, Overloaded when too much is waiting, and EngineUnavailable
        while there is no engine to take it.
        """
        ...

    def status(self) -> Status:
        """The last that is known; does not wait."""
        ...

    async def pin(self, namespace_of: Request, tokens: Sequence[int], seconds: float) -> int:
        """Keep what is cached of ``tokens`` under the terms of a request for a time; how many tokens that is."""
        ...

    def replace_tenants(self, known: Mapping[str, Tenant]) -> None:
        """Let a new list of tenants take effect."""
        ...

    async def drain(self, seconds: float) -> bool:
        """Take nothing new and wait for what runs, at most so long; whether all of it ended."""
        ...

    async def close(self) -> None:
        """End everything that still runs, with its Ended, and let the engine go."""
        ...
