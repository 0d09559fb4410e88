"""Happened: the events of a line as bytes and back.

A result's tokens are events in the order of its choices, unless their sequence has ended meanwhile: so events are runs
of choices that were taken as they came, and between them whatever else happened, which goes as plain records.
"""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Sequence as Line_of
from dataclasses import fields, replace
from typing import Any

from openwork.core.errors import TraceError
from openwork.core.event import Admitted, Arrived, Ended, Event, Finished, Preempted, Prefilled, Token
from openwork.core.output import Logprob
from openwork.core.step import Choice, Outcome
from openwork.trace.coding.mirror import Line, Mirror, Slot
from openwork.trace.coding.plain import Reader, plain
from openwork.trace.coding.pseudonym import Reader as WordReader
from openwork.trace.coding.pseudonym import Writer as WordWriter
from openwork.trace.coding.shape import Bytes, pack, put, put_bytes

EVENTS = (Arrived, Admitted, Preempted, Prefilled, Token, Finished, Ended)
CLAIM, SKIP, PREFILLED, SAID, PLAIN = range(5)

Claim = tuple[Line, int, int, Choice]  # a choice as the event of it would be: its line, index and position


class EventWriter:
    def __init__(self, mirror: Mirror, words: WordWriter, keeps_tokens: bool) -> None:
        self.mirror = mirror
        self._words = words
        self._keeps_tokens = keeps_tokens

    def plain(self, events: Iterable[Event], time: float) -> list[Any]:
        """Events without a shorthand; those among them that end something end it in the mirror."""
        said = [[EVENTS.index(type(event)), self._plain(event, time)] for event in events]
        self.mirror.happen(events)
        return said

    def write(
        self, out: bytearray, time: float, slots: list[Slot], outcomes: Line_of[Outcome], events: Line_of[Event]
    ) -> None:
        choices = claimable(slots, outcomes)
        at = run = work = 0
        for event in events:
            if type(event) is Token and event.time == time:
                if at < len(choices) and _is_claim(choices[at], event):
                    run += 1
                    self._grow(choices[at][0], event)
                    at += 1
                    continue
                run = _end_run(out, run)
                found = next((i for i in range(at, len(choices)) if _is_claim(choices[i], event)), None)
                if found is None:
                    self._said(out, event)
                    continue
                put(out, (found - at) << 3 | SKIP)
                self._grow(choices[found][0], event)
                at, run = found + 1, 1
                continue
            run = _end_run(out, run)
            if type(event) is Prefilled and (place := _prefilled(slots, work, event, time, self.mirror)) is not None:
                put(out, (place - work) << 3 | PREFILLED)
                work = place + 1
            else:
                put(out, PLAIN)
                put_bytes(out, pack(self.plain((event,), time)[0]))
        _end_run(out, run)

    def _grow(self, line: Line, event: Token) -> None:
        asked = self.mirror.asked[event.request]
        own = line if line.index == event.index else asked.line(event.index)
        own.length += 1
        if not self._keeps_tokens:
            words, own.place = self._words.walk(own.place, (event.choice.token,))
            own.words += words

    def _said(self, out: bytearray, event: Token) -> None:
        """A token that a search gives out, which is nobody's choice."""
        asked = self.mirror.asked[event.request]
        line = asked.saying(event.index)
        put(out, SAID)
        for number in (event.request, event.index, event.position):
            put(out, number)
        word = self._words.next(line.place, (event.choice.token,), asked.ends).tobytes()
        out += word
        line.words += word
        _, line.place = self._words.walk(line.place, (event.choice.token,))
        line.length += 1

    def _plain(self, event: Event, time: float) -> dict[int, Any]:
        said: dict[int, Any] = plain(event)
        numbers = _NUMBERS[type(event)]
        if event.time == time:
            del said[numbers["time"]]
        if isinstance(event, Ended):
            if event.prompt_logprobs is not None:
                said[numbers["prompt_logprobs"]] = True  # the results have them
            if event.search is not None and not self._keeps_tokens:
                del said[numbers["search"]]
        return said


_NUMBERS = {kind: {field.name: number for number, field in enumerate(fields(kind))} for kind in EVENTS}


def claimable(slots: list[Slot], outcomes: Line_of[Outcome]) -> list[Claim]:
    """Every choice as the event of it would be: its line, the index and position that it has."""
    found = []
    for slot, outcome in zip(slots, outcomes, strict=True):
        line, position = slot.line, slot.position
        for place, choice in enumerate(outcome.choices):
            is_fan = slot.num_draws > 1
            found.append((line, place if is_fan else line.index, position + (0 if is_fan else place), choice))
    return found


def _is_claim(claim: Claim, event: Token) -> bool:
    line, index, position, choice = claim
    is_its = line.number == event.request and index == event.index and position == event.position
    return is_its and (choice is event.choice or choice == event.choice)


def _end_run(out: bytearray, run: int) -> int:
    if run:
        put(out, run << 3 | CLAIM)
    return 0


def _prefilled(slots: list[Slot], first: int, event: Prefilled, time: float, mirror: Mirror) -> int | None:
    """The work that such an event is of."""
    asked = mirror.asked.get(event.request)
    if asked is None or event.known != asked.prompt_len or event.time != time:
        return None
    for place in range(first, len(slots)):
        slot = slots[place]
        if slot.line.number == event.request and slot.line.index == event.index:
            done = min(slot.position, asked.prompt_len)
            return place if done == event.computed else None
    return None


class EventReader:
    def __init__(self, mirror: Mirror, words: WordReader, records: Reader) -> None:
        self.mirror = mirror
        self._words = words
        self._records = records

    def read(self, said: Any, time: float) -> tuple[Event, ...]:
        """Events that went as plain records."""
        events = tuple(self._plain(kind, dict(fields), time) for kind, fields in said)
        self.mirror.happen(events)
        return events

    def run(self, body: Bytes, time: float, slots: list[Slot], claims: list[Claim]) -> tuple[Event, ...]:
        """The events of a result, to the end of the line."""
        events: list[Event] = []
        at = work = 0
        while not body.is_over:
            word = body.number()
            count, what = word >> 3, word & 7
            if what == CLAIM:
                if at + count > len(claims):
                    raise TraceError("more tokens were taken than chosen")
                events += [self._grow(claim, time) for claim in claims[at : at + count]]
                at += count
            elif what == SKIP:
                at += count
            elif what == PREFILLED:
                work += count + 1
                events.append(self._prefilled(slots[work - 1], time))
            elif what == SAID:
                events.append(self._said(body, time))
            else:
                events += self.read([body.packed()], time)
        return tuple(events)

    def _grow(self, claim: Claim, time: float) -> Token:
        line, index, position, choice = claim
        asked = self.mirror.asked[line.number]
        own = line if line.index == index else asked.line(index)
        own.tokens.append(choice.token)
        own.length += 1
        own.place = self._words.after(own.place, choice.token)
        return Token(line.number, index, position, choice, time)

    def _prefilled(self, slot: Slot, time: float) -> Prefilled:
        known = self.mirror.asked[slot.line.number].prompt_len
        done = min(slot.position, known)
        return Prefilled(slot.line.number, slot.line.index, done, known, time)

    def _said(self, body: Bytes, time: float) -> Token:
        number, index, position = body.number(), body.number(), body.number()
        line = self.mirror.asked[number].saying(index)
        token = self._words.next(line.place, body.words(1)[0])
        line.tokens.append(token)
        line.length += 1
        line.place = self._words.after(line.place, token)
        return Token(number, index, position, Choice(token), time)

    def _plain(self, kind: int, said: dict[int, Any], time: float) -> Event:
        names = self._records.names(EVENTS[kind])
        numbers = {name: number for number, name in enumerate(names)}
        said.setdefault(numbers["time"], time)
        scores: tuple[Logprob | None, ...] | None = None
        if EVENTS[kind] is Ended and said.pop(numbers["prompt_logprobs"], False):
            asked = self.mirror.asked[said[numbers["request"]]]
            scores = tuple(asked.scores.get(position) for position in range(asked.prompt_len))
        event: Event = self._records.read(EVENTS[kind], said)
        if isinstance(event, Finished) and event.stop_id is not None:
            return replace(event, stop_id=self._words.end(event.stop_id))
        return replace(event, prompt_logprobs=scores) if isinstance(event, Ended) and scores is not None else event
