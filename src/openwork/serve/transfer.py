"""Transfer: one request on a connection and its answer, as an ASGI application sees them.

It guarantees that an answer is either sent whole or visibly cut off, that no more of it waits in memory than the bound
says, and that a request whose client is gone, whose body is too large, too slow or malformed says so to whoever reads.
It knows neither routes nor who calls.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, MutableMapping
from http import HTTPStatus
from typing import Any, Protocol
from urllib.parse import unquote

import h11

from openwork.serve.errors import ApiError

Message = MutableMapping[str, Any]
PIECE_BYTES = 64 * 1024  # an answer is written in pieces of this size, waiting for room before each
_PHRASES = {status.value: status.phrase.encode() for status in HTTPStatus}


class Line(Protocol):
    """What a transfer needs of its connection."""

    def write(self, data: bytes) -> None: ...
    async def room(self) -> None: ...
    def want_body(self) -> None: ...
    def answered(self, *, is_whole: bool) -> None: ...


class Transfer:
    """``feed`` and ``finish`` hand the body in, ``fail`` what is wrong with it, ``lose`` that the client is gone."""

    def __init__(self, line: Line, parser: h11.Connection, request: h11.Request, headers: list[Any]) -> None:
        self.is_answered = False
        self.has_begun = False  # the answer's head is written
        self.is_body_read = False
        self.is_event_stream = False
        self._line = line
        self._parser = parser
        self._is_head = request.method == b"HEAD"
        self._headers = headers  # of every answer
        self.is_last = False  # the connection ends with this answer
        self._is_handed_over = False  # all of the body
        self._must_continue = parser.they_are_waiting_for_100_continue
        self._body = bytearray()
        self._failure: ApiError | None = None
        self._is_lost = False
        self._writing = asyncio.Lock()
        self._news = asyncio.Event()

    # -- from the connection

    @property
    def held_bytes(self) -> int:
        """Of the body, not yet asked for."""
        return len(self._body)

    def feed(self, data: bytes) -> None:
        self._body += data
        self._news.set()

    def finish(self) -> None:
        self.is_body_read = True
        self._news.set()

    def fail(self, error: ApiError) -> None:
        """Whoever reads the body gets this error instead."""
        self._failure = self._failure or error
        self.is_last = True
        self._news.set()

    def lose(self) -> None:
        self._is_lost = True
        self._news.set()

    def probe(self) -> None:
        """Write what changes nothing in an answer, to learn whether anybody still listens; nothing when all would."""
        if self._is_lost or self.is_answered or self._writing.locked():
            return
        if not self.has_begun:
            self._send(h11.InformationalResponse(status_code=100, headers=[], reason=b"Continue"))
        elif self.is_event_stream:
            self._send(h11.Data(data=b":\n\n"))

    # -- to the application

    async def run(self, app: Callable[..., Any], scope: Message) -> None:
        """Let the application answer. What it leaves unfinished is cut off; nothing is raised but CancelledError."""
        try:
            await app(scope, self.receive, self.send)
        finally:
            if not self.is_answered:
                self.is_answered = True
                self._line.answered(is_whole=False)

    async def receive(self) -> Message:
        """The next of the body, or that the client is gone. Raises ApiError when the body is not acceptable."""
        if self._must_continue and not self.has_begun:
            self._must_continue = False
            self._send(h11.InformationalResponse(status_code=100, headers=[], reason=b"Continue"))
        while not (self._is_lost or self.is_answered):
            if self._failure is not None:
                raise self._failure
            if not self._is_handed_over and (self._body or self.is_body_read):
                self._is_handed_over = self.is_body_read
                body, self._body = bytes(self._body), bytearray()
                return {"type": "http.request", "body": body, "more_body": not self.is_body_read}
            self._line.want_body()
            self._news.clear()
            await self._news.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        """Write the head or a part of the body, waiting while the reader is slow.

        Raises ConnectionResetError when the client is gone, and RuntimeError when the order is wrong.
        """
        kind = message["type"]
        if self._is_lost:
            raise ConnectionResetError("the client is gone")
        if kind == "http.response.start" and not self.has_begun:
            self._begin(message["status"], list(message.get("headers", ())))
        elif kind == "http.response.body" and self.has_begun and not self.is_answered:
            async with self._writing:  # who ends an answer early is another task than who writes it
                await self._write_body(b"" if self._is_head else message.get("body", b""))
                if not message.get("more_body", False):
                    self._send(h11.EndOfMessage())
                    self.is_answered = True
                    self._news.set()
                    self._line.answered(is_whole=True)
        else:
            raise RuntimeError(f"{kind} does not come here in an answer")

    async def _write_body(self, body: bytes) -> None:
        for start in range(0, len(body), PIECE_BYTES):
            await self._line.room()
            if self.is_answered:
                raise ConnectionResetError("the answer was ended")
            self._send(h11.Data(data=body[start : start + PIECE_BYTES]))

    def _begin(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        closing = [(b"connection", b"close")] if self.is_last else []
        kinds = [value for name, value in headers if name.lower() == b"content-type"]
        self.is_event_stream = kinds[:1] != [] and kinds[0].startswith(b"text/event-stream")
        self.has_begun = True
        reason = _PHRASES.get(status, b"")
        whole = [*self._headers, *headers, *closing]
        self._send(h11.Response(status_code=status, headers=whole, reason=reason))

    def _send(self, event: h11.Event) -> None:
        self._line.write(self._parser.send(event) or b"")


def scope_of(request: h11.Request, transport: asyncio.Transport, state: dict[str, Any]) -> Message:
    """What ASGI calls a request. ``raw_path`` is the path as it came."""
    path, _, query = request.target.partition(b"?")
    own, peer = (transport.get_extra_info(name) for name in ("sockname", "peername"))
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": request.http_version.decode("ascii"),
        "server": own[:2] if own else None,
        "client": peer[:2] if peer else None,
        "scheme": "http",
        "method": request.method.decode("ascii"),
        "root_path": "",
        "path": unquote(path.decode("ascii")),
        "raw_path": bytes(path),
        "query_string": bytes(query),
        "headers": [(bytes(name), bytes(value)) for name, value in request.headers],
        "state": dict(state),
    }


def refusal_bytes(error: ApiError, request_id: str) -> bytes:
    """A whole answer that no application made, after which the connection is closed."""
    body = json.dumps(error.body()).encode()
    headers = {
        **{name.lower(): value for name, value in error.all_headers().items()},
        "content-type": "application/json",
        "content-length": str(len(body)),
        "connection": "close",
        "x-request-id": request_id,
    }
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 {error.status} {HTTPStatus(error.status).phrase}\r\n{lines}\r\n".encode("ascii") + body
