"""Glass: the microscope's process, from the server's side. Started for the first question, ended when nobody asks.

It guarantees that serving does not notice it: what it computes it computes elsewhere, it may die of it, and whoever
asked is told that there is no answer now; the next question starts another. One question is with it at a time, and is
given up with the process after ``deadline_s``; a question whose asker has left is not asked, or its answer dropped. It
does not know who may ask, and cannot open a recording.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from openwork.cluster.looking import ASKED, TOLD, Far, Look, Open, Shown, Withheld
from openwork.cluster.process import Process
from openwork.cluster.wire import as_error
from openwork.core.errors import EngineUnavailable, Overloaded
from openwork.trace.view.desk import Answer, Question

IDLE_S = 300.0
DEADLINE_S = 120.0
MOST_WAITING = 32


class Glass:
    """``command`` is the program, ``opening`` says what it is to open, asked each time one is started."""

    def __init__(
        self,
        command: Sequence[str],
        opening: Callable[[], Open],
        idle_s: float = IDLE_S,
        deadline_s: float = DEADLINE_S,
    ) -> None:
        self._command = command
        self._opening = opening
        self._idle_s = idle_s
        self._deadline_s = deadline_s
        self._process: Process | None = None
        self._turn = asyncio.Lock()
        self._asking: set[asyncio.Task[Answer]] = set()
        self._num_asked = 0
        self._answer: asyncio.Future[Shown | Withheld] | None = None
        self._question: Question | None = None
        self._far = ("", 0, 0)
        self._idle: asyncio.TimerHandle | None = None
        self._is_closed = False

    @property
    def pid(self) -> int | None:
        """Of the process; None when there is none."""
        return None if self._process is None or self._process.gone.done() else self._process.pid

    async def ask(self, question: Question) -> Answer:
        """Raises what the desk raises; Overloaded when too many wait; EngineUnavailable when there is no answer."""
        if len(self._asking) >= MOST_WAITING:
            raise Overloaded("too many look through the microscope at once", is_own=False)
        has_left: list[bool] = []
        task = asyncio.create_task(self._in_turn(question, has_left))
        self._asking.add(task)
        task.add_done_callback(self._done)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            has_left.append(True)
            raise

    def far(self, tenant: str | None, id: str) -> tuple[str, int, int]:
        """How far the answer in hand is, if it is of this request and for this tenant: stage, done, of."""
        now = self._question
        return self._far if now is not None and (now.tenant, now.id) == (tenant, id) else ("", 0, 0)

    def close(self) -> None:
        """End the process, whatever it is at. No more questions are taken."""
        self._is_closed = True
        self._end()

    # -- one at a time -------------------------------------------------------------------------------------------

    async def _in_turn(self, question: Question, has_left: list[bool]) -> Answer:
        async with self._turn:
            if has_left:
                raise _no_answer()
            if self._idle is not None:
                self._idle.cancel()
            self._question = question
            try:
                told = await self._put(question)
            finally:
                self._question, self._answer, self._far = None, None, ("", 0, 0)
                if not self._is_closed:
                    self._idle = asyncio.get_running_loop().call_later(self._idle_s, self._end)
        if isinstance(told, Withheld):
            raise as_error(told.trouble)
        return told.answer

    async def _put(self, question: Question) -> Shown | Withheld:
        """One that was there before may have ended for another reason, and just now: then a new one is asked."""
        was_there, process = self.pid is not None, self._start()
        told = await self._put_to(process, question)
        if told is None and was_there and process.gone.done():
            told = await self._put_to(self._start(), question)
        if told is None:
            self._end()
            raise _no_answer()
        return told

    async def _put_to(self, process: Process, question: Question) -> Shown | Withheld | None:
        """None: it has ended, or its time is up."""
        self._num_asked += 1
        self._answer = asyncio.get_running_loop().create_future()
        process.send(Look(self._num_asked, question))
        await asyncio.wait((self._answer, process.gone), timeout=self._deadline_s, return_when=asyncio.FIRST_COMPLETED)
        return self._answer.result() if self._answer.done() else None

    def _start(self) -> Process:
        if self._is_closed:
            raise _no_answer()
        if self._process is not None and self._process.gone.done():
            self._end()
        if self._process is None:
            try:
                self._process = Process(self._command, self._heard, ASKED, TOLD)
            except OSError:
                raise _no_answer() from None
            self._process.send(self._opening())
        return self._process

    def _heard(self, message: Any) -> None:
        if isinstance(message, Far):
            self._far = message.stage, message.done, message.total
        elif message.ask == self._num_asked and self._answer is not None and not self._answer.done():
            self._answer.set_result(message)

    def _end(self) -> None:
        process, self._process = self._process, None
        if self._idle is not None:
            self._idle.cancel()
        if process is not None:
            process.end()

    def _done(self, task: asyncio.Task[Answer]) -> None:
        self._asking.discard(task)
        if not task.cancelled():
            task.exception()  # whoever asked has it, or has left


def _no_answer() -> EngineUnavailable:
    return EngineUnavailable("the microscope gave no answer", "Ask again.", state="microscope")
