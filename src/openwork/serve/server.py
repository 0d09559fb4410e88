"""Server: the life of a serving process: loading, serving, draining, gone.

It guarantees that something truthful is answered from the first moment to the last, that every answer under way at the
end is either finished or ends in an error, and an exit code that says which: 0 when nothing was cut, else 128 and the
number of the signal. A server whose engine has given up has nothing left to do: it says why, and ends with an error, so
that whoever looks after it starts it again. It knows neither how an engine is made nor what the routes are.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

from starlette.routing import BaseRoute, Router

from openwork.core.errors import EngineError, EngineUnavailable
from openwork.engine.face import AsyncEngine, Facts, Status
from openwork.serve.callers import Callers
from openwork.serve.door import Door
from openwork.serve.errors import ApiError, from_exception, unauthenticated, unavailable
from openwork.serve.gate import App, Gate
from openwork.serve.journal import Journal
from openwork.serve.keys import KeysError, read_keys
from openwork.serve.listening import Listener
from openwork.serve.logs import Log, StdlibBridge
from openwork.serve.metered import Metered
from openwork.serve.metrics import Metrics
from openwork.serve.operations import operations
from openwork.serve.recorded import tell_of_recording
from openwork.serve.settings import ServeSettings

CLOSE_S = 60.0  # for an engine to go, what it saves included
LOOK_S = 0.25  # between two looks at whether the engine is still there
LAST_WORDS_S = 1.0  # for error events to be written
LISTENER_S = 5.0  # for connections to be closed
_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Server:
    """One process that serves one model.

    open_engine   loads the model and returns when it is loaded; cancelling it leaves nothing behind
    make_app      the routes of the API, given the engine and those of the operator
    keys_file     read again on SIGHUP; ``callers`` has its content already
    on_ready      called when requests are taken
    on_leaving    called when none are any more
    """

    def __init__(
        self,
        settings: ServeSettings,
        callers: Callers,
        log: Log,
        metrics: Metrics,
        *,
        open_engine: Callable[[], Awaitable[AsyncEngine]],
        make_app: Callable[[AsyncEngine, Sequence[BaseRoute]], App],
        version: str,
        bounds: Mapping[str, Any],
        keys_file: Path | None = None,
        on_ready: Callable[[AsyncEngine], None] = lambda engine: None,
        on_leaving: Callable[[], None] = lambda: None,
    ) -> None:
        self.settings = settings
        self._callers = callers
        self._log = log
        self._metrics = metrics
        self._open_engine = open_engine
        self._make_app = make_app
        self._keys_file = keys_file
        self._on_ready = on_ready
        self._on_leaving = on_leaving
        self._engine: AsyncEngine | None = None
        self._signals: list[int] = []
        self._stop, self._hurry = asyncio.Event(), asyncio.Event()
        self._ending: set[asyncio.Task[None]] = set()  # of what was revoked
        self._operations = operations(self, version, bounds)
        self._journal = Journal(log, metrics, self._operations)
        self._gate = Gate(_not_yet(self._operations), Door(settings), callers, self._journal)

    # -- for the operations

    def status(self) -> Status:
        if self._engine is None:
            return Status("loading" if not self._signals else "closed")
        status = self._engine.status()
        return status if not self._signals or status.state == "closed" else _as_draining(status)

    def facts(self) -> Facts | None:
        try:
            return None if self._engine is None else self._engine.facts
        except EngineUnavailable:
            return None

    def metrics_page(self) -> bytes:
        for event, count in self._log.dropped.items():
            self._metrics.log_dropped.labels(event).set(count)
        return self._metrics.page()

    # -- the life

    async def run(self, listener: socket.socket) -> int:
        """Serve until a signal says otherwise; the exit code.

        Raises what ``open_engine`` raises, and EngineError when the engine has given up.
        """
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(self._journal.loop_failed)
        bridge = StdlibBridge(self._log)
        logging.getLogger().addHandler(bridge)
        for number in _SIGNALS:
            loop.add_signal_handler(number, self._take_signal, number)
        loop.add_signal_handler(signal.SIGHUP, self.reload)
        accepting = Listener(self._gate, self.settings, self._journal)
        tasks = [
            asyncio.create_task(accepting.serve([listener])),
            asyncio.create_task(self._metrics.measure_lag()),
            asyncio.create_task(tell_of_recording(self.status, self._log)),
        ]
        try:
            if not await self._load():
                return 128 + self._signals[0]
            await self._until_told()
            return await self._end() if self._stop.is_set() else await self._give_up()
        finally:
            accepting.should_exit = True
            if self._engine is None:
                accepting.force_exit = True
            await asyncio.wait(tasks[:1], timeout=LISTENER_S)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for number in (*_SIGNALS, signal.SIGHUP):
                loop.remove_signal_handler(number)
            logging.getLogger().removeHandler(bridge)

    async def _load(self) -> bool:
        """Whether an engine is there; False when a signal came first."""
        opening = asyncio.ensure_future(self._open_engine())
        stopped = asyncio.create_task(self._stop.wait())
        await asyncio.wait((opening, stopped), return_when=asyncio.FIRST_COMPLETED)
        if self._stop.is_set():
            opening.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await (await opening).close()
            return False
        stopped.cancel()
        engine = Metered(opening.result(), self._metrics)
        engine.replace_tenants(self._callers.tenants(engine.facts.num_blocks))
        app = self._make_app(engine, self._operations)
        self._journal.know(getattr(app, "routes", ()))
        self._engine, self._gate.app = engine, app
        facts = engine.facts
        self._log.write(
            "ready",
            model=facts.model,
            dtype=facts.dtype,
            contract=facts.contract_id,
            context=facts.limits.context,
            kv_tokens=facts.num_blocks * facts.block_size,
        )
        self._on_ready(engine)
        return True

    async def _until_told(self) -> None:
        """Wait for a signal, or for the engine to have ended by itself."""
        assert self._engine is not None
        while not self._stop.is_set() and self._engine.status().state != "closed":
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), LOOK_S)

    async def _give_up(self) -> NoReturn:
        """Raises EngineError, when whoever waits has been told."""
        assert self._engine is not None
        why = self._engine.status().why
        self._log.write("engine_ended", "error", said=why)
        error = unavailable("engine_unavailable", "The engine has ended, and the server with it.")
        self._gate.closed = error
        await self._close(self._engine, error)
        raise EngineError(f"the engine has ended: {why or 'nobody knows why'}", "The server has to be started again.")

    async def _end(self) -> int:
        """Drain, and close the engine."""
        assert self._engine is not None
        error = from_exception(EngineUnavailable("", state="draining"))
        self._gate.closed = error
        self._log.write("draining", requests=len(self._gate.visits), seconds=self.settings.drain_s)
        self._on_leaving()
        draining = asyncio.create_task(self._drain(self._engine))
        hurried = asyncio.create_task(self._hurry.wait())
        await asyncio.wait((draining, hurried), timeout=self.settings.drain_s, return_when=asyncio.FIRST_COMPLETED)
        is_whole = draining.done() and not draining.cancelled() and draining.exception() is None
        for task in (draining, hurried):
            task.cancel()
        cut = [visit for visit in self._gate.visits if visit.is_counted]
        await self._close(self._engine, error)
        self._log.write("closed", cut=len(cut))
        return 0 if is_whole and not cut and not self._hurry.is_set() else 128 + self._signals[-1]

    async def _drain(self, engine: AsyncEngine) -> None:
        await engine.drain(self.settings.drain_s)
        while any(visit.is_counted for visit in self._gate.visits):
            await asyncio.sleep(0.02)

    async def _close(self, engine: AsyncEngine, error: ApiError) -> None:
        """End what still runs: the engine says so to each request, and the gate to those it does not reach.

        An engine may then take its time, to save its cache, unless a second signal comes.
        """
        closing = asyncio.create_task(engine.close())
        with suppress(TimeoutError):
            async with asyncio.timeout(LAST_WORDS_S):
                while any(visit.is_counted for visit in self._gate.visits):
                    await asyncio.sleep(0.02)
        with suppress(TimeoutError):
            async with asyncio.timeout(LAST_WORDS_S):
                await self._gate.end(error)
        hurried = asyncio.create_task(self._hurry.wait())
        await asyncio.wait((closing, hurried), timeout=CLOSE_S, return_when=asyncio.FIRST_COMPLETED)
        await asyncio.wait((closing,), timeout=LAST_WORDS_S)
        for task in (closing, hurried):
            task.cancel()
        failure = (await asyncio.gather(closing, hurried, return_exceptions=True))[0]
        if isinstance(failure, BaseException):
            self._log.write_exception("close_failed", failure)

    # -- signals

    def _take_signal(self, number: int) -> None:
        self._signals.append(number)
        self._log.write("signal", name=signal.Signals(number).name, count=len(self._signals))
        (self._hurry if self._stop.is_set() else self._stop).set()

    def reload(self) -> None:
        """Read the keys file again; one that is wrong changes nothing."""
        if self._keys_file is None:
            self._log.write("reload", "warning", said="there is no keys file to read again")
            return
        try:
            keys = read_keys(self._keys_file)
        except KeysError as error:
            self._log.write("reload_failed", "error", said=str(error))
            return
        self._callers.replace(keys)
        facts = self.facts()
        if self._engine is not None and facts is not None:
            self._engine.replace_tenants(self._callers.tenants(facts.num_blocks))
        revoked = unauthenticated("The key of this request was revoked.")
        task = asyncio.get_running_loop().create_task(self._gate.end_revoked(revoked))
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)
        self._log.write("reload", tenants=len(keys.grants))


def _as_draining(status: Status) -> Status:
    return replace(status, state="draining")


def _not_yet(routes: Sequence[BaseRoute]) -> App:
    """Answers before there is an engine: the operations, and for everything else that it is loading."""

    async def loading(scope: Any, receive: Any, send: Any) -> None:
        raise EngineUnavailable("", state="loading", retry_after_s=2)

    return Router(routes, redirect_slashes=False, default=loading)
