"""Serving: the parts of a server put together, as the command line asked: keys, socket, engine process, routes.

Keys, secret and address are had before anything is loaded. It knows no options.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from openwork.cli import terminal
from openwork.cli.progress import Bars

if TYPE_CHECKING:
    from starlette.routing import BaseRoute

    from openwork.cluster.remote import RemoteEngine
    from openwork.cluster.supervisor import Service
    from openwork.engine.face import AsyncEngine, Facts
    from openwork.serve.bounds import Bounds
    from openwork.serve.callers import Callers
    from openwork.serve.gate import App
    from openwork.serve.logs import Log
    from openwork.serve.see import See
    from openwork.serve.settings import ServeSettings
    from openwork.serve.texts import Language


class Serving:
    """Everything a server needs, put together; ``run`` serves until it ends and gives the exit code."""

    def __init__(
        self,
        settings: ServeSettings,
        service: Service,
        bounds: Bounds,
        forms: tuple[str, str],  # of tool calls and of reasoning
        keys_file: Path | None,
        cache_dir: Path | None,
        log_format: str,
    ) -> None:
        from openwork.serve.listening import bind

        self._settings = settings
        self._service = service
        self._bounds = bounds
        self._forms = forms
        self._keys_file = keys_file
        self._is_watched = terminal.is_terminal(sys.stderr)
        self._is_human = log_format == "human" or (log_format == "auto" and self._is_watched)
        self._callers = _callers(keys_file, cache_dir)
        self._socket = bind(settings)
        self._address = self._socket.getsockname()[:2]
        self._language: Language | None = None
        self._see: See | None = None
        self._closers: list[Callable[[], None]] = []

    def run(self) -> int:
        from openwork import __version__
        from openwork.load.source import EMBEDDED
        from openwork.serve.logs import Log
        from openwork.serve.metrics import Metrics
        from openwork.serve.server import Server

        log = Log(sys.stderr, self._is_human)
        self._warn(log)
        log.write("listening", host=self._address[0], port=self._address[1])
        name = self._service.name or str(self._service.model or EMBEDDED)

        async def live() -> int:
            server = Server(
                self._settings,
                self._callers,
                log,
                Metrics(name),
                open_engine=self._open_engine,
                make_app=self._make_app,
                version=__version__,
                bounds=asdict(self._bounds),
                keys_file=self._keys_file,
                on_ready=self._announce,
                on_leaving=self._leave,
            )
            return await server.run(self._socket)

        try:
            return asyncio.run(live())
        finally:
            self._socket.close()
            for close in self._closers:
                close()
            log.close()

    async def _open_engine(self) -> RemoteEngine:
        """The engine, when what it knows of text can be used too. Raises ModelError where that is damaged."""
        from openwork.cluster.remote import RemoteEngine
        from openwork.serve.texts import load_language

        with Bars() as bars:
            engine = RemoteEngine(self._service, progress=bars)
            await engine.start()
        try:
            facts = engine.facts
            self._language = await asyncio.to_thread(load_language, facts.directory, facts.limits.context, *self._forms)
        except BaseException:
            await engine.close()
            raise
        return engine

    def _make_app(self, engine: AsyncEngine, more: Sequence[BaseRoute]) -> App:
        from openwork import __version__
        from openwork.serve.app import Service, make_app

        service = Service(engine, self._bounds, *self._forms, version=__version__, language=self._language)
        self._closers.append(service.close)
        if self._settings.allow_see:
            from openwork.cli.lighting import see_of

            self._see = see_of(self._service, engine)
            self._closers.append(self._see.close)
            more = [*more, *self._see.routes()]
        return make_app(service, more)

    def _leave(self) -> None:
        """What is looked into is not waited for, as those who are being served are."""
        if self._see is not None:
            self._see.close()

    def _warn(self, log: Log) -> None:
        if self._keys_file is not None:
            from openwork.serve.keys import is_readable_by_others

            if is_readable_by_others(self._keys_file):
                log.write("keys_file", "warning", said="others can read it", hint="chmod 600")
        elif not self._settings.is_loopback:
            log.write("open_to_anyone", "warning", said="whoever reaches this address may use it")

    def _announce(self, engine: AsyncEngine) -> None:
        if self._is_watched:
            has_keys = self._keys_file is not None
            terminal.write(startup_text(engine.facts, self._address, has_keys), sys.stderr)


def startup_text(facts: Facts, address: tuple[str, int], has_keys: bool) -> str:
    """What is served, where, and a line to try it with."""
    host = f"[{address[0]}]" if ":" in address[0] else address[0]
    url = f"http://{host}:{address[1]}/v1"
    slots = facts.num_blocks * facts.block_size
    key = " -H 'Authorization: Bearer KEY'" if has_keys else ""
    body = f'{{"model": "{facts.model}", "prompt": "Once upon a time", "max_tokens": 50}}'
    return (
        f"\n  {facts.model} in {facts.dtype}, {facts.threads} threads\n"
        f"  {url}\n"
        f"  context {facts.limits.context} tokens; the cache holds {slots} in {facts.num_blocks} blocks "
        f"({facts.kv_dtype})\n"
        "  all bounds: GET /v1/limits\n\n"
        f"  curl {url}/completions{key} -H 'Content-Type: application/json' \\\n    -d '{body}'\n\n"
    )


def _callers(keys_file: Path | None, cache_dir: Path | None) -> Callers:
    from openwork.serve.callers import Callers
    from openwork.serve.keys import read_keys
    from openwork.serve.secret import server_secret

    keys = None if keys_file is None else read_keys(keys_file)
    return Callers(keys, server_secret(cache_dir))
