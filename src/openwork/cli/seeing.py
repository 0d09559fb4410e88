"""Seeing: a recording and the model that lights it up, put together for a page, a file or JSON.

The model is the one that was recorded, in the same number formats, unless another is named; it is opened when a row is
first looked into. The page is served to this machine alone, behind a key of its own. It knows no options.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from openwork.cli.lighting import light
from openwork.core.errors import RequestError
from openwork.core.event import Event
from openwork.core.request import Limits
from openwork.core.settings import LoadSettings
from openwork.trace.recording import Recording
from openwork.trace.view import Lamp, View, requests_document

if TYPE_CHECKING:
    from openwork.core.request import Request
    from openwork.engine.service import Engine
    from openwork.trace.entry import Began


class Seeing:
    """Raises TraceError for a directory that holds no recording."""

    def __init__(
        self,
        directory: Path,
        *,
        model: str | None = None,
        has_model: bool = True,
        examine_bytes: int = 1 << 30,
        threads: int | None = None,
        backend: str = "auto",
        has_ceilings: bool = False,
    ) -> None:
        self.recording = Recording.open(directory)
        self._model = model
        self._has_model = has_model
        self._examine_bytes = examine_bytes
        self._threads = threads
        self._backend = backend
        self._has_ceilings = has_ceilings
        self._engine: Engine | None = None
        self._lamp: Lamp | None = None

    def __enter__(self) -> Seeing:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._engine is not None:
            self._engine.close()

    def named(self, id: str | None) -> str:
        """A request of the recording: this one, or the latest that said something. Raises TraceError, RequestError."""
        if id is not None:
            return self.recording.request(id).id
        for each in reversed(self.recording.ids):
            story = self.recording.request(each)
            if story.request is not None and story.lines:
                return each
        raise RequestError("has no request that said anything yet", param="record")

    def view(self, id: str) -> View:
        return View(self.recording, id, self.lamp())

    # -- three answers -------------------------------------------------------------------------------------------

    def documents(self, id: str, paths: Sequence[str] | None) -> dict[str, Any]:
        """The documents by their paths; all of the request but its layers, when no paths are named."""
        view = self.view(id)
        if paths:
            return {path: view.document(path) for path in paths}
        from openwork.trace.view_file import file_documents

        return file_documents(view, requests_document(self.recording), 1 << 40, False)[0]

    def file(self, id: str, max_bytes: int) -> str:
        """A page that holds its documents."""
        from openwork.trace.page import page
        from openwork.trace.view_file import file_documents

        requests = requests_document(self.recording)
        documents, left_out = file_documents(self.view(id), requests, max_bytes)
        about = {"live": False, "request": id, "left_out": left_out, "can_fork": False}
        return page({**about, "documents": documents}, is_live=False)

    def serve(self, id: str | None, port: int, announce: Callable[[str, tuple[str, ...]], None]) -> None:
        """Serve the page on this machine until interrupted."""
        try:
            asyncio.run(self._serve(id, port, announce))
        except KeyboardInterrupt:
            return

    async def _serve(self, id: str | None, port: int, announce: Callable[[str, tuple[str, ...]], None]) -> None:
        from starlette.routing import Router

        from openwork.serve.callers import Callers
        from openwork.serve.door import Door
        from openwork.serve.gate import Gate
        from openwork.serve.journal import Journal
        from openwork.serve.keys import Grant, Keys, digest_of, new_key
        from openwork.serve.listening import Listener, bind
        from openwork.serve.logs import Log
        from openwork.serve.metrics import Metrics
        from openwork.serve.see import InThread, See
        from openwork.serve.settings import ServeSettings

        settings = ServeSettings(port=port, allow_see=True)
        key, _ = new_key()
        grant = Grant(tenant="see", digests=frozenset({digest_of(key.encode())}), max_running=None)

        async def ask(request: Request, tenant: str) -> list[Event]:
            return await looking.run(lambda: self._compute(request))

        looking = InThread(lambda: self.recording, self.lamp)
        see = See(looking, ask, self._limits, own_only=False, request=id)
        with open(os.devnull, "w", encoding="utf-8") as nowhere:
            journal = Journal(Log(nowhere, True), Metrics("see"), see.routes())
            gate = Gate(
                Router(see.routes(), redirect_slashes=False),
                Door(settings),
                Callers(Keys([grant]), os.urandom(32)),
                journal,
            )
            socket = bind(settings)
            announce(f"http://127.0.0.1:{socket.getsockname()[1]}/see#key={key}", self.recording.damage)
            try:
                await Listener(gate, settings, journal).serve([socket])
            finally:
                see.close()

    # -- the model -----------------------------------------------------------------------------------------------

    def lamp(self) -> Lamp:
        """What lights the recording up, made once."""
        if self._lamp is None:
            self._lamp = self._light()
        return self._lamp

    def _light(self) -> Lamp:
        if not self._has_model:
            return Lamp(dark="No model was opened (--no-model), so rows cannot be computed again.")
        began = self.recording.processes[-1]
        return light(
            self._model or began.model, self._load(began), began.contract_id, self._examine_bytes, self._has_ceilings
        )

    def _load(self, began: Began) -> LoadSettings:
        """As it was loaded when it was recorded. A window in the file may change what positions mean."""
        stories = map(self.recording.request, self.recording.ids)
        context = next((story.request.limits.context for story in stories if story.request is not None), None)
        return LoadSettings(
            dtype=began.dtype,
            kv_dtype=began.kv_dtype,
            context=context,
            threads=self._threads,
            backend=self._backend,
        )

    def _limits(self) -> Limits:
        examiner = self.lamp().examiner
        if examiner is None:
            raise RequestError("is not open, so nothing can be computed", param="model")
        return examiner.limits

    def _compute(self, request: Request) -> list[Event]:
        """All events of a request, of an engine in this process that is made when it is first needed."""
        from openwork.build import build
        from openwork.core.settings import ScheduleSettings

        if self._engine is None:
            began = self.recording.processes[-1]
            self._engine = build(self._model or began.model, self._load(began), ScheduleSettings()).engine
        stream, events = self._engine.submit(request), list[Event]()
        while not stream.has_ended:
            self._engine.turn()
            events += stream.take()
        return events + stream.take()
