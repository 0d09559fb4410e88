"""Call: one HTTP request and its answer. Watch: what ends it before its time.

Inside a Watch, whoever serves a call is interrupted wherever it waits when the client has gone or the time is up, and
need not look after either. What is raised is the gate's to answer: as an error's status, or as the one last event of a
stream that has begun. Framing of events is in sse.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from types import TracebackType
from typing import Any

import msgspec

from openwork.serve.callers import Caller
from openwork.serve.errors import deadline_exceeded

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class ClientGone(Exception):
    """There is nobody to answer."""


class Call:
    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        state = scope.get("state") or {}
        self.scope = scope
        self.receive = receive
        self.caller: Caller = state.get("caller") or Caller()
        self.request_id: str = state.get("request_id") or ""
        self._send = send

    async def body(self) -> bytes:
        """All of it; how much that may be is the gate's to bound. Raises ClientGone when it does not come."""
        parts = []
        while True:
            message = await self.receive()
            if message["type"] != "http.request":
                raise ClientGone
            parts.append(message.get("body", b""))
            if not message.get("more_body", False):
                return parts[0] if len(parts) == 1 else b"".join(parts)

    async def answer(self, value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        """Send a whole answer: a record, or bytes that are JSON already."""
        content = value if isinstance(value, bytes) else msgspec.json.encode(value)
        fields = {"content-type": "application/json", "content-length": str(len(content)), **(headers or {})}
        await self._begin(status, fields)
        await self._tell({"type": "http.response.body", "body": content})

    async def begin_stream(self) -> None:
        await self._begin(200, {"content-type": "text/event-stream; charset=utf-8", "cache-control": "no-cache"})

    async def write(self, data: bytes) -> None:
        """Send a part of a stream; waits while the client's buffer is full."""
        await self._tell({"type": "http.response.body", "body": data, "more_body": True})

    async def end_stream(self) -> None:
        await self._tell({"type": "http.response.body", "body": b""})

    async def _begin(self, status: int, headers: Mapping[str, str]) -> None:
        raw = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
        await self._tell({"type": "http.response.start", "status": status, "headers": raw})

    async def _tell(self, message: MutableMapping[str, Any]) -> None:
        try:
            await self._send(message)
        except OSError:
            raise ClientGone from None


class Watch:
    """Interrupts what runs inside when the client has gone (ClientGone) or the time is up (ApiError 504).

    To be entered when the body has been read: what is received from then on is that the client has gone.
    """

    def __init__(self, call: Call, seconds: float) -> None:
        self._receive = call.receive
        self._seconds = seconds
        self._why: Exception | None = None

    async def __aenter__(self) -> Watch:
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._cancelling = task.cancelling()
        self._timer = asyncio.get_running_loop().call_later(
            self._seconds, self._interrupt, deadline_exceeded(self._seconds)
        )
        self._listener = asyncio.create_task(self._listen())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.cancel()
        self._listener.cancel()
        if self._why is not None and self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise self._why from None

    async def _listen(self) -> None:
        try:
            while (await self._receive())["type"] != "http.disconnect":
                pass
        except Exception:  # a connection that cannot be read is as good as closed
            pass
        self._interrupt(ClientGone())

    def _interrupt(self, why: Exception) -> None:
        if self._why is None:
            self._why = why
            self._task.cancel()
