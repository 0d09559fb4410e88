"""RemoteEngine: the awaited face of an engine that computes in a process of its own, and outlives the death of it.

When the process dies, another is started and every open request goes on from what its reader has been given: by the
contract its tokens are those that would have come, so a reader notices a pause and nothing else. Which request is to
blame is found out by suspects.py; one that is guilty ends with failure "quarantined", and nobody else does.

It guarantees that every stream ends exactly once, that ``status`` is true whatever the process does, and that ``close``
leaves no process, descriptor or task behind. It runs on one event loop and is not to be used from another thread. It
does not know text.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import count

from openwork.cluster import wire
from openwork.cluster.entry import Entry
from openwork.cluster.frames import DOWN, UP
from openwork.cluster.ledger import Ledger
from openwork.cluster.process import COMMAND
from openwork.cluster.supervisor import Progress, Service, Supervisor
from openwork.cluster.suspects import Cause
from openwork.core.errors import EngineError, EngineUnavailable, OpenworkError, Overloaded, RequestError
from openwork.core.event import Event
from openwork.core.output import FinishReason
from openwork.core.request import Request
from openwork.core.terms import Tenant
from openwork.engine.face import Facts, Recorded, State, Status

MAX_UNSENT_BYTES = 64 * 2**20
MAX_HELD = 1024  # requests that wait while a suspect runs alone
TOKEN_BYTES = 5  # of one token id on the wire, at most
LOGPROB_BYTES = 64  # of one log-probability on the wire, at most


class RemoteStream:
    """One request's events, as AsyncStream. For one reader."""

    entry: Entry

    def __init__(self, owner: RemoteEngine, request: Request) -> None:
        self.request = request
        self._owner = owner
        self._events: list[Event] = []
        self._arrival: asyncio.Future[None] | None = None

    async def take(self) -> list[Event]:
        while not self._events:
            self._arrival = asyncio.get_running_loop().create_future()
            await self._arrival
        events, self._events = self._events, []
        return events

    def cancel(self, index: int | None = None, reason: FinishReason = "cancelled") -> None:
        self._owner.cancel(self.entry, index, reason)

    def put(self, events: list[Event]) -> None:
        self._events += events
        if self._arrival is not None and not self._arrival.done():
            self._arrival.set_result(None)


class RemoteEngine:
    """``progress`` hears how far loading is. ``command`` is what is run as the process, two arguments added."""

    def __init__(
        self,
        service: Service,
        tenants: Mapping[str, Tenant] | None = None,
        progress: Progress | None = None,
        command: Sequence[str] = COMMAND,
    ) -> None:
        self.tenants: Mapping[str, Tenant] = dict(tenants or {})
        self._service = service
        self._supervisor = Supervisor(service, command, self, progress)
        self._supervision: asyncio.Task[None] | None = None
        self._loaded: asyncio.Future[None] | None = None
        self._state: State = "loading"
        self._is_draining = False
        self._why = ""  # it is closed
        self._ledger = Ledger(self._accept)
        self._accepting: dict[int, asyncio.Future[None]] = {}
        self._pinning: dict[int, asyncio.Future[int]] = {}
        self._asks = count()
        self._turned: wire.Turned | None = None
        self._report: wire.Report | None = None
        self._recorded: Recorded | None = None  # as last told: it stays true while there is no process
        self._moved_at = 0.0  # when a step was last completed, or there was something to do again

    # -- the face ------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Load the model; returns when it is served.

        Raises what loading raises (ModelError, MemoryTooSmall, BackendError, RequestError), and EngineError when the
        process dies of it or cannot be started. The engine is closed then, as when the wait is cancelled.
        """
        self._loaded = asyncio.get_running_loop().create_future()
        self._supervision = asyncio.create_task(self._supervise(), name="openwork-supervision")
        try:
            await self._loaded
        except BaseException:
            await self.close()
            raise

    @property
    def facts(self) -> Facts:
        ready = self._supervisor.ready
        if ready is None:
            raise self._unavailable()
        return ready.facts if self._service.name is None else replace(ready.facts, model=self._service.name)

    @property
    def pid(self) -> int | None:
        """The process that computes, while there is one."""
        return self._supervisor.pid

    @property
    def restored(self) -> int:
        """Tokens of the prefix cache that were brought back at the start."""
        return 0 if self._supervisor.ready is None else self._supervisor.ready.restored

    async def submit(self, request: Request, name: str | None = None) -> RemoteStream:
        if self._state != "ready" or self._is_draining:
            raise self._unavailable()
        self._check(request)
        if not self._ledger.entries:
            self._moved_at = time.perf_counter()
        stream = RemoteStream(self, request)
        stream.entry = self._ledger.add(request, stream.put, name)
        accepted = self._accepting[stream.entry.id] = asyncio.get_running_loop().create_future()
        try:
            self._say_all()
            await accepted
        except asyncio.CancelledError:
            stream.cancel()
            raise
        finally:
            del self._accepting[stream.entry.id]
        return stream

    def status(self) -> Status:
        counts, turned, report = self._ledger.counts, self._turned, self._report
        return Status(
            "draining" if self._is_draining and self._state != "closed" else self._state,
            running=0 if turned is None else turned.num_running,
            waiting=self._ledger.num_held + (0 if turned is None else turned.num_waiting),
            steps=counts.steps,
            rows=counts.rows,
            preemptions=counts.preemptions,
            prefix_queries=counts.prefix_queries,
            prefix_hits=counts.prefix_hits,
            restarts=self._supervisor.num_restarts,
            last_step_age_s=time.perf_counter() - self._moved_at if self._ledger.entries else None,
            gauges=None if report is None else report.gauges,
            by_tenant={} if report is None else report.by_tenant,
            why=self._why,
            recorded=self._recorded,
        )

    async def pin(self, namespace_of: Request, tokens: Sequence[int], seconds: float) -> int:
        if not self._supervisor.is_up:
            raise self._unavailable()
        ask = next(self._asks)
        pinned = self._pinning[ask] = asyncio.get_running_loop().create_future()
        try:
            self._supervisor.send(wire.Pin(ask, namespace_of.terms, list(tokens), seconds))
            num_tokens: int = await pinned
            return num_tokens
        finally:
            del self._pinning[ask]

    def replace_tenants(self, known: Mapping[str, Tenant]) -> None:
        self.tenants = dict(known)
        self._supervisor.send(wire.Replace(dict(known)))

    async def drain(self, seconds: float) -> bool:
        self._is_draining = True
        deadline = time.perf_counter() + seconds
        while self._ledger.entries and time.perf_counter() < deadline:
            await asyncio.sleep(0.01)
        return not self._ledger.entries

    async def close(self) -> None:
        self._shut("the engine was closed")
        if self._supervision is not None:
            await self._supervisor.stop()
            await asyncio.wait([self._supervision])

    # -- requests ------------------------------------------------------------------------------------------------

    def cancel(self, entry: Entry, index: int | None, reason: FinishReason) -> None:
        for message in self._ledger.cancel(entry, index, reason, time.perf_counter()):
            self._supervisor.send(message)
        self._say_all()

    def _check(self, request: Request) -> None:
        """Raises Overloaded and RequestError for what is bounded here and not in the process."""
        if self._supervisor.num_unsent_bytes > MAX_UNSENT_BYTES or self._ledger.num_held >= MAX_HELD:
            raise Overloaded("too many requests wait to be handed over", "Try again later.", is_own=False)
        if len(request.prompt) * TOKEN_BYTES > DOWN.max_bytes // 2:  # the other half is for an answer to go on from
            raise RequestError(f"has {len(request.prompt):,} tokens, more than can be handed over", param="prompt")
        top = request.params.prompt_logprobs
        if top is not None and (top + 1) * len(request.prompt) * LOGPROB_BYTES > UP.max_bytes:
            raise RequestError(
                f"asks for {(top + 1) * len(request.prompt):,} numbers, more than one answer can carry",
                "Ask for fewer likely tokens, or split the prompt.",
                param="prompt_logprobs",
            )

    def _unavailable(self) -> EngineUnavailable:
        state = "draining" if self._is_draining and self._state != "closed" else self._state
        wait_s = max(1.0, self._supervisor.load_s) if state in ("loading", "restarting") else None
        return EngineUnavailable(f"the engine is {state}", "Ask again later.", state=state, retry_after_s=wait_s)

    def _accept(self, id: int) -> None:
        accepted = self._accepting.get(id)
        if accepted is not None and not accepted.done():
            accepted.set_result(None)

    def _say_all(self) -> None:
        """Hand over, and take back, whoever is to be."""
        if self._supervisor.is_up:
            for message in self._ledger.messages():
                self._supervisor.send(message)

    # -- the process: House --------------------------------------------------------------------------------------

    def heard(self, message: wire.Up) -> None:
        now = time.perf_counter()
        match message:
            case wire.Planned():
                self._ledger.plan(message)
            case wire.Turned():
                was_trying = self._ledger.is_trying
                self._turned = message
                if self._ledger.turn(message):
                    self._moved_at = now
                if was_trying:
                    self._say_all()
            case wire.Report():
                self._report, self._recorded = message, message.recorded
            case wire.Accepted(id=id):
                self._ledger.accept(id)
            case wire.Rejected(id=id, trouble=trouble):
                self._reject(id, wire.as_error(trouble), now)
            case wire.Withdrawn(id=id):
                self._ledger.give_back(id, now)
                self._say_all()
            case wire.Pinned(ask=ask, num_tokens=num_tokens):
                if ask in self._pinning and not self._pinning[ask].done():
                    self._pinning[ask].set_result(num_tokens)

    def _reject(self, id: int, error: OpenworkError, now: float) -> None:
        accepted = self._accepting.get(id)
        if self._ledger.reject(id, str(error), now) and accepted is not None and not accepted.done():
            accepted.set_exception(error)
        self._say_all()

    def rose(self) -> None:
        if self._state != "closed":
            self._state = "ready"
        if self._loaded is not None and not self._loaded.done():
            self._loaded.set_result(None)
        self._say_all()

    def fell(self, cause: Cause) -> bool:
        if self._state == "ready":
            self._state = "restarting"
        self._turned = self._report = None
        for pinned in self._pinning.values():
            if not pinned.done():
                pinned.set_exception(self._unavailable())
        return self._ledger.die(cause, time.perf_counter())

    def waits_since(self) -> float | None:
        return self._moved_at if self._ledger.is_expecting else None

    async def _supervise(self) -> None:
        error: OpenworkError
        try:
            await self._supervisor.run()
            error = EngineError("the engine was closed", "Make a new one.")
        except OpenworkError as raised:
            error = raised
        except Exception as raised:  # a fault of ours: readers are not to wait for ever
            error = EngineError(f"the supervision failed: {type(raised).__name__}: {raised}")
        self._shut(str(error))
        if self._loaded is not None and not self._loaded.done():
            self._loaded.set_exception(error)

    def _shut(self, message: str) -> None:
        """Nothing is computed any more: everybody hears of it."""
        self._state, self._why = "closed", self._why or message
        self._ledger.end_all("closed", message, time.perf_counter())
