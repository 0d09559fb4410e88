"""Supervisor: one life of the engine's process after the other. Starts it, watches it, judges its death, starts again.

Every life computes what the first would have: window, size of the cache and number formats are those that the first one
chose, and a model whose files have changed meanwhile is not gone on with. A process that has something to do and
completes nothing for ``hang_s`` is killed. It does not know requests: whose they are is asked of its house.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Protocol

from openwork.cluster import wire
from openwork.cluster.patience import FRUITLESS, Patience
from openwork.cluster.process import Process
from openwork.cluster.suspects import Cause
from openwork.core.errors import EngineError, OpenworkError
from openwork.core.settings import AdmissionSettings, LoadSettings, RecordSettings, ScheduleSettings
from openwork.core.terms import Tenant

Progress = Callable[[str, int, int], None]  # (stage, done, total)
SETTLED_S = 10.0  # a process that stayed this long was of use, whether or not anybody asked something of it
_CHANGED = "the model's files changed while it was served, so what was begun cannot be gone on with: start again"
LOOKS = 2  # in a row that find a process overdue: this one may have been held up itself, with the answer at the door


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """What is served and how, whatever process does it.

    model, load    as for LLM; ``name`` is what it is served under, None: the model's own
    cache_dir      where the prefix cache is kept from an orderly stop to the next start; None: it is not
    record         where the flight recorder writes, in each process anew; None: nowhere
    hang_s         seconds without a completed step, while there is work, after which the process is killed: more than
                   the longest step can take
    stop_s         seconds that an orderly stop may take, saving the cache included
    """

    model: str | None = None
    load: LoadSettings = field(default_factory=LoadSettings)
    schedule: ScheduleSettings = field(default_factory=ScheduleSettings)
    admission: AdmissionSettings = field(default_factory=AdmissionSettings)
    name: str | None = None
    cache_dir: str | None = None
    record: RecordSettings | None = None
    hang_s: float = 60.0
    stop_s: float = 30.0

    def __post_init__(self) -> None:
        for name in ("hang_s", "stop_s"):
            if not 0 < getattr(self, name) < float("inf"):
                raise OpenworkError(f"{name} is {getattr(self, name)}", "It must be seconds above 0.")


class House(Protocol):
    """Whoever the process computes for."""

    @property
    def tenants(self) -> Mapping[str, Tenant]: ...

    def heard(self, message: wire.Up) -> None:
        """It said something of requests."""
        ...

    def rose(self) -> None:
        """It has loaded the model and can be sent to."""
        ...

    def fell(self, cause: Cause) -> bool:
        """It died. Whether a request may be to blame."""
        ...

    def waits_since(self) -> float | None:
        """The time from which on it has owed something; None when it owes nothing."""
        ...


class Supervisor:
    """``ready`` is what the first life said of the model, ``load_s`` how long the last took to load it."""

    def __init__(self, service: Service, command: Sequence[str], house: House, progress: Progress | None) -> None:
        self.ready: wire.Ready | None = None
        self.load_s = 1.0
        self.num_restarts = 0
        self._service = service
        self._command = command
        self._house = house
        self._progress = progress
        self._patience = Patience()
        self._process: Process | None = None
        self._up_at: float | None = None  # since when the process can be sent to
        self._refused: OpenworkError | None = None  # why this life could not load the model
        self._is_final = False  # no other is to follow
        self._num_landed = 0  # steps of this life
        self._began_at = 0.0
        self._stop = asyncio.Event()

    @property
    def is_up(self) -> bool:
        """Whether there is a process that can be sent to."""
        return self._up_at is not None

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    @property
    def num_unsent_bytes(self) -> int:
        return 0 if self._process is None else self._process.num_unsent_bytes

    def send(self, message: wire.Down) -> None:
        """Nothing happens while no process can be sent to. Raises EngineError when the message is too large."""
        if self._process is not None and self.is_up:
            self._process.send(message)

    async def stop(self) -> None:
        """Let the process end in order, for ``stop_s`` at most. ``run`` returns."""
        self._stop.set()
        process = self._process
        if process is not None and self.is_up:
            self.send(wire.Stop())
            await asyncio.wait([process.gone], timeout=self._service.stop_s)
        if process is not None:
            process.kill()

    async def run(self) -> None:
        """Until it is stopped. Raises what loading raised, and EngineError when there is no use in another life."""
        while not self._stop.is_set():
            cause, was_of_use = await self._live()
            has_suspects = self._house.fell(cause)
            if self._stop.is_set():
                return
            wait_s = self._patience.died(was_of_use, has_suspects)
            if self._is_final or (self._refused is not None and (self.ready is None or wait_s is None)):
                raise self._refused or EngineError(_CHANGED)
            if wait_s is None:
                raise EngineError(
                    f"the engine's process ended {FRUITLESS} times in a row with nothing done",
                    "What it last said on standard error, and the system's log, may say why.",
                )
            self.num_restarts += self.ready is not None
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), wait_s)

    async def _live(self) -> tuple[Cause, bool]:
        """One life of the process: what it died of, and whether it was of use."""
        self._refused = None
        self._began_at = time.perf_counter()
        self._num_landed = 0
        try:
            process = self._process = Process(self._command, self._heard)
        except OSError as error:
            raise EngineError(f"no process can be started: {error.strerror}", "The system's limits say why.") from error
        try:
            process.send(self._start())
            is_late = 0
            while not process.gone.done():
                await asyncio.wait([process.gone], timeout=min(1.0, self._service.hang_s / 4))
                is_late = is_late + 1 if self._is_overdue() else 0
                if is_late >= LOOKS:
                    process.kill()
            cause = await process.cause()
        finally:
            process.close()
            up_at, self._up_at, self._process = self._up_at, None, None
        stayed_s = 0.0 if up_at is None else time.perf_counter() - up_at
        return cause, self._num_landed > 0 or stayed_s >= SETTLED_S

    def _is_overdue(self) -> bool:
        since = self._house.waits_since()
        if since is None or self._up_at is None:
            return False
        return time.perf_counter() - max(since, self._up_at) > self._service.hang_s

    def _start(self) -> wire.Start:
        """What the first life is told, and in the others what it made of that."""
        service, model, load = self._service, self._service.model, self._service.load
        if self.ready is not None:
            facts = self.ready.facts
            model = facts.directory
            load = replace(
                load, context=facts.limits.context, kv_cache_bytes=self.ready.kv_bytes, kv_dtype=facts.kv_dtype
            )
        tenants = dict(self._house.tenants)
        restores = self.ready is None
        directory, record = service.cache_dir, service.record
        return wire.Start(model, load, service.schedule, service.admission, tenants, directory, restores, record)

    def _heard(self, message: wire.Up) -> None:
        match message:
            case wire.Loading(stage=stage, done=done, total=total):
                if self._progress is not None:
                    self._progress(stage, done, total)
            case wire.Refused(trouble=trouble):
                self._refused = wire.as_error(trouble)
            case wire.Ready():
                self._rose(message)
            case _:
                if isinstance(message, wire.Turned):
                    self._num_landed = message.num_landed
                self._house.heard(message)

    def _rose(self, ready: wire.Ready) -> None:
        known = self.ready or ready
        facts, first = ready.facts, known.facts
        if (ready.weights, facts.limits, facts.contract_id) != (known.weights, first.limits, first.contract_id):
            self._is_final = True  # what it would go on with is not what was begun
            if self._process is not None:
                self._process.kill()
            return
        self.ready = known
        self._up_at = time.perf_counter()
        self.load_s = self._up_at - self._began_at
        self._house.rose()
