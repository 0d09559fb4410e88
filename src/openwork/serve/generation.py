"""Generation: the engine requests of one call, handed in together, read together, and let go exactly once.

A call may have many prompts; each is one engine request with n sequences. Whoever leaves the ``async with`` early, by
an exception or by being cancelled, ends what still runs. An answer that the engine could not complete is an ApiError
and never looks like one that is complete. It knows text, and neither HTTP nor JSON.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from types import TracebackType

from openwork.core.errors import RequestError
from openwork.core.event import Ended, Event, Finished, Prefilled, Token
from openwork.core.output import Chunk, Output
from openwork.core.request import Request
from openwork.engine.face import AsyncEngine, AsyncStream
from openwork.serve.decoding import NAMES, Sought
from openwork.serve.errors import from_failure
from openwork.serve.sampling import renamed
from openwork.text.answer import Answer
from openwork.text.tokenizer import Tokenizer


@dataclass(slots=True, eq=False)
class Part:
    """One prompt of a call, and what is known of its answer. The call's choices are n for each part, in order."""

    place: int
    request: Request
    answer: Answer
    sought: Sought | None = None  # it searches
    num_generated: int = 0
    stream: AsyncStream | None = None
    ended: Ended | None = None

    @property
    def output(self) -> Output:
        """Only when the generation is over."""
        assert self.answer.output is not None
        return self.answer.output

    @property
    def most_tokens(self) -> int:
        """What it may take, of prompt and output; for a search, of all that it may look at."""
        request = self.request
        search = request.search
        if search is None:
            new = request.params.num_drawn * request.max_tokens
        elif search.choose is not None:
            new = sum(map(len, search.choose.options))
        else:
            new = request.lines * request.max_tokens if search.beam is not None else search.budget.nodes or 0
        most = len(request.prompt) + new
        return most if search is None or search.budget.tokens is None else min(most, search.budget.tokens)

    @property
    def num_tokens(self) -> int:
        """What it took so far; a search that was not waited for, all that it might have taken."""
        if self.sought is None:
            return len(self.request.prompt) + self.num_generated
        if self.ended is None:
            return self.most_tokens
        account = self.ended.account
        return max(len(self.request.prompt) + self.num_generated, account.cached + account.rows)


News = tuple[Part, Chunk | Prefilled]


class Generation:
    """``async with Generation(...) as it: while not it.is_over: for part, what in await it.take(): ...``"""

    def __init__(
        self,
        engine: AsyncEngine,
        requests: Sequence[Request],
        tokenizer: Tokenizer | None,
        shown: Collection[int] = (),
        sought: Sequence[Sought] = (),
        name: str | None = None,
    ) -> None:
        self.parts = [
            Part(place, request, Answer(request, tokenizer, shown=shown)) for place, request in enumerate(requests)
        ]
        for part, what in zip(self.parts, sought, strict=False):
            part.sought = what
            part.answer = Answer(part.request, tokenizer, shown=shown, options=what.texts)
        self.is_cancelled = False  # by ``cancel``: sequences may then be cut off without that being an error
        self._engine = engine
        self._name = name
        self._pumps: list[asyncio.Task[None]] = []
        self._inbox: deque[tuple[Part, list[Event]]] = deque()
        self._arrived = asyncio.Event()
        self._num_left = len(self.parts)
        self._error: Exception | None = None

    @property
    def is_over(self) -> bool:
        return self._num_left == 0

    @property
    def num_tokens(self) -> int:
        """What the call took so far, of prompts and output."""
        return sum(part.num_tokens for part in self.parts)

    @property
    def most_tokens(self) -> int:
        """What it may take."""
        return sum(part.most_tokens for part in self.parts)

    async def __aenter__(self) -> Generation:
        try:
            for part in self.parts:
                part.stream = await self._engine.submit(part.request, self._name_of(part))
                self._pumps.append(asyncio.create_task(self._pump(part, part.stream)))
        except BaseException as error:
            self._release()
            if isinstance(error, RequestError):
                raise renamed(error, NAMES if part.sought is not None else {}) from None
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._release()

    async def take(self) -> list[News]:
        """What has happened since the last call; waits for something, or for ``wake``.

        Raises ApiError when the engine could not complete a request.
        """
        if not self._inbox and self._error is None:
            self._arrived.clear()
            await self._arrived.wait()
        news: list[News] = []
        while self._inbox:
            part, events = self._inbox.popleft()
            for event in events:
                self._see(part, event, news)
        if self._error is not None:
            raise self._error
        return news

    def wake(self) -> None:
        """Let ``take`` return, with nothing if there is nothing."""
        self._arrived.set()

    def cancel(self) -> None:
        """End the call within a step; it is over when the last events have been taken."""
        self.is_cancelled = True
        for part in self.parts:
            if part.stream is not None and part.ended is None:
                part.stream.cancel()

    def _name_of(self, part: Part) -> str | None:
        """What a recording calls it: as the answer; those of further prompts have their place behind it."""
        return self._name if self._name is None or not part.place else f"{self._name}-{part.place}"

    def _see(self, part: Part, event: Event, news: list[News]) -> None:
        if isinstance(event, Token):
            part.num_generated += 1
        elif isinstance(event, Prefilled):
            news.append((part, event))
            return
        elif isinstance(event, Finished):
            if event.reason == "error":
                raise from_failure(event.failure)
            if event.reason == "cancelled" and not self.is_cancelled:
                raise from_failure("closed")
        elif isinstance(event, Ended):
            part.ended = event
            self._num_left -= 1
        chunk = part.answer.take(event)
        if chunk is not None:
            news.append((part, chunk))
        while part.answer.to_cancel:
            assert part.stream is not None
            part.stream.cancel(part.answer.to_cancel.pop(), "stop")

    async def _pump(self, part: Part, stream: AsyncStream) -> None:
        try:
            has_ended = False
            while not has_ended:
                events = await stream.take()
                self._inbox.append((part, events))
                self._arrived.set()
                has_ended = isinstance(events[-1], Ended)
        except Exception as error:
            self._error = error
            self._arrived.set()

    def _release(self) -> None:
        for pump in self._pumps:
            pump.cancel()
        for part in self.parts:
            if part.stream is not None and part.ended is None:
                part.stream.cancel()
