"""Encoder: everything that happens in one engine process, line by line, as bytes.

It guarantees that nothing of a step or a result is left out: a field without a shorthand goes as it is, and the tests
walk the fields of every record. A log that may not keep tokens has hashes in their place, and leaves out what would
give them away (docs/recorder.md).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from collections.abc import Sequence as Line_of
from typing import Any

from openwork.core.event import Event
from openwork.core.output import FinishReason
from openwork.core.request import Request
from openwork.core.sequence import Sequence
from openwork.core.step import Result, Step
from openwork.core.terms import Tenant, Terms
from openwork.decode.strategy import Generation
from openwork.kv.saved import Saved
from openwork.schedule.scheduler import Scheduler
from openwork.trace.coding import private
from openwork.trace.coding.decided import DecidedWriter
from openwork.trace.coding.happened import EventWriter
from openwork.trace.coding.mirror import Asked, Mirror
from openwork.trace.coding.picture import PictureWriter
from openwork.trace.coding.plain import plain
from openwork.trace.coding.pseudonym import Hashes, Ids, Place, Writer
from openwork.trace.coding.results import ResultWriter
from openwork.trace.coding.shape import (
    CANCELLED,
    FAILED,
    HEAD,
    KEY,
    PICTURE,
    PINNED,
    REPLACED,
    RESTORED,
    SUBMITTED,
    WAITED,
    pack,
    put_bytes,
    rare,
)
from openwork.trace.coding.steps import StepWriter


class Encoder:
    """``keeps_tokens``: ids are written as they are. Every method returns the bytes of one line."""

    def __init__(self, keeps_tokens: bool) -> None:
        self.mirror = Mirror()
        self.keeps_tokens = keeps_tokens
        self._words: Writer = Ids() if keeps_tokens else Hashes()
        self._events = EventWriter(self.mirror, self._words, keeps_tokens)
        self._steps = StepWriter(self.mirror, self._words, self._events)
        self._results = ResultWriter(self.mirror, self._words, self._events, keeps_tokens)
        self._pictures = PictureWriter(self.mirror, self._words, keeps_tokens)
        self._decided = DecidedWriter(self.mirror, self._words)

    def submitted(
        self,
        time: float,
        number: int,
        name: str,
        request: Request,
        so_far: Mapping[int, Line_of[int]] | None,
        error: str,
    ) -> bytes:
        words, place = self._words.walk(self._words.root, request.prompt)
        asked = Asked(number, name, request, len(request.prompt), place)
        asked.is_search = request.search is not None
        about = [*self._how(request), self._search(asked)]
        asked.words, asked.how = words, pack(about)
        parts = [words]
        begun: dict[int, int] | None = None if so_far is None else {}
        for index, tokens in (so_far or {}).items():
            assert begun is not None
            begun[index] = len(tokens)
            words, place = self._words.walk(asked.place, tokens)
            parts.append(words)
            line = asked.saying(index) if asked.is_search else asked.line(index)
            line.length, line.place, line.words = asked.prompt_len + len(tokens), place, bytearray(words)
        out = bytearray(HEAD.pack(SUBMITTED, time))
        put_bytes(out, pack([number, name, error, *about, asked.prompt_len, begun]))
        out += b"".join(parts)
        if not error:
            self.mirror.submit(asked)
        return bytes(out)

    def _how(self, request: Request) -> list[Any]:
        params = request.params if self.keeps_tokens else private.params(request.params)
        return [plain(params), plain(request.limits), plain(request.terms)]

    def _search(self, asked: Asked) -> Any:
        search = asked.request.search
        if search is None or self.keeps_tokens:
            return plain(search)
        options = () if search.choose is None else search.choose.options
        # In the order of their ids, in which a reader gives stand-ins that are in the same order.
        order = sorted(range(len(options)), key=options.__getitem__)
        words = [(place, self._words.walk(asked.place, options[place])[0]) for place in order]
        return [plain(private.search(search)), words]

    def cancelled(
        self, time: float, number: int, index: int | None, reason: FinishReason, events: Line_of[Event]
    ) -> bytes:
        return rare(CANCELLED, time, [number, index, reason, self._events.plain(events, time)])

    def pinned(self, time: float, terms: Terms, tokens: Line_of[int], until: float) -> bytes:
        words, _ = self._words.walk(self._words.root, tokens)
        return rare(PINNED, time, [plain(terms), words, until])

    def replaced(self, time: float, tenants: Mapping[str, Tenant]) -> bytes:
        return rare(REPLACED, time, plain(dict(tenants)))

    def restored(self, time: float, records: Iterable[Saved]) -> bytes:
        said: list[Any] = []
        places: list[Place] = []
        for record in records:
            before = self._words.root if record.parent is None else places[record.parent]
            words, place = self._words.walk(before, record.tokens)
            places.append(place)
            said.append([record.namespace, record.tenant, record.parent, words, record.block])
        return rare(RESTORED, time, said)

    def planned(self, time: float, step: Step, sequences: Line_of[Sequence], events: Line_of[Event]) -> bytes:
        self._pictures.planned(step)
        return self._steps.write(time, step, sequences, events)

    def waited(self, time: float, events: Line_of[Event], for_guess: bool) -> bytes:
        # Nothing else happens in a plan that waits for a guess.
        return rare(WAITED, time, None if for_guess else self._events.plain(events, time))

    def ran(self, time: float, result: Result, events: Line_of[Event]) -> bytes:
        self._pictures.landed(result.step)
        return self._results.write(time, result, events)

    def decided(self, time: float, number: int, generation: Generation, worths: Mapping[int, float]) -> bytes:
        return self._decided.write(time, number, generation, worths)

    def failed(self, time: float, step: int, message: str, events: Line_of[Event]) -> bytes:
        self.mirror.flights.pop(step, None)
        self._pictures.landed(step)
        return rare(FAILED, time, [step, message, self._events.plain(events, time)])

    def key(self, time: float) -> bytes:
        """A picture of what reader and writer know, from which a reader can begin."""
        self._decided.forget()
        how = {asked.number: self._how(asked.request) for asked in self.mirror.asked.values()}
        return rare(KEY, time, [self.mirror.picture(), how])

    def attend(self, scheduler: Scheduler) -> None:
        """Whose state pictures are of."""
        self._pictures.attend(scheduler)

    def picture(self, time: float) -> bytes | None:
        """A picture of the scheduler, from which a replay can begin; None where it would cost too much now."""
        said = self._pictures.take()
        return None if said is None else rare(PICTURE, time, said)
