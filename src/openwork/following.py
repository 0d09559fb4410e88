"""Follower: the requests of one call, from the engine in this process to their outputs.

Whoever waits turns the engine, one thread at a time, and everything that runs moves on with it. It guarantees that the
requests of a call end with it, however it ends, and that a stop string, which is text, reaches the engine. It does not
know where requests come from.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence

from openwork.build import Progress
from openwork.core.errors import EngineError
from openwork.core.event import Arrived, Ended, Event, Prefilled
from openwork.core.output import Chunk, Output
from openwork.core.request import Request
from openwork.engine.service import Engine, Stream
from openwork.run.explain import Explainer, Source
from openwork.text.answer import Answer
from openwork.text.tokenizer import Tokenizer


class Follower:
    """The engine's one way for calls from several threads; ``explainer`` answers for the outputs."""

    def __init__(self, engine: Engine, tokenizer: Tokenizer | None, explainer: Explainer) -> None:
        self._engine = engine
        self._tokenizer = tokenizer
        self._explainer = explainer
        self._turn = threading.RLock()

    def run(self, asked: Sequence[tuple[Request, object]], progress: Progress | None) -> list[Output]:
        """The outputs of requests and the prompts they were made from. Raises EngineError, which holds them all."""
        running = [self.submit(request, prompt) for request, prompt in asked]
        for _ in self.follow(running, progress):
            pass
        return [answer.output for _, answer in running if answer.output is not None]

    def submit(self, request: Request, prompt: object) -> tuple[Stream, Answer]:
        """Hand a request to the engine. Raises RequestError and Overloaded."""
        with self._turn:
            stream = self._engine.submit(request)
            arrived = next(event.time for event in stream.take() if isinstance(event, Arrived))
        text = prompt if isinstance(prompt, str) else None
        return stream, Answer(request, self._tokenizer, text, arrived, source=Source(self._explainer))

    def follow(self, running: Sequence[tuple[Stream, Answer]], progress: Progress | None) -> Iterator[Chunk]:
        """Turn the engine until these requests have ended; whatever else is running moves with them. Raises as run."""
        report = _Report(running, progress)
        try:
            left = list(running)
            while left:
                with self._turn:
                    if not any(stream.has_events for stream, _ in left):
                        self._engine.turn()
                for stream, answer in left:
                    for event in stream.take():
                        report.see(event)
                        chunk = answer.take(event)
                        if chunk is not None:
                            yield chunk
                    self._cancel_stopped(stream, answer)
                left = [pair for pair in left if pair[1].output is None]
        finally:
            with self._turn:
                for stream, _ in running:
                    self._engine.cancel(stream)
        failures = [answer.failure for _, answer in running if answer.failure]
        if failures:
            outputs = tuple(answer.output for _, answer in running)
            raise EngineError(f"{len(failures)} of {len(running)} requests failed: {failures[0]}", outputs=outputs)

    def _cancel_stopped(self, stream: Stream, answer: Answer) -> None:
        """A stop string is text, so the engine hears of it from here."""
        while answer.to_cancel:
            with self._turn:
                self._engine.cancel(stream, answer.to_cancel.pop(), "stop")

    def close(self) -> None:
        """Cancel what is running and stop the engine's thread. Does nothing the second time."""
        with self._turn:
            self._engine.close()


class _Report:
    """Progress over the requests of one call, for whoever watches."""

    def __init__(self, running: Sequence[tuple[Stream, Answer]], progress: Progress | None) -> None:
        self._progress = progress
        self._num_tokens = sum(len(stream.request.prompt) for stream, _ in running)
        self._num_requests = len(running)
        self._num_ended = 0
        self._computed: dict[int, int] = {}  # request -> prompt tokens, never falling

    def see(self, event: Event) -> None:
        if self._progress is None:
            return
        if isinstance(event, Prefilled):
            self._computed[event.request] = max(event.computed, self._computed.get(event.request, 0))
            self._progress("prefill", sum(self._computed.values()), self._num_tokens)
        elif isinstance(event, Ended):
            self._num_ended += 1
            self._progress("requests", self._num_ended, self._num_requests)
