"""/see: the microscope on a server that allows it. A page that holds nothing, and documents for whoever may see them.

    GET  /see                                 the page
    GET  /see/api/requests                    the caller's own requests of the recording
    GET  /see/api/requests/ID/DOCUMENT        one document of one of them (trace/view.py lists them)
    POST /see/api/requests/ID/fork            another token at a place, and what the engine makes of it

A tenant sees its own requests and nobody else's: another's is as if it were not there. Everything is computed in one
thread beside the event loop, and only so many wait for it. It knows neither how a recording lies on disk nor how a
model is opened.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Annotated, Any, TypeVar

from msgspec import Meta
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from openwork.core.errors import MemoryTooSmall, RequestError, TraceError
from openwork.core.event import Event
from openwork.core.request import Limits, Request
from openwork.serve.app import Endpoint
from openwork.serve.call import Call, Watch
from openwork.serve.errors import ApiError, bad_request, unavailable
from openwork.serve.schema.reading import Body, read
from openwork.trace.entry import Entry
from openwork.trace.page import as_json, page, policy
from openwork.trace.view import Lamp, View, requests_document
from openwork.trace.view_fork import fork_document, fork_request

MOST_VIEWS = 2  # requests that are kept open; each holds keys and values of the sequences that were looked into
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


class See:
    """``entries`` gives the lines of the recording anew; ``open_lamp`` loads what lights it up, once, when it is used.

    ``ask`` has the engine compute a request; None: nothing can be forked here. ``own_only``: callers see their tenant's
    requests; else everything, for whoever opened a recording of his own.
    """

    def __init__(
        self,
        entries: Callable[[], Iterable[Entry]],
        open_lamp: Callable[[], Lamp],
        ask: Ask | None,
        limits: Callable[[], Limits],
        own_only: bool = True,
        request: str | None = None,
        view: Callable[[str], View] | None = None,
        about: dict[str, Any] | None = None,
    ) -> None:
        self._entries = entries
        self._open_lamp = open_lamp
        self._ask = ask
        self._limits = limits
        self._own_only = own_only
        self._request = request  # the one that is shown first
        self._make_view = view  # None: a view lit by the lamp
        self._about = about or {}  # what else the page is told
        self._lamp: Lamp | None = None
        self._views: OrderedDict[tuple[str, str], View] = OrderedDict()
        self._waiting = 0
        self._thread = ThreadPoolExecutor(1, "openwork-see")

    def routes(self) -> list[Route]:
        api = "/see/api/requests"
        return [
            Route("/see", self._page, methods=["GET"]),
            Route(api, Endpoint(self._list), methods=["GET"]),
            Route(api + "/{id}/fork", Endpoint(self._fork), methods=["POST"]),
            Route(api + "/{id}/{document:path}", Endpoint(self._document), methods=["GET"]),
        ]

    def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)

    # -- answers -------------------------------------------------------------------------------------------------

    async def _page(self, request: Any) -> Response:
        data: dict[str, Any] = {"live": True, "request": None, "first": self._request, "documents": {}, "left_out": ""}
        headers = {"content-security-policy": policy(True), "x-content-type-options": "nosniff"}
        headers |= {"referrer-policy": "no-referrer", "cache-control": "no-store"}
        return HTMLResponse(page(data | {"can_fork": self._ask is not None} | self._about, True), headers=headers)

    async def _list(self, call: Call) -> None:
        await self._answer(call, lambda: requests_document(self._entries(), self._may_see(call)))

    async def _document(self, call: Call) -> None:
        place = call.scope["path_params"]
        await self._answer(call, lambda: self._view(call, place["id"]).document(place["document"]))

    async def _fork(self, call: Call) -> None:
        body = read(await call.body(), ForkBody)
        if self._ask is None:
            raise bad_request("There is no engine here that could go on from there.")
        async with Watch(call, REQUEST_S):
            view = await self.run(partial(self._view, call, call.scope["path_params"]["id"]))
            terms = call.caller.terms() if self._own_only else None
            asked = fork_request(view.journey, body.sequence, body.position, body.token, self._limits(), terms)
            most = len(asked.prompt) + asked.max_tokens
            with call.caller.reserve(most):
                events = await self._ask(asked, call.caller.tenant)
            lamp = await self.run(self._light)
        await call.answer(_told(fork_document(body.token, events, lamp.text_of)), headers=_PRIVATE)

    async def _answer(self, call: Call, make: Callable[[], Any]) -> None:
        async with Watch(call, REQUEST_S):
            told = await self.run(lambda: _told(make()))
        await call.answer(told, headers=_PRIVATE)

    # -- beside the event loop -----------------------------------------------------------------------------------

    async def run(self, work: Callable[[], Result]) -> Result:
        """Raises ApiError for whatever cannot be shown, and when too many wait."""
        if self._waiting >= MOST_WAITING:
            raise unavailable("overloaded", "Too many look through the microscope at once.")
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work)
        except RequestError as error:
            if error.param == "id":
                raise ApiError(404, "not_found_error", "not_found", "There is no such request here.", "id") from None
            raise
        except MemoryTooSmall:
            raise bad_request("This request is too long to be computed again in the memory there is.") from None
        except TraceError:  # its message names a directory of the operator's
            raise bad_request("The recording cannot be read.", code="no_recording") from None
        finally:
            self._waiting -= 1

    def _view(self, call: Call, id: str) -> View:
        key = (call.caller.tenant, id)
        view = self._views.get(key)
        if view is None or not view.journey.story.is_over:
            view = self._views[key] = (
                View(self._entries, id, self._light(), self._may_see(call))
                if self._make_view is None
                else self._make_view(id)
            )
        self._views.move_to_end(key)
        while len(self._views) > MOST_VIEWS:
            self._views.popitem(last=False)
        return view

    def _light(self) -> Lamp:
        if self._lamp is None:
            self._lamp = self._open_lamp()
        return self._lamp

    def _may_see(self, call: Call) -> Callable[[str], bool]:
        if not self._own_only:
            return lambda tenant: True
        own = call.caller.tenant
        return lambda tenant: tenant == own


_PRIVATE = {"cache-control": "no-store"}


def _told(document: dict[str, Any]) -> bytes:
    return as_json(document).encode()
