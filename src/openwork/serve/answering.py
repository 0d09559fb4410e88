"""Answering: the way from a checked body to an answer that all routes share which generate.

A route says what to compute and how to word it (a Plan with a Voice); here it is computed, streamed or not, paid for,
interrupted, and let go. A stream writes what one step brought in one go, each token an event of its own; while there
is nothing to say it sends a comment now and then, and for a long prompt how much of it is done.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from openwork.core.event import Prefilled
from openwork.core.output import Chunk
from openwork.core.request import Request
from openwork.engine.face import AsyncEngine
from openwork.serve import sse
from openwork.serve.bounds import Bounds
from openwork.serve.call import Call, Watch
from openwork.serve.decoding import Sought
from openwork.serve.generation import Generation, Part
from openwork.text.tokenizer import Tokenizer


class Voice(Protocol):
    """How one route words its answers. What ``chunk`` returned, put together, says the same as ``whole``."""

    def begin(self, generation: Generation) -> bytes:
        """What a stream says first, when the engine has accepted."""
        ...

    def chunk(self, part: Part, chunk: Chunk) -> bytes:
        """The events of a chunk: any number of them, b"" for none."""
        ...

    def hear(self, part: Part, chunk: Chunk) -> None:
        """A chunk of an answer that is given as a whole."""
        ...

    def progress(self, part: Part, computed: int, known: int) -> bytes: ...

    def end(self, generation: Generation) -> bytes:
        """What a stream says last."""
        ...

    def whole(self, generation: Generation) -> Any:
        """The answer as one record."""
        ...

    def close(self) -> None:
        """Called once, however the call ended."""
        ...


@dataclass(frozen=True, slots=True)
class Plan:
    requests: Sequence[Request]
    tokenizer: Tokenizer | None
    voice: Voice
    is_stream: bool
    shown: frozenset[int] = frozenset()  # special tokens that belong to the text
    sought: Sequence[Sought] = ()  # of each request, where they search
    name: str | None = None  # what the answer is called, for a recording


async def answer(call: Call, engine: AsyncEngine, bounds: Bounds, prepare: Callable[[], Awaitable[Plan]]) -> None:
    """Serve one call. ``prepare`` runs under the deadline too.

    Raises ApiError, also when a stream has begun, and ClientGone; whatever it raises, nothing runs on.
    """
    record = None
    async with Watch(call, bounds.request_s):
        plan = await prepare()
        generation = Generation(engine, plan.requests, plan.tokenizer, plan.shown, plan.sought, plan.name)
        with call.caller.reserve(generation.most_tokens) as place:
            try:
                async with generation:
                    if plan.is_stream:
                        await _stream(call, generation, plan.voice, bounds.keep_alive_s)
                    else:
                        while not generation.is_over:
                            for part, what in await generation.take():
                                if isinstance(what, Chunk) and what.output is None:
                                    plan.voice.hear(part, what)
                        record = plan.voice.whole(generation)
            finally:
                place.settle(generation.num_tokens)
                plan.voice.close()
    if plan.is_stream:
        await call.end_stream()
    else:
        await call.answer(record)


async def _stream(call: Call, generation: Generation, voice: Voice, keep_alive_s: float) -> None:
    await call.begin_stream()
    if opening := voice.begin(generation):
        await call.write(opening)
    pulse = _Pulse(generation, keep_alive_s)
    try:
        while not generation.is_over:
            said = b"".join([_word(voice, part, what) for part, what in await generation.take()])
            if said or pulse.is_due():
                await call.write(said or sse.KEEP_ALIVE)
                pulse.has_spoken = True
    finally:
        pulse.stop()
    await call.write(voice.end(generation))


def _word(voice: Voice, part: Part, what: Chunk | Prefilled) -> bytes:
    if isinstance(what, Chunk):
        return b"" if what.output is not None else voice.chunk(part, what)
    return voice.progress(part, what.computed, what.known) if what.computed < what.known else b""


class _Pulse:
    """Wakes a generation regularly, and knows whether anything was said between two beats."""

    def __init__(self, generation: Generation, seconds: float) -> None:
        self.has_spoken = True
        self._generation = generation
        self._seconds = seconds
        self._is_due = False
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_later(seconds, self._beat)

    def is_due(self) -> bool:
        is_due, self._is_due = self._is_due, False
        return is_due

    def stop(self) -> None:
        self._timer.cancel()

    def _beat(self) -> None:
        self._is_due, self.has_spoken = not self.has_spoken, False
        if self._is_due:
            self._generation.wake()
        self._timer = self._loop.call_later(self._seconds, self._beat)
