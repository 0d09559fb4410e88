"""Trial: finds out whether a constraint can be used, in a process that may die of it.

A schema of a kilobyte can want gigabytes, or minutes. So each constraint is compiled first by a helper with bounds on
time, memory and stack (text/judge.py); one that it does not survive is refused, and another helper is started for the
next. One constraint is tried at a time, and no constraint twice: whoever asks for one that is being tried waits for the
same verdict. Verdicts are kept within a bound on bytes. Safe to share between threads; it does not know who asks.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from typing import IO

from openwork.core.constraint import Constraint
from openwork.core.errors import EngineUnavailable, Overloaded, RequestError

COMMAND = (sys.executable, "-P", "-m", "openwork.text.judge")
REAP_S = 1.0  # from the end of its input until it must have ended itself
WALL_S = 20.0  # its bound on processor time is 2 s; this is for one that waits or stands still
MAX_WAITING = 64
VERDICT_BYTES = 512  # beside the source
_INNOCENT = (0, -signal.SIGKILL, -signal.SIGTERM)  # it had grown, or somebody else ended it


Verdict = tuple[str, str, str] | None  # message, hint and param of an error; None: it can be used


class Trial:
    """``max_bytes`` bounds the verdicts that are kept. No helper runs before the first ``check`` or after ``close``."""

    def __init__(self, command: Sequence[str] = COMMAND, max_bytes: int = 8 << 20) -> None:
        self._command = command
        self._max_bytes = max_bytes
        self._bytes = 0
        self._verdicts: OrderedDict[Constraint, Verdict] = OrderedDict()
        self._waiting = 0
        self._is_closed = False
        self._turn = threading.Lock()  # of whoever speaks to the helper
        self._noting = threading.Lock()  # never held for long
        self._helper: subprocess.Popen[bytes] | None = None

    @property
    def num_bytes(self) -> int:
        """What the verdicts are charged with."""
        return self._bytes

    def check(self, constraint: Constraint) -> None:
        """Return when the constraint can be used. This may take seconds: call it where waiting harms nobody.

        Raises RequestError saying what is wrong with it, Overloaded when too many wait already, EngineUnavailable when
        no helper can be started, or one after the other is ended from outside.
        """
        if self.recall(constraint):
            return
        with self._noting:
            if self._waiting >= MAX_WAITING:
                raise Overloaded("too many constraints wait to be compiled", "Ask again later.", is_own=False)
            self._waiting += 1
        try:
            with self._turn:
                if not self.recall(constraint):
                    self._keep(constraint, self._try(constraint))
        finally:
            with self._noting:
                self._waiting -= 1
        self.recall(constraint)

    def recall(self, constraint: Constraint) -> bool:
        """Whether it was tried before and can be used; at once. Raises RequestError when it was and cannot."""
        with self._noting:
            if constraint not in self._verdicts:
                return False
            self._verdicts.move_to_end(constraint)
            verdict = self._verdicts[constraint]
        if verdict is not None:
            message, hint, param = verdict
            raise RequestError(message, hint, param=param)
        return True

    def close(self) -> None:
        self._is_closed = True
        if not self._turn.acquire(timeout=REAP_S):
            helper = self._helper
            if helper is not None:
                helper.kill()  # what it is at is not waited for
            self._turn.acquire()
        try:
            self._end()
        finally:
            self._turn.release()

    # -- one at a time -------------------------------------------------------------------------------------------

    def _keep(self, constraint: Constraint, verdict: Verdict) -> None:
        with self._noting:
            self._verdicts[constraint] = verdict
            self._bytes += _charge(constraint)
            while self._bytes > self._max_bytes and len(self._verdicts) > 1:
                oldest, _ = self._verdicts.popitem(last=False)
                self._bytes -= _charge(oldest)

    def _try(self, constraint: Constraint) -> Verdict:
        question = json.dumps(asdict(constraint)).encode() + b"\n"
        for _ in range(3):  # whoever ends helpers from outside is not the constraint's fault
            answer = b"" if self._is_closed else self._ask(question)
            if answer:
                error = json.loads(answer)["error"]
                return None if error is None else (error[0], error[1], error[2])
            how = self._end()
            if how not in _INNOCENT:
                return _blame(how), "Make it smaller or simpler.", constraint.kind
        raise EngineUnavailable("constraints cannot be compiled now", "Ask again later.", state="grammar")

    def _ask(self, question: bytes) -> bytes:
        """The helper's answer, or b"" when it has died or does not answer."""
        if self._helper is not None and self._helper.poll() is not None:
            self._end()
        if self._helper is None:
            self._helper = _start(self._command)
        pipes = self._helper
        assert pipes.stdin is not None and pipes.stdout is not None
        try:
            pipes.stdin.write(question)
            pipes.stdin.flush()
        except OSError:
            return b""
        return _read_line(pipes.stdout, time.monotonic() + WALL_S)

    def _end(self) -> int | None:
        """Make sure that the helper has ended, and say how; None when it had to be made to, being too slow."""
        helper, self._helper = self._helper, None
        if helper is None:
            return 0
        assert helper.stdin is not None and helper.stdout is not None
        with suppress(OSError):
            helper.stdin.close()
        helper.stdout.close()
        try:
            return helper.wait(REAP_S)
        except subprocess.TimeoutExpired:
            helper.kill()
            helper.wait()
            return None


def _start(command: Sequence[str]) -> subprocess.Popen[bytes]:
    """In a group of its own: what a terminal sends to us is not meant for it. It ends when its input does."""
    try:
        return subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            close_fds=True,
            start_new_session=True,
        )
    except OSError:
        raise EngineUnavailable("constraints cannot be compiled now", "Ask again later.", state="grammar") from None


def _read_line(pipe: IO[bytes], deadline: float) -> bytes:
    """A whole line, or b""."""
    poll = select.poll()
    poll.register(pipe, select.POLLIN)
    line = b""
    while not line.endswith(b"\n"):
        left = deadline - time.monotonic()
        if left <= 0 or not poll.poll(left * 1000):
            return b""
        part = os.read(pipe.fileno(), 65536)
        if not part:
            return b""
        line += part
    return line


def _blame(how: int | None) -> str:
    if how is None or how == -signal.SIGXCPU:
        return "takes too long to compile"
    return "needs too much memory to compile, or is nested too deeply"


def _charge(constraint: Constraint) -> int:
    return len(constraint.source.encode()) + VERDICT_BYTES
