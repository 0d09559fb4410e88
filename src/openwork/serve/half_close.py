"""Vigil: is a client that has closed its half of the connection still there?

One that half-closes and waits, and one that is gone altogether, have sent the same: an end. The second answers what is
written to it with a reset, and since nothing is read any more, nobody but us would see that. So something that changes
no answer is written now and then, and the socket is looked at.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

PROBE_S = 1.0  # between two things written
LOOK_S = 0.02  # between two looks


class Vigil:
    """From its making until ``end``; calls ``write_probe``, and the transport's abort when the client is gone."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, transport: asyncio.Transport, write_probe: Callable[[], None]
    ) -> None:
        self._loop = loop
        self._transport = transport
        self._write_probe = write_probe
        self._next_at = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._look()

    def end(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _look(self) -> None:
        peer = self._transport.get_extra_info("socket")
        if peer is None or peer.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self._transport.abort()
            return
        if self._loop.time() >= self._next_at:
            self._next_at = self._loop.time() + PROBE_S
            self._write_probe()
        self._timer = self._loop.call_later(LOOK_S, self._look)
