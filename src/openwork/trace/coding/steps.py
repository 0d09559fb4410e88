"""Steps: what is planned, as bytes and back, said against the step before (mirror.py): whose turn comes next, and why.

What each sequence computes in it is a work (works.py). A step that is like the one before is a few bytes.
"""

from __future__ import annotations

from collections.abc import Sequence as Line_of

from openwork.core.errors import TraceError
from openwork.core.event import Event
from openwork.core.sequence import Sequence
from openwork.core.step import Copy, Step, Why, Work
from openwork.trace.coding.happened import EventReader, EventWriter
from openwork.trace.coding.mirror import Mirror, Slot
from openwork.trace.coding.plain import Reader
from openwork.trace.coding.pseudonym import Reader as WordReader
from openwork.trace.coding.pseudonym import Writer as WordWriter
from openwork.trace.coding.shape import HEAD, PLANNED, Bytes, pack, put, put_bytes
from openwork.trace.coding.works import WorkReader, WorkWriter
from openwork.trace.entry import Planned

CAUSES = ("rows", "blocks", "places", "tenant", "prefix", "result", "preempted")
# Of a step.
IS_NEXT, SAME_WHY, HAS_COPIES, HAS_LEFT_OUT, HAS_EVENTS, NO_WHY = (1 << bit for bit in range(6))


class StepWriter:
    def __init__(self, mirror: Mirror, words: WordWriter, events: EventWriter) -> None:
        self.mirror = mirror
        self._works = WorkWriter(mirror, words)
        self._events = events

    def write(self, time: float, step: Step, sequences: Line_of[Sequence], events: Line_of[Event]) -> bytes:
        mirror, why = self.mirror, step.why
        out = bytearray(HEAD.pack(PLANNED, time))
        is_known = why is None or (why.order, why.bound) == mirror.why
        flags = IS_NEXT * (step.number == mirror.next_step) | SAME_WHY * is_known | HAS_COPIES * bool(step.copies)
        flags |= HAS_LEFT_OUT * bool(why is not None and why.left_out)
        flags |= HAS_EVENTS * bool(events) | NO_WHY * (why is None)
        out.append(flags)
        if step.number != mirror.next_step:
            put(out, step.number)
        mirror.next_step = step.number + 1
        if why is not None:
            if not is_known:
                mirror.why = why.order, why.bound
                put_bytes(out, pack(mirror.why))
            put(out, why.rows)
            if why.left_out:
                self._left_out(out, why.left_out)
        if step.copies:
            put(out, len(step.copies))
            for copy in step.copies:
                put(out, copy.source)
                put(out, copy.target)
        put(out, len(step.works))
        turns = {sequence: turn for turn, sequence in enumerate(mirror.order)}
        turn = 0
        slots: list[Slot] = []
        for work, sequence in zip(step.works, sequences, strict=True):
            turn = self._works.write(out, work, sequence, turns, turn, slots)
        mirror.order = [work.sequence for work in step.works]
        mirror.flights[step.number] = slots
        if events:
            out += pack(self._events.plain(events, time))
            mirror.happen(events)
        return bytes(out)

    def _left_out(self, out: bytearray, left_out: Line_of[tuple[int, str]]) -> None:
        put(out, len(left_out))
        for sequence, cause in left_out:
            put(out, sequence)
            if cause in CAUSES:
                put(out, CAUSES.index(cause) + 1)
            else:
                put(out, 0)
                put_bytes(out, cause.encode())


class StepReader:
    def __init__(self, mirror: Mirror, words: WordReader, records: Reader, events: EventReader) -> None:
        self.mirror = mirror
        self._works = WorkReader(mirror, words, records)
        self._events = events

    def read(self, time: float, body: Bytes) -> Planned:
        mirror = self.mirror
        flags = body.byte()
        number = mirror.next_step if flags & IS_NEXT else body.number()
        mirror.next_step = number + 1
        why = None if flags & NO_WHY else self._why(body, flags)
        copies: tuple[Copy, ...] = ()
        if flags & HAS_COPIES:
            copies = tuple(Copy(body.number(), body.number()) for _ in range(body.count(2)))
        works: list[Work] = []
        slots: list[Slot] = []
        turn, turns = 0, {sequence: place for place, sequence in enumerate(mirror.order)}
        for _ in range(body.count(1)):
            works.append(self._works.read(body, turn, slots))
            own = turns.get(works[-1].sequence)
            turn = turn + 1 if own is None else own + 1
        mirror.order = [work.sequence for work in works]
        mirror.flights[number] = slots
        lines = self._lines(works, slots)
        events = self._events.read(body.rest(), time) if flags & HAS_EVENTS else ()
        owners = tuple((slot.line.number, slot.line.index) for slot in slots)
        return Planned(time, Step(number, tuple(works), copies, why), events, owners, lines)

    def _lines(self, works: list[Work], slots: list[Slot]) -> tuple[tuple[int, ...] | None, ...]:
        lines = tuple(
            tuple(slot.line.tokens[asked.prompt_len :])
            if (asked := self.mirror.asked[slot.line.number]).is_search and (work.expand or work.score)
            else None
            for work, slot in zip(works, slots, strict=True)
        )
        return lines if any(line is not None for line in lines) else ()

    def _why(self, body: Bytes, flags: int) -> Why:
        if not flags & SAME_WHY:
            order, bound = body.packed()
            self.mirror.why = order, bound
        if self.mirror.why is None:
            raise TraceError("it is like a step that is not there")
        order, bound = self.mirror.why
        rows, left_out = body.number(), []
        if flags & HAS_LEFT_OUT:
            for _ in range(body.count(2)):
                sequence, cause = body.number(), body.number()
                left_out.append((sequence, CAUSES[cause - 1] if cause else body.take(body.count(1)).decode()))
        return Why(order, rows, bound, tuple(left_out))  # type: ignore[arg-type]
