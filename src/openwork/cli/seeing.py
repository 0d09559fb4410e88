"""Seeing: a recording and the model that lights it up, put together for a page, a file or JSON.

The model is the one that was recorded, in the same number formats, unless another is named; it is opened when a row is
first looked into. The page is served to this machine alone, behind a key of its own. It knows no options.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from openwork.cli.lighting import light
from openwork.core.errors import RequestError
from openwork.core.event import Event
from openwork.core.request import Limits
from openwork.core.settings import LoadSettings
from openwork.trace.coding.thaw import Known
from openwork.trace.entry import Pictured, Submitted
from openwork.trace.recording import Recording
from openwork.trace.view.against import Beside
from openwork.trace.view.desk import Told
from openwork.trace.view.documents import View
from openwork.trace.view.lamp import Lamp

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
        against: str | None = None,
        against_record: Path | None = None,
    ) -> None:
        """``against`` is a request to be shown beside, of this recording or of that in ``against_record``."""
        self.recording = Recording.open(directory)
        self._model = model
        self._has_model = has_model
        self._examine_bytes = examine_bytes
        self._threads = threads
        self._backend = backend
        self._has_ceilings = has_ceilings
        self._engine: Engine | None = None
        self._lamps: dict[tuple[str, str, str, str, int | None], Lamp] = {}
        self._against = against
        self._other: Seeing | None = None
        if against_record is not None:
            self._other = Seeing(
                against_record,
                model=model,
                has_model=has_model,
                examine_bytes=examine_bytes,
                threads=threads,
                backend=backend,
            )
            self._other._lamps = self._lamps  # one model is opened once
        if against is not None:
            (self._other or self).recording.request(against)

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

    def view(self, id: str, told: Told = lambda stage, done, total: None) -> View:
        """A request, lit by the model as the process that served it had opened it. Raises RequestError."""
        lamp = self.lamp(self.recording.run_of(id))
        return View(self.recording, id, lamp, told=told, beside=self._beside())

    def _beside(self) -> Beside:
        other = self._other
        if other is None:
            return Beside(here=self.view, first=self._against)
        name = other.recording.directory.resolve().name
        return Beside(
            here=self.view, there=other.view, stories=other.recording.requests, label=name, first=self._against
        )

    def _about(self) -> dict[str, Any]:
        """What the page is told about the run it begins beside."""
        return {"against": self._other is not None, "beside": self._against}

    # -- three answers -------------------------------------------------------------------------------------------

    def documents(self, id: str, paths: Sequence[str] | None) -> dict[str, Any]:
        """The documents by their paths; all of the request but its layers, when no paths are named."""
        view = self.view(id)
        if paths:
            return {path: view.document(path) for path in paths}
        from openwork.trace.view.file import file_documents

        return file_documents(view, 1 << 40, False)[0]

    def file(self, id: str, max_bytes: int) -> str:
        """A page that holds its documents."""
        from openwork.trace.page import page
        from openwork.trace.view.file import file_documents

        documents, left_out = file_documents(self.view(id), max_bytes)
        about = {"live": False, "request": id, "left_out": left_out, "can_fork": False, **self._about()}
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

        looking = InThread(lambda: self.recording, self.lamp, self.view)
        see = See(looking, ask, self._limits, own_only=False, request=id, about=self._about())
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

    def lamp(self, run: int | None = None) -> Lamp:
        """What lights up what an engine process served, the last one if none is named; made once."""
        if not self._has_model:
            return Lamp(dark="No model was opened (--no-model), so rows cannot be computed again.")
        began = self._began(run)
        load = self._load(began)
        model = self._model or began.model
        key = (model, began.dtype, began.kv_dtype, began.contract_id, load.context)
        if key not in self._lamps:
            self._lamps[key] = light(model, load, began.contract_id, self._examine_bytes, self._has_ceilings)
        return self._lamps[key]

    def _load(self, began: Began) -> LoadSettings:
        """As it was loaded when it was recorded. A window in the file may change what positions mean."""
        return LoadSettings(
            dtype=began.dtype,
            kv_dtype=began.kv_dtype,
            context=self._context,
            threads=self._threads,
            backend=self._backend,
        )

    @cached_property
    def _context(self) -> int | None:
        """The window of the first request that is there; None where there is none."""
        for entry in self.recording.entries():
            match entry:
                case Submitted(request=request) | Pictured(known=[Known(request=request), *_]):
                    return request.limits.context
        return None

    def _began(self, run: int | None = None) -> Began:
        """The beginning of an engine process: of the last one, if none is named or its own is lost."""
        processes = self.recording.processes
        return next((began for began in processes if began.run == run), processes[-1])

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
            began = self._began()
            self._engine = build(self._model or began.model, self._load(began), ScheduleSettings()).engine
        stream, events = self._engine.submit(request), list[Event]()
        while not stream.has_ended:
            self._engine.turn()
            events += stream.take()
        return events + stream.take()
