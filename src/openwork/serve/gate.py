"""Gate: every request passes it before any route, and every answer on its way out. A pure ASGI middleware.

It guarantees that no route is reached without a key except those listed here by their raw path, that each answer has an
id of ours and each failure the one body of errors.py, whoever made it, and that an answer it ends early never looks
whole. It knows no route, no model and no JSON of requests.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from contextlib import suppress
from typing import Any, Protocol

from openwork.serve.callers import Caller, Callers
from openwork.serve.door import Door
from openwork.serve.errors import ApiError, from_exception
from openwork.serve.head import empty_body
from openwork.serve.ids import harmless_label, new_request_id

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

_WITH_BODY = ("POST", "PUT", "PATCH")
_PLAIN = {  # what a router says in its own words, in ours
    404: ("not_found_error", "not_found", "There is nothing at this path."),
    405: ("invalid_request_error", "method_not_allowed", "This path does not take this method."),
}


class Journal(Protocol):
    """Hears of every request when it is over, and of failures nobody expected."""

    def visited(self, visit: Visit) -> None: ...
    def failed(self, error: BaseException, request_id: str) -> None: ...


class Gate:
    """``app`` may be changed while serving; ``closed`` is what new requests are told when set."""

    def __init__(self, app: App, door: Door, callers: Callers, journal: Journal) -> None:
        self.app = app
        self.closed: ApiError | None = None
        self.visits: set[Visit] = set()
        self._door = door
        self._callers = callers
        self._journal = journal

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        visit = Visit(scope, receive, send)
        self.visits.add(visit)
        try:
            await self._serve(visit)
        finally:
            self.visits.discard(visit)
            self._journal.visited(visit)

    async def _serve(self, visit: Visit) -> None:
        try:
            self._admit(visit)
            if visit.is_preflight:
                await visit.send({"type": "http.response.start", "status": 204, "headers": []})
                await visit.send({"type": "http.response.body", "body": b""})
            else:
                await self.app(visit.scope, visit.receive, visit.send)
        except (KeyboardInterrupt, SystemExit, asyncio.CancelledError):
            raise
        except BaseException as error:  # a panic of native code is no Exception
            await self._fail(visit, _inner(error))

    def _admit(self, visit: Visit) -> None:
        """Raises ApiError unless the request may go on."""
        scope = visit.scope
        visit.answer_headers.update(self._door.check(scope))
        visit.is_preflight = self._door.is_preflight(scope)
        if visit.is_preflight or self._door.is_public(scope):
            visit.is_counted = False
            return
        visit.caller = self._callers.identify(scope["headers"])
        scope["state"]["caller"] = visit.caller
        if self.closed is not None and not self._door.is_operation(scope):
            raise self.closed

    async def _fail(self, visit: Visit, error: BaseException) -> None:
        answer = from_exception(error, visit.request_id)
        if visit.is_gone or visit.is_ended:
            return
        if answer.status == 500:
            self._journal.failed(error, visit.request_id)
        with suppress(OSError):  # the client went while it was told
            await visit.fail(answer)

    async def end(self, error: ApiError, is_meant: Callable[[Visit], bool] = lambda visit: True) -> None:
        """End answers that are under way, each with this error where it can still be said."""
        meant = [visit for visit in self.visits if is_meant(visit)]
        await asyncio.gather(*(visit.end(error) for visit in meant), return_exceptions=True)

    async def end_revoked(self, error: ApiError) -> None:
        """End what runs for callers whose key no longer opens the door."""
        await self.end(error, lambda visit: visit.caller is not None and not self._callers.is_welcome(visit.caller))


class Visit:
    """One request at the gate, and what has been answered so far."""

    def __init__(self, scope: Message, receive: Receive, send: Send) -> None:
        self.scope = scope
        self.request_id = new_request_id()
        self.caller: Caller | None = None
        self.status = 0  # 0: nothing was answered
        self.code = ""  # of the error, if it was one
        self.sent_bytes = 0
        self.is_whole = False
        self.is_gone = False
        self.is_preflight = False
        self.is_counted = True  # among the requests that a drain waits for
        self.began = time.monotonic()
        self.answer_headers: dict[str, str] = {"x-request-id": self.request_id}
        self._receive = receive
        self._send = send
        self._is_ended = asyncio.Event()
        self._is_event_stream = False
        self._has_body = False
        scope.setdefault("state", {})["request_id"] = self.request_id
        labels = [value for name, value in scope["headers"] if name == b"x-request-id"]
        self.label = harmless_label(labels[0]) if len(labels) == 1 else ""
        if self.label:
            self.answer_headers["x-client-request-id"] = self.label

    @property
    def is_ended(self) -> bool:
        """Whether the gate has answered in place of the application."""
        return self._is_ended.is_set()

    # -- what the application sees

    async def receive(self) -> Message:
        """As the server's, but that whoever reads a body gets one that says it is JSON, or ApiError 415 or 400."""
        if not self._has_body and self.scope["method"] in _WITH_BODY:
            self._check_media_type()
        message = await self._receive_unless_ended()
        if message["type"] == "http.disconnect":
            self.is_gone = self.is_gone or not self.is_whole
        elif not self._has_body and self.scope["method"] in _WITH_BODY:
            self._has_body = True
            if not message.get("body") and not message.get("more_body"):
                raise empty_body()
        return message

    async def send(self, message: Message) -> None:
        if self._is_ended.is_set():
            raise ConnectionResetError("the answer was ended")
        if self.is_whole:
            return
        if message["type"] == "http.response.start":
            if await self._translate(message):
                return
            kept = {name.lower() for name, _ in message.get("headers", ())}
            self._begin(message["status"], message.get("headers", ()))
            added = [(n, v) for n, v in self._own_headers() if n not in kept]
            message = {**message, "headers": [*message.get("headers", ()), *added]}
        else:
            self.sent_bytes += len(message.get("body", b""))
            self.is_whole = not message.get("more_body", False)
        try:
            await self._send(message)
        except OSError:
            self.is_gone, self.is_whole = True, False
            raise

    # -- what the gate does

    async def fail(self, error: ApiError) -> None:
        """Answer with an error, or end a stream with one. Raises the error when neither is possible any more."""
        if self.is_whole or self._is_ended.is_set():
            return
        self.code = error.code or error.type
        if self.status == 0:
            body = json.dumps(error.body()).encode()
            headers = {**error.all_headers(), "content-type": "application/json", "content-length": str(len(body))}
            self._begin(error.status, ())
            await self._finish_with(_raw({**self._rates(), **self.answer_headers, **headers}), body)
        elif self._is_event_stream:
            self.is_whole = True
            event = b"data: " + json.dumps(error.body()).encode() + b"\n\n"
            await self._send({"type": "http.response.body", "body": event})
        else:
            raise error  # the connection cuts what it has to call unfinished

    async def end(self, error: ApiError) -> None:
        """Answer in place of the application, which sees that the client is gone."""
        if self.is_whole or self._is_ended.is_set():
            return
        try:
            with suppress(ApiError, OSError):  # left unfinished, and therefore cut
                await self.fail(error)
        finally:
            self._is_ended.set()

    async def _finish_with(self, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
        self.is_whole = True
        self.sent_bytes = len(body)
        await self._send({"type": "http.response.start", "status": self.status, "headers": headers})
        await self._send({"type": "http.response.body", "body": body})

    async def _translate(self, message: Message) -> bool:
        """Put our words in place of an error that a framework made; whether it was one."""
        headers = {name.lower(): value for name, value in message.get("headers", ())}
        kind, status = headers.get(b"content-type", b""), message["status"]
        if status < 400 or kind.startswith((b"application/json", b"text/event-stream")):
            return False
        type_, code, words = _PLAIN.get(status, ("server_error", "internal_error", "The request failed."))
        if status not in _PLAIN and status < 500:
            type_, code = "invalid_request_error", "invalid_value"
        allow = {"Allow": headers[b"allow"].decode("latin-1")} if b"allow" in headers else {}
        await self.fail(ApiError(status, type_, code, words, headers=allow))
        return True

    async def _receive_unless_ended(self) -> Message:
        theirs = asyncio.ensure_future(self._receive())
        ours = asyncio.ensure_future(self._is_ended.wait())
        try:
            await asyncio.wait((theirs, ours), return_when=asyncio.FIRST_COMPLETED)
            return theirs.result() if theirs.done() else {"type": "http.disconnect"}
        finally:
            for each in (theirs, ours):
                each.cancel()

    def _check_media_type(self) -> None:
        kinds = [value for name, value in self.scope["headers"] if name == b"content-type"]
        kind = kinds[0].partition(b";")[0].strip().lower() if len(kinds) == 1 else b""
        if kind != b"application/json":
            raise ApiError(
                415,
                "invalid_request_error",
                "unsupported_media_type",
                "The body must be JSON, and say so: 'Content-Type: application/json'.",
            )

    def _begin(self, status: int, headers: Any) -> None:
        self.status = status
        kinds = [value for name, value in headers if name.lower() == b"content-type"]
        self._is_event_stream = bool(kinds) and kinds[0].startswith(b"text/event-stream")

    def _rates(self) -> Mapping[str, str]:
        return {} if self.caller is None else self.caller.headers()

    def _own_headers(self) -> list[tuple[bytes, bytes]]:
        return _raw({**self._rates(), **self.answer_headers})


def _raw(headers: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.lower().encode("ascii"), value.encode("latin-1")) for name, value in headers.items()]


def _inner(error: BaseException) -> BaseException:
    """What a group of one holds: task groups wrap what happens in them."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error
