"""Listening: the socket, and uvicorn on it with our Connection. Signals are not uvicorn's business here."""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Iterator
from functools import partial
from typing import Any, cast

import uvicorn

from openwork.core.errors import OpenworkError, RequestError
from openwork.serve.gate import App
from openwork.serve.settings import ServeSettings
from openwork.serve.transport import Connection, Witness

BACKLOG = 256  # connections that wait to be accepted; also how many asyncio takes, or fails to take, in one go
_ENDING_S = 2  # for answers that are being written when the server stops listening


def bind(settings: ServeSettings) -> socket.socket:
    """A socket that listens, so that a taken port is known before a model is loaded.

    Raises RequestError for a host that is none, OpenworkError for an address that cannot be had.
    """
    try:
        found = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (socket.gaierror, UnicodeError):
        raise RequestError(f"{settings.host!r} is not an address of this machine", param="host") from None
    family, kind, protocol, _, address = found[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Accepted sockets inherit it: what waits for a slow reader in the kernel is bounded like what waits here.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, settings.http.output_bytes)
        listener.setblocking(False)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise _explained(error, settings) from None
    return listener


def _explained(error: OSError, settings: ServeSettings) -> OpenworkError:
    where = f"{settings.host} port {settings.port}"
    if error.errno == errno.EADDRINUSE:
        return OpenworkError(f"{where} is in use already", "Choose another --port, or 0 for any free one.")
    if error.errno == errno.EADDRNOTAVAIL:
        return RequestError(f"{settings.host} is not an address of this machine", param="host")
    return OpenworkError(f"{where} cannot be listened on: {error.strerror}", "Choose another --host or --port.")


class Listener(uvicorn.Server):
    """Accepts connections until ``should_exit``; whoever owns it handles signals."""

    def __init__(self, app: App, settings: ServeSettings, witness: Witness) -> None:
        protocol = partial(Connection, settings.http, witness)
        config = uvicorn.Config(
            cast(Any, app),
            http=cast(Any, protocol),
            ws="none",
            loop="asyncio",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            backlog=BACKLOG,
            timeout_graceful_shutdown=_ENDING_S,
        )
        super().__init__(config)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield
