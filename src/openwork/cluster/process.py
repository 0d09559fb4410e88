"""Process: one life of the process that computes, and the parent's end of the channel to it.

It is started anew, never forked off, with one end of a pair of sockets that nobody else can reach. Everything it sent
is read before it counts as gone, whatever it died of; then ``cause`` says what that was. Nothing here blocks: what the
process does not read is counted in ``num_unsent_bytes``, for whoever sends to bound. It does not know messages.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any

from openwork.cluster.frames import DOWN, UP, Direction, Frames, frame
from openwork.cluster.suspects import Cause
from openwork.cluster.wire import Message
from openwork.core.errors import EngineError

COMMAND = (sys.executable, "-m", "openwork.cluster.worker")
READ_BYTES = 2**18
REAP_S = 5.0  # from the end of its channel until it must have ended itself
_FROM_OUTSIDE = {-signal.SIGKILL, -signal.SIGTERM}


class Process:
    """``heard`` is called with every message, in order. ``gone`` is done when there will be no more.

    Raises OSError when no process can be started.
    """

    def __init__(
        self, command: Sequence[str], heard: Callable[[Any], None], down: Direction = DOWN, up: Direction = UP
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self.gone: asyncio.Future[None] = self._loop.create_future()
        self._heard = heard
        self._down = down
        self._frames = Frames(up)
        self._unsent = bytearray()
        self._was_killed = self._is_broken = False
        self._end, theirs = socket.socketpair()
        self._end.setblocking(False)
        try:
            self._child = _start([*command, str(theirs.fileno()), str(os.getpid())], theirs.fileno())
        except BaseException:
            self._end.close()
            raise
        finally:
            theirs.close()
        self._loop.add_reader(self._end, self._read)

    @property
    def pid(self) -> int:
        return self._child.pid

    @property
    def num_unsent_bytes(self) -> int:
        return len(self._unsent)

    def send(self, message: Message) -> None:
        """Raises EngineError when it is larger than may be sent. Nothing happens when the process is gone."""
        data = frame(message, self._down)
        if self.gone.done():
            return
        was_empty = not self._unsent
        self._unsent += data
        if was_empty:
            self._write()

    def kill(self) -> None:
        """End it now; ``cause`` will say "hang"."""
        if self._child.poll() is None:
            self._was_killed = True
            self._child.kill()

    async def cause(self) -> Cause:
        """Wait until it has ended, making it if it must be, and say why it did."""
        await asyncio.shield(self.gone)
        deadline, pause = self._loop.time() + REAP_S, 0.001
        while self._child.poll() is None:
            if self._loop.time() >= deadline:
                self.kill()
            await asyncio.sleep(pause)
            pause = min(2 * pause, 0.05)
        if self._was_killed:
            return "hang"
        return "outside" if self._child.returncode in _FROM_OUTSIDE and not self._is_broken else "itself"

    def close(self) -> None:
        """Let the channel go, and the process with it if it still runs. Nothing more is heard."""
        self.kill()
        self._close()

    def end(self) -> None:
        """The same, and wait until it has ended: at once, for it cannot refuse. The loop may have ended before."""
        self.kill()
        self._child.wait()
        if self._loop.is_closed():
            self._end.close()
        else:
            self._close()

    # -- the channel ---------------------------------------------------------------------------------------------

    def _read(self) -> None:
        try:
            data = self._end.recv(READ_BYTES)
        except BlockingIOError:
            return
        except OSError:  # it was killed with something of ours unread
            data = b""
        if not data:
            self._close()
            return
        try:
            for message in self._frames.feed(data):
                self._heard(message)
        except Exception as error:
            # What it says cannot be trusted, or was lost to a fault of ours: only another life can be gone on with.
            self._is_broken = True
            self._child.kill()
            self._close()
            if not isinstance(error, EngineError):
                raise

    def _write(self) -> None:
        try:
            del self._unsent[: self._end.send(self._unsent)]
        except BlockingIOError:
            pass
        except OSError:  # it is gone, but what it said before is still to be read: the end of that is the end
            self._unsent.clear()
        if self._unsent:
            self._loop.add_writer(self._end, self._write)
        else:
            self._loop.remove_writer(self._end)

    def _close(self) -> None:
        if self.gone.done():
            return
        self._loop.remove_reader(self._end)
        self._loop.remove_writer(self._end)
        self._end.close()
        self._unsent.clear()
        self.gone.set_result(None)


def _start(command: Sequence[str], descriptor: int) -> subprocess.Popen[bytes]:
    """Signals that are meant for the whole group are held back from its first moment on: the parent judges them."""
    held = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, pass_fds=(descriptor,), close_fds=True
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, held)
