"""Engine: submit, cancel, drain. The face that every caller sees, whoever turns the loop.

It guarantees that each request gets a number of its own, that its events arrive in its own stream, in order, and that
the stream ends exactly once. Whoever reads a stream turns the engine until there is something to read; there is no
thread here. It does not know text: prompts and tokens are ids.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence

from openwork.core.errors import EngineError
from openwork.core.event import Ended, Event
from openwork.core.gauges import Gauges
from openwork.core.output import FinishReason
from openwork.core.request import Request
from openwork.core.terms import Terms
from openwork.engine.loop import Loop


class Stream:
    """The events of one request. ``has_ended`` is true once Ended has been put in."""

    def __init__(self, request_id: int, request: Request) -> None:
        self.request_id = request_id
        self.request = request
        self.has_ended = False
        self._events: deque[Event] = deque()

    def put(self, event: Event) -> None:
        self._events.append(event)
        self.has_ended = self.has_ended or isinstance(event, Ended)

    @property
    def has_events(self) -> bool:
        return bool(self._events)

    def take(self) -> list[Event]:
        """Everything that has arrived since the last call. Safe beside another thread's ``put``: nothing is lost."""
        events = []
        while self._events:
            events.append(self._events.popleft())
        return events


class Engine:
    """A loop with an inbox."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._streams: dict[int, Stream] = {}
        self._next_id = 0
        self._is_closed = False

    @property
    def is_idle(self) -> bool:
        return self._loop.is_idle

    @property
    def num_requests(self) -> int:
        """Requests that have not ended. One step may still be in flight when there are none."""
        return len(self._streams)

    def submit(
        self, request: Request, so_far: Mapping[int, Sequence[int]] | None = None, name: str | None = None
    ) -> Stream:
        """Take a request in and return its stream. ``name`` is what it is called in a recording.

        ``so_far`` lets a request go on that an engine which is gone had begun: the tokens it gave out, by index, of
        the sequences that had not finished. What comes is what would have come.

        Raises EngineError when the engine is closed, RequestError when the request can never be served here, and
        Overloaded when too much is waiting.
        """
        if self._is_closed:
            raise EngineError("the engine is closed", "Make a new one.")
        stream = Stream(self._next_id, request)
        events = self._loop.add(stream.request_id, request, so_far, name)
        self._next_id += 1
        self._streams[stream.request_id] = stream
        self._deliver(events)
        return stream

    def cancel(self, stream: Stream, index: int | None = None, reason: FinishReason = "cancelled") -> None:
        """End a request, or its sequence ``index``, now. What is in flight for it is dropped when it comes back.

        Nothing happens when it has ended already.
        """
        self._deliver(self._loop.cancel(stream.request_id, index, reason))

    def pin(self, terms: Terms, tokens: Sequence[int], seconds: float) -> int:
        """Keep what is cached of ``tokens`` for a time, under the namespace of ``terms``; how many tokens that is."""
        return self._loop.pin(terms, tokens, seconds)

    def gauges(self) -> tuple[Gauges, dict[str, Gauges]]:
        """Where the blocks of the cache are, for everybody and by tenant."""
        return self._loop.scheduler.gauges()

    def turn(self) -> None:
        """One turn of the loop; its events are in their streams afterwards."""
        self._deliver(self._loop.turn())

    def land(self) -> None:
        """Wait for the step in flight and deliver its events; no other is submitted."""
        self._deliver(self._loop.land())

    def drain(self) -> None:
        """Turn until nothing is left to do."""
        while not self._loop.is_idle:
            self.turn()

    def close(self) -> None:
        """Cancel what is left, wait for what is in flight, and let the runner go. Does nothing the second time."""
        if self._is_closed:
            return
        self._is_closed = True
        for stream in list(self._streams.values()):
            self.cancel(stream)
        self.drain()
        self._loop.close()

    def abandon(self) -> None:
        """Let the runner go without waiting: for an engine that nobody can reach any more."""
        if not self._is_closed:
            self._is_closed = True
            self._loop.close(wait=False)

    def _deliver(self, events: list[Event]) -> None:
        for event in events:
            stream = self._streams[event.request]
            stream.put(event)
            if isinstance(event, Ended):
                del self._streams[event.request]
