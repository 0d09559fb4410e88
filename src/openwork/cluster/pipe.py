"""Pipe: the worker's end of the channel. Messages in, messages out, and one error when the other end is gone.

What is posted goes out with the next ``flush``, or before the next wait. Nothing piles up: a flush returns when all of
it is with the operating system, however long the other end takes to read, and gives up only when that end is closed.
What the system has taken is read by the other end even if this process is killed the moment after.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import socket
import sys
from typing import Any, TypeVar

from openwork.cluster.frames import DOWN, UP, Direction, Frames, frame
from openwork.cluster.wire import Message
from openwork.core.errors import EngineError

READ_BYTES = 2**18

M = TypeVar("M", bound=Message)


def stay_with(parent: int) -> None:
    """End when the parent does, on Linux even in the middle of a step; leave signals to the group for it to judge."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
        if os.getppid() != parent:  # it ended before that was said
            os._exit(0)


class Gone(Exception):
    """The other end is closed."""


class Pipe:
    def __init__(self, end: socket.socket, down: Direction = DOWN, up: Direction = UP) -> None:
        end.setblocking(False)
        self._end = end
        self._up = up
        self._frames = Frames(down)
        self._unsent = bytearray()

    def post(self, message: Message) -> None:
        """Say something with the next flush."""
        self._unsent += frame(message, self._up)

    def flush(self) -> None:
        """Hand everything to the operating system. Raises Gone."""
        while self._unsent:
            try:
                sent = self._end.send(self._unsent)
            except BlockingIOError:
                self._wait(select.POLLOUT)
            except OSError as error:
                raise Gone from error
            else:
                del self._unsent[:sent]

    def receive(self, wait_s: float | None) -> list[Any]:
        """What came, after so many seconds at most; None: as long as it takes. Before a wait, what was posted goes out.

        Raises Gone; EngineError when what came is no message.
        """
        if wait_s != 0:
            self.flush()
        while True:
            try:
                data = self._end.recv(READ_BYTES)
            except BlockingIOError:
                data = None
            except OSError as error:
                raise Gone from error
            if data == b"":
                raise Gone
            found = [] if data is None else list(self._frames.feed(data))
            if found or wait_s == 0:
                return found
            self._wait(select.POLLIN, wait_s)
            wait_s = None if wait_s is None else 0.0

    def receive_first(self, kind: type[M]) -> M:
        """The first message. Raises Gone, and EngineError when it is another."""
        first, *others = self.receive(wait_s=None)
        if not isinstance(first, kind) or others:
            raise EngineError(f"the first message is {type(first).__name__}, not {kind.__name__} alone")
        return first

    def _wait(self, events: int, seconds: float | None = None) -> None:
        poll = select.poll()
        poll.register(self._end, events)
        poll.poll(None if seconds is None else 1000 * seconds)
