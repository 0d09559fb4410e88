"""LocalEngine: the awaited face over an engine in this process, for tests of whoever serves one.

A task turns the engine and lets others run between turns, so a turn that computes holds up the event loop: right for
an echo or a tiny model, wrong for serving.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress

from openwork.core.errors import EngineUnavailable
from openwork.core.event import Event
from openwork.core.output import FinishReason
from openwork.core.request import Request
from openwork.core.terms import Tenant, Tenants
from openwork.engine.face import Facts, State, Status
from openwork.engine.service import Engine, Stream


class LocalStream:
    """One request's events, as AsyncStream."""

    def __init__(self, owner: LocalEngine, stream: Stream) -> None:
        self.request = stream.request
        self._owner = owner
        self._stream = stream
        self._arrived = asyncio.Event()

    async def take(self) -> list[Event]:
        while not self._stream.has_events:
            self._arrived.clear()
            await self._arrived.wait()
        return self._stream.take()

    def cancel(self, index: int | None = None, reason: FinishReason = "cancelled") -> None:
        self._owner.engine.cancel(self._stream, index, reason)
        self._owner.wake()

    def wake(self) -> None:
        if self._stream.has_events:
            self._arrived.set()

    @property
    def has_ended(self) -> bool:
        return self._stream.has_ended


class LocalEngine:
    """An AsyncEngine around ``engine``; ``pause`` holds the next turns back until ``resume``."""

    def __init__(self, engine: Engine, facts: Facts, tenants: Tenants | None = None) -> None:
        self.engine = engine
        self.facts = facts
        self.submitted: list[Request] = []
        self._tenants = tenants
        self._streams: list[LocalStream] = []
        self._state: State = "ready"
        self._task: asyncio.Task[None] | None = None
        self._work = asyncio.Event()
        self._may_turn = asyncio.Event()
        self._may_turn.set()

    async def submit(self, request: Request, name: str | None = None) -> LocalStream:
        if self._state != "ready":
            raise EngineUnavailable("this engine takes nothing new", state=self._state)
        stream = LocalStream(self, self.engine.submit(request, name=name))
        self.submitted.append(request)
        self._streams.append(stream)
        if self._task is None:
            self._task = asyncio.create_task(self._turn())
        self._work.set()
        return stream

    def status(self) -> Status:
        gauges, by_tenant = self.engine.gauges()
        return Status(self._state, running=len(self._streams), gauges=gauges, by_tenant=by_tenant)

    async def pin(self, namespace_of: Request, tokens: Sequence[int], seconds: float) -> int:
        return self.engine.pin(namespace_of.terms, tokens, seconds)

    def replace_tenants(self, known: Mapping[str, Tenant]) -> None:
        if self._tenants is not None:
            self._tenants.replace(known)

    def pause(self) -> None:
        self._may_turn.clear()

    def resume(self) -> None:
        self._may_turn.set()

    async def drain(self, seconds: float) -> bool:
        self._state = "draining"
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self._streams:
                    await asyncio.sleep(0)
        return not self._streams

    async def close(self) -> None:
        self._state = "closed"
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        self.engine.close()
        self.wake()

    async def _turn(self) -> None:
        while True:
            while self.engine.is_idle:
                self._work.clear()
                await self._work.wait()
            await self._may_turn.wait()
            self.engine.turn()
            self.wake()
            await asyncio.sleep(0)

    def wake(self) -> None:
        for stream in self._streams:
            stream.wake()
        self._streams = [stream for stream in self._streams if not stream.has_ended]
