"""The client: one connection for each request, and the time at which every piece of its answer came.

Nothing is read while a measurement runs: pieces are kept with their times and understood afterwards, so that the client
takes as little as it can of the processor that the server under test wants. Each request says "Connection: close"; the
end of the answer is the end of the connection. It guarantees an Exchange for every request, whatever the server did.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from traffic.trace import Arrival


@dataclass(frozen=True)
class Address:
    """Where a server listens, and the API key of each tenant; the one of "" is everybody else's."""

    host: str
    port: int
    keys: Mapping[str, str] = field(default_factory=dict)

    def request(self, method: str, route: str, body: bytes = b"", tenant: str = "") -> bytes:
        """The bytes of one HTTP request."""
        key = self.keys.get(tenant, self.keys.get("", ""))
        lines = [
            f"{method} {route} HTTP/1.1",
            f"Host: {self.host}:{self.port}",
            "Connection: close",
            *(["Content-Type: application/json", f"Content-Length: {len(body)}"] if body else []),
            *([f"Authorization: Bearer {key}"] if key else []),
        ]
        return ("\r\n".join(lines) + "\r\n\r\n").encode() + body


@dataclass(slots=True)
class Exchange:
    """A request and what came back. Times are those of time.perf_counter()."""

    due_s: float  # when the trace wanted it sent
    sent_s: float = 0.0
    ended_s: float = 0.0
    pieces: list[tuple[float, bytes]] = field(default_factory=list)
    failure: str = ""  # "refused", "reset" or "timeout": when the connection itself failed


class _Connection(asyncio.Protocol):
    def __init__(self, exchange: Exchange, request: bytes, seen: Callable[[bytes], None] | None) -> None:
        self._exchange = exchange
        self._request = request
        self._seen = seen
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        self._exchange.sent_s = time.perf_counter()
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._exchange.pieces.append((time.perf_counter(), data))
        if self._seen is not None:
            self._seen(data)

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is not None:
            self._exchange.failure = "reset"
        if not self.closed.done():
            self.closed.set_result(None)


async def send(
    address: Address,
    request: bytes,
    limit_s: float,
    exchange: Exchange | None = None,
    seen: Callable[[bytes], None] | None = None,
) -> Exchange:
    """Send one request and wait for the end of its answer, or ``limit_s``.

    The exchange may be given, to be looked into before its end or after a cancellation, which ends the connection.
    ``seen`` is called with each piece.
    """
    exchange = exchange or Exchange(time.perf_counter())
    transport = None
    try:
        async with asyncio.timeout(limit_s):
            transport, connection = await asyncio.get_running_loop().create_connection(
                lambda: _Connection(exchange, request, seen), address.host, address.port
            )
            await connection.closed
    except TimeoutError:
        exchange.failure = "timeout"
    except OSError:
        exchange.failure = "refused"
    finally:
        exchange.ended_s = time.perf_counter()
        if transport is not None:
            transport.abort()
    return exchange


async def replay(
    address: Address, route: str, arrivals: Sequence[Arrival], bodies: Sequence[bytes], limit_s: float
) -> list[Exchange]:
    """Send each body when its arrival is due, whatever became of those before; the exchanges, in the same order."""
    requests = [
        address.request("POST", route, body, arrival.tenant) for arrival, body in zip(arrivals, bodies, strict=True)
    ]
    tasks = []
    with undisturbed():
        start_s = time.perf_counter() + 0.05
        for arrival, request in zip(arrivals, requests, strict=True):
            due_s = start_s + arrival.at_s
            await asyncio.sleep(max(0.0, due_s - time.perf_counter()))
            tasks.append(asyncio.create_task(send(address, request, limit_s, Exchange(due_s))))
        return [await task for task in tasks]


@contextmanager
def undisturbed() -> Iterator[None]:
    """No garbage is collected meanwhile: a pause of ours would look like one of the server."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
