"""Decoder: the bytes of one engine process as entries again. Raises TraceError for what is no line of a log.

It guarantees that after an error it says nothing that rests on what it could not read: only lines that stand for
themselves, until the next key; and then nothing of what was lost, zeros where tokens would be.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import msgspec

from openwork.core.errors import OpenworkError, TraceError
from openwork.core.output import FinishReason
from openwork.core.request import Limits, Request, SamplingParams
from openwork.core.search import Search
from openwork.core.terms import Tenant, Terms
from openwork.kv.saved import Saved
from openwork.trace.coding.decided import DecidedReader
from openwork.trace.coding.happened import EventReader
from openwork.trace.coding.mirror import Asked, Line, Mirror, Slot
from openwork.trace.coding.plain import Reader, Table
from openwork.trace.coding.pseudonym import KnownIds, StandIns
from openwork.trace.coding.pseudonym import Reader as WordReader
from openwork.trace.coding.results import ResultReader
from openwork.trace.coding.shape import (
    CANCELLED,
    DECIDED,
    FAILED,
    HEAD,
    KEY,
    PICTURE,
    PINNED,
    PLANNED,
    RAN,
    REPLACED,
    RESTORED,
    SUBMITTED,
    WAITED,
    Bytes,
)
from openwork.trace.coding.steps import StepReader
from openwork.trace.coding.thaw import NotThawed, Picture, fill
from openwork.trace.entry import Cancelled, Entry, Failed, Pictured, Pinned, Replaced, Restored, Submitted, Waited

MAX_TOKENS = 1 << 26  # of a line that is not there, for which zeros stand
ALONE = {SUBMITTED, PINNED, REPLACED, RESTORED}  # they rest on nothing before them


class Decoder:
    """``table`` says which field has which number. ``is_sure`` is False from an error to the next key."""

    def __init__(self, table: Table, has_tokens: bool, vocab_size: int) -> None:
        self.mirror = Mirror()
        self.is_sure = True
        self._is_whole = True  # False from an error to the next picture
        self._has_tokens = has_tokens
        self._records = Reader(table)
        self._says_why = "row_hashes" in table.get("Outcome", ())  # older logs do not: whatever was waited for
        self._words: WordReader = KnownIds(vocab_size) if has_tokens else StandIns(vocab_size)
        self._events = EventReader(self.mirror, self._words, self._records)
        steps = StepReader(self.mirror, self._words, self._records, self._events)
        results = ResultReader(self.mirror, self._words, self._records, self._events)
        self._kinds: dict[int, Callable[[float, Bytes], Entry]] = {
            SUBMITTED: self._submitted,
            CANCELLED: self._cancelled,
            PINNED: self._pinned,
            REPLACED: self._replaced,
            RESTORED: self._restored,
            PLANNED: steps.read,
            WAITED: self._waited,
            RAN: results.read,
            FAILED: self._failed,
            DECIDED: DecidedReader(self.mirror, self._words).read,
        }

    def lose(self) -> None:
        """Lines are missing here."""
        self.is_sure = self._is_whole = False

    def decode(self, line: bytes) -> Entry | None:
        """The entry of a line; None for a key, and for what rests on lines that are missing."""
        try:
            kind, time = HEAD.unpack_from(line)
            body = Bytes(line, HEAD.size)
            if kind == KEY:
                if not self.is_sure:
                    self._key(body.rest())
                    self.is_sure = True
                return None
            if kind not in self._kinds and kind != PICTURE:
                raise TraceError(f"it is of kind {kind}, which this version does not know")
            if not self.is_sure and kind not in ALONE:
                return None
            return self._picture(time, body) if kind == PICTURE else self._kinds[kind](time, body)
        except NotThawed:
            raise  # nothing rests on it
        except (OpenworkError, msgspec.MsgspecError, struct.error) as error:
            self.lose()
            raise TraceError(f"a line cannot be read: {str(error)[:200]}") from error
        except Exception as error:  # it has the right checksum and is no line all the same: whoever wrote it, not we
            self.lose()
            raise TraceError(f"a line makes no sense: {type(error).__name__}: {str(error)[:200]}") from error

    # -- lines without a shorthand -------------------------------------------------------------------------------

    def _submitted(self, time: float, body: Bytes) -> Submitted:
        number, name, error, params, limits, terms, search, prompt_len, begun = body.packed()
        if not isinstance(name, str) or not isinstance(error, str) or type(number) is not int:
            raise TraceError("a request has no name")
        prompt, place = self._words.walk(self._words.root, body.words(prompt_len))
        how, known, served = self._how(params, limits, terms)
        request = Request(tuple(prompt), how, known, served, self._search(search, place))
        asked = Asked(number, name, request, len(prompt), place, prompt)
        asked.is_search = request.search is not None
        so_far: dict[int, tuple[int, ...]] | None = None if begun is None else {}
        for index, count in (begun or {}).items():
            assert so_far is not None
            tokens, place = self._words.walk(asked.place, body.words(count))
            so_far[index] = tuple(tokens)
            line = asked.saying(index) if asked.is_search else asked.line(index)
            line.tokens += tokens
            line.length, line.place = len(line.tokens), place
        if not error:
            self.mirror.submit(asked)
        return Submitted(time, number, name, request, so_far, error)

    def _request(self, prompt: list[int], place: Any, about: Any) -> Request:
        params, limits, terms, search = about
        how, known, served = self._how(params, limits, terms)
        return Request(tuple(prompt), how, known, served, self._search(search, place))

    def _how(self, params: Any, limits: Any, terms: Any) -> tuple[SamplingParams, Limits, Terms]:
        how: SamplingParams = self._records.read(SamplingParams, params)
        known: Limits = self._records.read(Limits, limits)
        if not self._has_tokens:
            how = replace(how, stop_token_ids=tuple(map(self._words.end, how.stop_token_ids)))
            known = replace(known, eos_ids=frozenset(map(self._words.end, known.eos_ids)))
        return how, known, self._records.read(Terms, terms)

    def _search(self, said: Any, place: Any) -> Search | None:
        if said is None:
            return None
        search: Search = self._records.read(Search, said if self._has_tokens else said[0])
        if search.choose is not None and not self._has_tokens:
            options = {at: tuple(self._words.walk(place, array("I", words))[0]) for at, words in said[1]}
            search = replace(
                search, choose=replace(search.choose, options=tuple(options[at] for at in sorted(options)))
            )
        return search

    def _cancelled(self, time: float, body: Bytes) -> Cancelled:
        number, index, reason, events = body.rest()
        return Cancelled(time, number, index, self._records.read(FinishReason, reason), self._events.read(events, time))

    def _pinned(self, time: float, body: Bytes) -> Pinned:
        terms, words, until = body.rest()
        tokens, _ = self._words.walk(self._words.root, array("I", words))
        return Pinned(time, self._records.read(Terms, terms), tuple(tokens), float(until))

    def _replaced(self, time: float, body: Bytes) -> Replaced:
        return Replaced(time, self._records.read(dict[str, Tenant], body.rest()))

    def _restored(self, time: float, body: Bytes) -> Restored:
        records: list[Saved] = []
        places: list[Any] = []
        for (kind, name), tenant, parent, words, block in body.rest():
            tokens, place = self._words.walk(self._words.root if parent is None else places[parent], array("I", words))
            places.append(place)
            records.append(Saved((kind, name), tenant, parent, tuple(tokens), block))
        return Restored(time, tuple(records))

    def _waited(self, time: float, body: Bytes) -> Waited:
        said = body.rest()
        events = self._events.read(said or (), time)
        return Waited(time, events, said is None or (not self._says_why and not events))

    def _failed(self, time: float, body: Bytes) -> Failed:
        step, message, events = body.rest()
        self.mirror.flights.pop(step, None)
        return Failed(time, step, message, self._events.read(events, time))

    # -- beginning anew ------------------------------------------------------------------------------------------

    def _picture(self, time: float, body: Bytes) -> Pictured:
        picture = Picture(body, self._words, self._records, self._request)
        if self._is_whole:
            return Pictured(time, picture)
        known = picture.requests()
        fill(self.mirror, known, self._words)
        self._is_whole = True
        return Pictured(time, picture, tuple(known))

    def _key(self, picture: Any) -> None:
        (order, why, next_step, asked, flights), how = picture
        mirror, known = self.mirror, self.mirror.asked
        mirror.asked, mirror.by_sequence, mirror.flights = {}, {}, {}
        mirror.order, mirror.why, mirror.next_step = list(order), None if why is None else tuple(why), next_step
        for number, name, prompt_len, is_search, lines, said in asked:
            each = self._husk(number, name, prompt_len, how[number], known.get(number))
            each.is_search = is_search
            mirror.submit(each)
            for index, length, sequence, end, blocks in lines:
                line = each.lines[index] = self._line(each, index, length)
                line.sequence, line.end, line.blocks = sequence, end, tuple(blocks)
                if sequence is not None:
                    mirror.by_sequence[sequence] = line
            each.said = {index: self._line(each, index, length) for index, length in said}
        for number, slots in flights:
            mirror.flights[number] = [self._slot(*slot) for slot in slots]

    def _husk(self, number: int, name: str, prompt_len: int, how: Any, before: Asked | None) -> Asked:
        """A request that is under way: with its prompt, where the line that brought it was read."""
        params, limits, terms = self._how(*how)
        if before is not None and before.name == name and before.prompt_len == prompt_len:
            prompt, place, request = before.prompt, before.place, before.request
        else:
            prompt, place = [0] * _bounded(prompt_len), self._words.lost()
            request = Request(tuple(prompt), params, limits, terms)
        return Asked(number, name, request, prompt_len, place, prompt, is_whole=False)

    def _line(self, asked: Asked, index: int, length: int) -> Line:
        more = [0] * _bounded(length - asked.prompt_len)
        return Line(asked.number, index, length, self._words.lost(), asked.prompt + more)

    def _slot(
        self, number: int, index: int, length: int, start: int, sure: int, draws: int, drafts: int, score: Any
    ) -> Slot:
        asked = self.mirror.asked.get(number)
        line = None if asked is None else asked.lines.get(index)
        if line is None:  # it has ended since
            line = Line(number, index, length, self._words.lost(), [0] * _bounded(length))
        return Slot(line, start, sure, draws, drafts, None if score is None else tuple(score))


def _bounded(length: int) -> int:
    if not 0 <= length <= MAX_TOKENS:
        raise TraceError(f"a line has {length} tokens")
    return length
