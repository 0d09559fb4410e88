"""Results: what came of a step, as bytes and back: tokens, the hashes of their rows, stamps, and what else there is.

A log without tokens keeps neither hashes nor stamps: whoever has the model could try a guessed prompt against them.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence as Line_of
from dataclasses import replace
from typing import Any, get_type_hints

from openwork.core.errors import TraceError
from openwork.core.event import Event
from openwork.core.output import Failure, Logprob
from openwork.core.stamp import Stamp
from openwork.core.step import Candidates, Choice, Outcome, Result
from openwork.trace.coding.happened import EventReader, EventWriter, claimable
from openwork.trace.coding.mirror import Mirror, Slot
from openwork.trace.coding.plain import Reader, others, unknown
from openwork.trace.coding.pseudonym import Ids
from openwork.trace.coding.pseudonym import Reader as WordReader
from openwork.trace.coding.pseudonym import Writer as WordWriter
from openwork.trace.coding.shape import HEAD, RAN, REAL, Bytes, pack, put, put_bytes
from openwork.trace.entry import Ran

IS_OLDEST, HAS_HASHES, SOME_HASHES, OTHER_COUNTS, HAS_REST, HAS_STAMPS = (1 << bit for bit in range(6))
KNOWN = frozenset({"choices", "scores", "failure", "candidates", "failed", "row_hashes"})
UNKNOWN = unknown(Outcome, KNOWN)
_FIELDS = get_type_hints(Outcome)


def _stamps(choices: Line_of[Choice]) -> bytes:
    """Of the choices that have one: how many; then each with its place behind the one before, and its points."""
    found = [(at, choice.stamp) for at, choice in enumerate(choices) if choice.stamp is not None]
    out, before = bytearray(), 0
    if found:
        put(out, len(found))
    for at, stamp in found:
        put(out, at - before)
        put_bytes(out, array("I", stamp).tobytes())
        before = at
    return bytes(out)


def _read_stamps(body: Bytes, num_choices: int) -> dict[int, Stamp]:
    found: dict[int, Stamp] = {}
    at = 0
    for _ in range(body.count(2)):
        at += body.number()
        if at >= num_choices:
            raise TraceError("a stamp is of no token")
        found[at] = tuple(array("I", body.take(body.count(1))))
    return found


def _stamped(outcome: Outcome, stamps: dict[int, Stamp]) -> Outcome:
    choices = [
        replace(choice, stamp=stamps[place]) if place in stamps else choice
        for place, choice in enumerate(outcome.choices)
    ]
    return replace(outcome, choices=tuple(choices))


class ResultWriter:
    def __init__(self, mirror: Mirror, words: WordWriter, events: EventWriter, keeps_tokens: bool) -> None:
        self.mirror = mirror
        self._words = words
        self._events = events
        self._keeps_tokens = keeps_tokens

    def write(self, time: float, result: Result, events: Line_of[Event]) -> bytes:
        flights = self.mirror.flights
        out = bytearray(HEAD.pack(RAN, time))
        out += REAL.pack(result.elapsed_s)
        is_oldest = result.step == next(iter(flights))
        slots = flights.pop(result.step)
        counts = [len(outcome.choices) for outcome in result.outcomes]
        choices = [choice for outcome in result.outcomes for choice in outcome.choices]
        hashes: list[Any] = [choice.row_hash for choice in choices]
        num_hashes = len(hashes) - hashes.count(None) if self._keeps_tokens else 0
        stamps = _stamps(choices) if self._keeps_tokens else b""
        is_usual = counts == [slot.num_draws for slot in slots]
        rest = [
            [place, *said]
            for place, (slot, outcome) in enumerate(zip(slots, result.outcomes, strict=True))
            if (said := self._rest(slot, outcome)) is not None
        ]
        flags = IS_OLDEST * is_oldest | HAS_HASHES * (0 < num_hashes == len(hashes)) | OTHER_COUNTS * (not is_usual)
        flags |= SOME_HASHES * (0 < num_hashes < len(hashes)) | HAS_REST * bool(rest) | HAS_STAMPS * bool(stamps)
        out.append(flags)
        if not is_oldest:
            put(out, result.step)
        if not is_usual:
            for count in counts:
                put(out, count)
        out += self._chosen(slots, result.outcomes)
        if flags & HAS_HASHES:
            out += array("Q", hashes).tobytes()
        elif flags & SOME_HASHES:
            put_bytes(out, pack(hashes))
        out += stamps
        if rest:
            put_bytes(out, pack(rest))
        self._events.write(out, time, slots, result.outcomes, events)
        for slot, count in zip(slots, counts, strict=True):
            slot.land(count)
        return bytes(out)

    def _chosen(self, slots: list[Slot], outcomes: Line_of[Outcome]) -> bytes:
        if isinstance(self._words, Ids):
            return array("I", [choice.token for outcome in outcomes for choice in outcome.choices]).tobytes()
        words = array("I")
        for slot, outcome in zip(slots, outcomes, strict=True):
            if not outcome.choices:
                continue
            place, asked = slot.line.place, self.mirror.asked.get(slot.line.number)
            ends = frozenset[int]() if asked is None else asked.ends
            for choice in outcome.choices:
                words += self._words.next(place, (choice.token,), ends)
                if slot.num_drafts:
                    _, place = self._words.walk(place, (choice.token,))
        return words.tobytes()

    def _rest(self, slot: Slot, outcome: Outcome) -> list[Any] | None:
        """What there is of an outcome beside its tokens: [failure, failed, scores, logprobs, candidates, others], and
        behind them the hashes of rows that no token was chosen from, if there are some."""
        rest = others(outcome, UNKNOWN) if UNKNOWN else {}
        has_logprobs = False
        for choice in outcome.choices:
            has_logprobs = has_logprobs or choice.logprob is not None
        is_plain = outcome.failure is None and outcome.candidates is None and not outcome.scores
        if is_plain and not has_logprobs and not rest and outcome.failed == "numbers":
            return None
        logprobs = [self._logprob(choice.logprob) for choice in outcome.choices] if has_logprobs else []
        found = None
        if outcome.candidates is not None:
            # Beside the decisions of a search that compares tokens they would say which were held against a line.
            is_told = slot.compares and not self._keeps_tokens
            found = [b"", [], []] if is_told else self._candidates(slot, outcome.candidates)
        scores = [self._logprob(each) for each in outcome.scores]
        said = [outcome.failure, outcome.failed, scores, logprobs, found, rest]
        return [*said, array("Q", outcome.row_hashes).tobytes()] if outcome.row_hashes and self._keeps_tokens else said

    def _logprob(self, logprob: Logprob | None) -> Any:
        if logprob is None:
            return None
        if not self._keeps_tokens:
            return [logprob.logprob, logprob.rank]
        return [logprob.logprob, logprob.rank, logprob.token, logprob.top]

    def _candidates(self, slot: Slot, found: Candidates) -> list[Any]:
        asked = self.mirror.asked.get(slot.line.number)
        ends = frozenset[int]() if asked is None else asked.ends
        words = self._words.next(slot.line.place, (token for token, _ in found.top), ends)
        return [words.tobytes(), [logprob for _, logprob in found.top], found.among]


class ResultReader:
    def __init__(self, mirror: Mirror, words: WordReader, records: Reader, events: EventReader) -> None:
        self.mirror = mirror
        self._words = words
        self._records = records
        self._events = events

    def read(self, time: float, body: Bytes) -> Ran:
        flights = self.mirror.flights
        elapsed_s, flags = body.real(), body.byte()
        if not flights:
            raise TraceError("a result is of a step that is not there")
        number = next(iter(flights)) if flags & IS_OLDEST else body.number()
        slots = flights.pop(number)
        counts = [body.number() if flags & OTHER_COUNTS else slot.num_draws for slot in slots]
        words = body.words(sum(counts))
        hashes: Line_of[int | None] = [None] * len(words)
        if flags & HAS_HASHES:
            hashes = array("Q", body.take(8 * len(words)))
        elif flags & SOME_HASHES:
            hashes = self._records.read(tuple[int | None, ...], body.packed())
        stamps = _read_stamps(body, len(words)) if flags & HAS_STAMPS else {}
        rest = {place: said for place, *said in body.packed()} if flags & HAS_REST else {}
        outcomes, at = [], 0
        for place, (slot, count) in enumerate(zip(slots, counts, strict=True)):
            part = slice(at, at + count)
            found = self._outcome(slot, words[part], hashes[part], rest.get(place))
            own = {which - at: stamps[which] for which in range(at, at + count) if which in stamps} if stamps else {}
            outcomes.append(_stamped(found, own) if own else found)
            at += count
        events = self._events.run(body, time, slots, claimable(slots, outcomes))
        for slot, count in zip(slots, counts, strict=True):
            slot.land(count)
        return Ran(time, Result(number, tuple(outcomes), elapsed_s), events)

    def _outcome(self, slot: Slot, words: Line_of[int], hashes: Line_of[int | None], rest: Any) -> Outcome:
        if rest is None and len(words) == 1:  # the usual one
            return Outcome((Choice(self._words.next(slot.line.place, words[0]), None, hashes[0]),))
        tokens, place = [], slot.line.place
        for word in words:
            tokens.append(self._words.next(place, word))
            if slot.num_drafts:
                place = self._words.after(place, tokens[-1])
        if rest is None:
            return Outcome(tuple(Choice(token, None, row_hash) for token, row_hash in zip(tokens, hashes, strict=True)))
        failure, failed, scores, logprobs, found, unknown, *more = rest
        each = [self._logprob(*pair) for pair in zip(logprobs or [None] * len(tokens), tokens, strict=True)]
        targets = [0] * len(scores) if slot.score is None else self._targets(slot, len(scores))
        scored = tuple(self._logprob(*pair) for pair in zip(scores, targets, strict=True))
        self._score(slot, scored)
        return Outcome(
            choices=tuple(map(Choice, tokens, each, hashes)),
            scores=scored,  # type: ignore[arg-type]
            failure=None if failure is None else str(failure),
            candidates=None if found is None else self._candidates(slot, *found),
            failed=self._records.read(Failure, failed),
            row_hashes=tuple(array("Q", more[0])) if more else (),
            **{name: self._records.read(_FIELDS[name], value) for name, value in unknown.items()},
        )

    def _targets(self, slot: Slot, count: int) -> list[int]:
        assert slot.score is not None
        first = slot.start + slot.score[2] + 1
        return slot.line.tokens[first : first + count]

    def _score(self, slot: Slot, scored: tuple[Logprob | None, ...]) -> None:
        """Log-probabilities of the prompt are told again when the request ends."""
        asked = self.mirror.asked.get(slot.line.number)
        if asked is not None and scored and not asked.is_search:
            for position, logprob in enumerate(scored, start=slot.start + 1):
                if logprob is not None:
                    asked.scores[position] = logprob

    def _logprob(self, said: Any, token: int) -> Logprob | None:
        if said is None:
            return None
        logprob, rank, *more = said
        if not more:
            return Logprob(token, float(logprob), int(rank))
        top = tuple((int(other), float(value)) for other, value in more[1])
        return Logprob(int(more[0]), float(logprob), int(rank), top)

    def _candidates(self, slot: Slot, words: bytes, logprobs: list[float], among: list[float]) -> Candidates:
        tokens = [self._words.next(slot.line.place, word) for word in array("I", words)]
        order = range(len(among)) if slot.among is None or not among else slot.among
        top = tuple(zip(tokens, map(float, logprobs), strict=True))
        return Candidates(top, tuple(float(among[place]) for place in order))
