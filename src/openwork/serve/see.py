"""/see: the microscope on a server that allows it. A page that holds nothing, and documents for whoever may see them.

    GET  /see                                 the page
    GET  /see/api/requests                    the caller's own requests of the recording
    GET  /see/api/requests/ID/DOCUMENT        one document of one of them (trace/view/documents.py lists them)
    GET  /see/api/requests/ID/progress        how far that is, while it is computed: {"stage", "done", "total"}
    POST /see/api/requests/ID/fork            another token at a place, and what the engine makes of it

A tenant sees its own requests and nobody else's: another's is as if it were not there. Nothing is computed here: what
is shown is asked of a desk (trace/view/desk.py), which a server has in a process of its own (cluster/glass.py). It
knows neither how a recording lies on disk nor how a model is opened.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Annotated, Any, Protocol, TypeVar

from msgspec import Meta
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from openwork.core.errors import MemoryTooSmall, Overloaded, RequestError, TraceError
from openwork.core.event import Event, Token
from openwork.core.request import Limits, Request
from openwork.serve.app import Endpoint
from openwork.serve.call import Call, Watch
from openwork.serve.errors import ApiError, bad_request
from openwork.serve.schema.reading import Body, read
from openwork.trace.page import as_json, page, policy
from openwork.trace.recording import Recording
from openwork.trace.view.desk import Answer, Desk, OpenView, Question
from openwork.trace.view.fork import fork_document
from openwork.trace.view.lamp import Lamp

MOST_WAITING = 32
REQUEST_S = 120.0
Result = TypeVar("Result")
Place = Annotated[int, Meta(ge=0, le=2**31 - 1)]
Ask = Callable[[Request, str], Awaitable[list[Event]]]  # (request, tenant) -> all its events


class ForkBody(Body, frozen=True, kw_only=True):
    """The token that is to stand at a position of one sequence, instead of the one that was chosen."""

    sequence: Place = 0
    position: Place
    token: Place


class Looking(Protocol):
    """A desk somewhere: beside the event loop, or in a process of its own."""

    async def ask(self, question: Question) -> Answer:
        """Raises what the desk raises; Overloaded when too many wait, EngineUnavailable when there is no answer."""
        ...

    def far(self, tenant: str | None, id: str) -> tuple[str, int, int]:
        """How far the answer in hand is, if it is of this request and for this tenant: stage, done, of."""
        ...

    def close(self) -> None: ...


class See:
    """``looking`` answers questions. ``ask`` has the engine compute a request; None: nothing can be forked here.

    ``own_only``: callers see their tenant's requests; else everything, for whoever opened a recording of his own.
    """

    def __init__(
        self,
        looking: Looking,
        ask: Ask | None,
        limits: Callable[[], Limits],
        own_only: bool = True,
        request: str | None = None,
        about: dict[str, Any] | None = None,
    ) -> None:
        self._looking = looking
        self._ask = ask
        self._limits = limits
        self._own_only = own_only
        self._request = request  # the one that is shown first
        self._about = about or {}  # what else the page is told

    def routes(self) -> list[Route]:
        api = "/see/api/requests"
        return [
            Route("/see", self._page, methods=["GET"]),
            Route(api, Endpoint(self._list), methods=["GET"]),
            Route(api + "/{id}/fork", Endpoint(self._fork), methods=["POST"]),
            Route(api + "/{id}/progress", Endpoint(self._progress), methods=["GET"]),
            Route(api + "/{id}/{document:path}", Endpoint(self._document), methods=["GET"]),
        ]

    def close(self) -> None:
        self._looking.close()

    # -- answers -------------------------------------------------------------------------------------------------

    async def _page(self, request: Any) -> Response:
        data: dict[str, Any] = {"live": True, "request": None, "first": self._request, "documents": {}, "left_out": ""}
        headers = {"content-security-policy": policy(True), "x-content-type-options": "nosniff"}
        headers |= {"referrer-policy": "no-referrer", "cache-control": "no-store"}
        return HTMLResponse(page(data | {"can_fork": self._ask is not None} | self._about, True), headers=headers)

    async def _list(self, call: Call) -> None:
        async with Watch(call, REQUEST_S):
            answer = await self._put(Question(kind="requests", tenant=self._tenant(call)))
        await call.answer(answer.document, headers=_PRIVATE)

    async def _progress(self, call: Call) -> None:
        """At once, whatever is being computed."""
        stage, done, total = self._looking.far(self._tenant(call), call.scope["path_params"]["id"])
        await call.answer({"stage": stage, "done": done, "total": total}, headers=_PRIVATE)

    async def _document(self, call: Call) -> None:
        place = call.scope["path_params"]
        async with Watch(call, REQUEST_S):
            answer = await self._of(call, Question(kind="document", id=place["id"], path=place["document"]))
        await call.answer(answer.document, headers=_PRIVATE)

    async def _fork(self, call: Call) -> None:
        body = read(await call.body(), ForkBody)
        if self._ask is None:
            raise bad_request("There is no engine here that could go on from there.")
        question = Question(
            kind="fork",
            id=call.scope["path_params"]["id"],
            sequence=body.sequence,
            position=body.position,
            token=body.token,
            limits=self._limits(),
        )
        async with Watch(call, REQUEST_S):
            asked = (await self._of(call, question)).request
            assert asked is not None, "a fork is answered by a request"
            if self._own_only:
                asked = replace(asked, terms=call.caller.terms())
            with call.caller.reserve(len(asked.prompt) + asked.max_tokens):
                events = await self._ask(asked, call.caller.tenant)
            said = (body.token, *(event.choice.token for event in events if isinstance(event, Token)))
            texts = (await self._put(Question(kind="texts", tokens=said))).texts
        document = fork_document(body.token, events, dict(zip(said, texts, strict=True)).get)
        await call.answer(as_json(document).encode(), headers=_PRIVATE)

    # -- questions -----------------------------------------------------------------------------------------------

    async def _of(self, call: Call, question: Question) -> Answer:
        """The answer to a question about one request, if the caller may see it: that is decided here, before anything
        is asked about it."""
        tenant = self._tenant(call)
        if tenant is not None:
            owner = (await self._put(Question(kind="whose", id=question.id))).tenant
            if owner != tenant:
                raise _no_request()
        return await self._put(replace(question, tenant=tenant))

    async def _put(self, question: Question) -> Answer:
        """Raises ApiError for whatever cannot be shown."""
        try:
            return await self._looking.ask(question)
        except RequestError as error:
            if error.param == "id":
                raise _no_request() from None
            raise
        except MemoryTooSmall:
            raise bad_request("This request is too long to be computed again in the memory there is.") from None
        except TraceError:  # its message names a directory of the operator's
            raise bad_request("The recording cannot be read.", code="no_recording") from None

    def _tenant(self, call: Call) -> str | None:
        return call.caller.tenant if self._own_only else None


def _no_request() -> ApiError:
    return ApiError(404, "not_found_error", "not_found", "There is no such request here.", "id")


_PRIVATE = {"cache-control": "no-store"}


class InThread:
    """A desk in one thread beside the event loop, for a page that nobody else is served beside."""

    def __init__(
        self,
        open_recording: Callable[[], Recording],
        open_lamp: Callable[[], Lamp],
        open_view: OpenView | None = None,
    ) -> None:
        self._desk = Desk(open_recording, open_lamp, self._tell, open_view)
        self._thread = ThreadPoolExecutor(1, "openwork-see")
        self._waiting = 0
        self._question: Question | None = None
        self._far = ("", 0, 0)

    async def ask(self, question: Question) -> Answer:
        return await self.run(lambda: self._answer(question))

    async def run(self, work: Callable[[], Result]) -> Result:
        """Do something else in that thread. Raises Overloaded when too many wait."""
        if self._waiting >= MOST_WAITING:
            raise Overloaded("too many look through the microscope at once", is_own=False)
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work)
        finally:
            self._waiting -= 1

    def far(self, tenant: str | None, id: str) -> tuple[str, int, int]:
        now = self._question
        return self._far if now is not None and (now.tenant, now.id) == (tenant, id) else ("", 0, 0)

    def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _answer(self, question: Question) -> Answer:
        self._question, self._far = question, ("", 0, 0)
        try:
            return self._desk.answer(question)
        finally:
            self._question = None

    def _tell(self, stage: str, done: int, total: int) -> None:
        self._far = stage, done, total
