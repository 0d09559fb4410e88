"""Looker: the microscope's process. It reads a recording and computes rows again, one question after another.

    python -m openwork.cli.looker FD PARENT

FD is a connected socket that only the server has the other end of. It gives way to whoever serves (nice), computes on
as many threads as it is told, and may have so much memory beside the model. It ends when its parent does, at once.
"""

from __future__ import annotations

import os
import resource
import socket
import sys
import time
import traceback
from collections.abc import Sequence
from contextlib import suppress
from functools import partial

from openwork.cli.lighting import light
from openwork.cluster.looking import ASKED, TOLD, Far, Open, Shown, Told, Withheld
from openwork.cluster.pipe import Gone, Pipe, stay_with
from openwork.cluster.wire import as_trouble
from openwork.core.errors import MemoryTooSmall, OpenworkError
from openwork.trace.recording import Recording
from openwork.trace.view.desk import Desk, Question
from openwork.trace.view.lamp import Lamp

NICE = 10
ROOM_BYTES = 2 << 30  # beside the model and twice the keys and values of a sequence
LEAST_S = 0.1  # between two words on how far it is


class Looker:
    """A desk at the end of a pipe."""

    def __init__(self, pipe: Pipe) -> None:
        self._pipe = pipe
        self._desk: Desk | None = None  # until it is said what to open
        self._told_at = float("-inf")

    def run(self) -> None:
        """Until there is no parent: raises Gone then."""
        while True:
            for message in self._pipe.receive(None):
                if isinstance(message, Open):
                    self._desk = Desk(partial(Recording.open, message.directory), partial(_light, message), self._far)
                else:
                    self._pipe.post(self._answer(message.ask, message.question))
                    self._pipe.flush()

    def _answer(self, ask: int, question: Question) -> Told:
        try:
            assert self._desk is not None, "the first message opens a recording"
            return Shown(ask, self._desk.answer(question))
        except Gone:
            raise
        except MemoryError:
            return Withheld(ask, as_trouble(MemoryTooSmall("there is not enough memory for this")))
        except OpenworkError as error:
            return Withheld(ask, as_trouble(error))
        except Exception as error:
            traceback.print_exc()  # a fault of ours: the operator is told in full, whoever asked in a word
            return Withheld(ask, as_trouble(error))

    def _far(self, stage: str, done: int, total: int) -> None:
        now = time.monotonic()
        if now - self._told_at >= LEAST_S or done >= total:
            self._told_at = now
            self._pipe.post(Far(stage, done, total))
            self._pipe.flush()


def _light(told: Open) -> Lamp:
    lamp = light(told.model, told.load, told.contract_id, told.examine_bytes)
    bound(ROOM_BYTES + 2 * told.examine_bytes)
    return lamp


def bound(more_bytes: int) -> None:
    """Take so much memory more than now at most, where the system can tell; mapped weights do not count."""
    with suppress(OSError, ValueError, StopIteration):
        with open("/proc/self/status", encoding="ascii") as status:
            used = next(int(line.split()[1]) << 10 for line in status if line.startswith("VmData:"))
        resource.setrlimit(resource.RLIMIT_DATA, (used + more_bytes, resource.RLIM_INFINITY))


def main(arguments: Sequence[str]) -> int:
    """Answer the parent until it is gone."""
    stay_with(parent=int(arguments[1]))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.nice(NICE)
    pipe = Pipe(socket.socket(fileno=int(arguments[0])), ASKED, TOLD)
    try:
        Looker(pipe).run()
    except Gone:
        os._exit(0)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
