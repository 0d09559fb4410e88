"""Thaw: a picture of a scheduler (picture.py) made into one again, which goes on as the pictured one did.

It guarantees that a picture of another version, one that contradicts itself or is no picture at all is a TraceError and
nothing else: what was put together is held against the laws of conservation before anybody uses it. Where tokens are
not kept they are stand-ins, the same as in the lines that follow.
"""

from __future__ import annotations

import struct
from array import array
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec

from openwork.core.errors import OpenworkError, TraceError
from openwork.core.event import Miss
from openwork.core.output import Logprob
from openwork.core.request import Request, SamplingParams
from openwork.core.sequence import Sequence, Status
from openwork.core.settings import CacheSettings
from openwork.core.step import Draw, Step, Work
from openwork.core.terms import Tenant
from openwork.decode.strategy import Member
from openwork.kv.cache import KVCache
from openwork.schedule.roster import Entry, Group
from openwork.schedule.scheduler import Scheduler
from openwork.trace.coding.blocks import Tree
from openwork.trace.coding.mirror import Mirror
from openwork.trace.coding.plain import Reader
from openwork.trace.coding.pseudonym import Place
from openwork.trace.coding.pseudonym import Reader as WordReader
from openwork.trace.coding.searching import SearchReader
from openwork.trace.coding.shape import Bytes
from openwork.trace.coding.state import FIELDS, VERSION, set_fields

MakeRequest = Callable[[list[int], Place, Any], Request]  # of a prompt, where it ends, and what else was said of it
_NOBODY = Draw(SamplingParams(), 0, 0, 0, frozenset())  # what a result needs of a draw is that there was one
_NONSENSE = (
    AssertionError,
    AttributeError,
    LookupError,
    OverflowError,
    RecursionError,
    TypeError,
    ValueError,
    StopIteration,
    struct.error,
    msgspec.MsgspecError,
    OpenworkError,
)


@dataclass(slots=True)
class Known:
    """A request that is under way: all that is known of it. ``lines`` are its sequences, ``said`` what it gave out."""

    number: int
    name: str
    request: Request
    place: Place  # where its prompt ends
    lines: dict[int, list[int]] = field(default_factory=dict)  # index -> tokens, the prompt's first
    said: dict[int, list[int]] = field(default_factory=dict)  # of a search: index -> tokens behind the prompt
    scores: dict[int, Logprob] = field(default_factory=dict)  # of the prompt
    arrived: float = 0.0
    num_agreed: int = 0  # tokens that a search has decided on

    @property
    def has_all(self) -> bool:
        """Whether none of its sequences has ended, whose tokens would not be here."""
        is_unborn = all(len(tokens) == len(self.request.prompt) for tokens in self.lines.values())
        return self.request.search is not None or is_unborn or len(self.lines) == self.request.params.num_drawn

    @property
    def answers(self) -> dict[int, list[int]]:
        """What its reader was given: index -> tokens behind the prompt."""
        if self.request.search is not None:
            return self.said
        return {index: tokens[len(self.request.prompt) :] for index, tokens in self.lines.items()}


class NotThawed(TraceError):
    """A picture is none, or of another version: a replay cannot begin there, and everything else is as it was."""


class Picture:
    """What was written of one moment. ``step`` is the number that the next one has."""

    def __init__(self, body: Bytes, words: WordReader, records: Reader, make_request: MakeRequest) -> None:
        """Raises NotThawed."""
        try:
            version, step, cache, *rest = body.rest()
            if version != VERSION:
                raise NotThawed("a picture is of another version of openwork")
            self.step: int = records.read(int, step)
            self.cache = CacheSettings(*cache)
            tenants, self.counts, self.asked, self.sequences, self.places, blocks, self.ghosts, self.flights = rest
            self.tenants = records.read(dict[str, Tenant], tenants)
        except _NONSENSE as error:
            raise _nonsense(error) from error
        self.num_bytes = len(body.data)
        self.blocks = blocks
        self.words = words
        self.records = records
        self.make_request = make_request

    def tree(self, cache: KVCache) -> Tree:
        return Tree(cache, self.blocks, self.ghosts, self.words)

    def requests(self) -> list[Known]:
        """Those that are under way. Raises NotThawed."""
        try:
            if 4 * self.cache.num_blocks > self.num_bytes:  # each has a number in the picture
                raise NotThawed("a picture is of a cache of another size")
            return list(_Thawing(self, self.tree(KVCache(self.cache))).requests().values())
        except _NONSENSE as error:
            raise _nonsense(error) from error

    def restore(self, scheduler: Scheduler) -> dict[int, Step]:
        """Let a scheduler that has just been made go on from here; the steps that are in flight, by number.

        Raises NotThawed; the scheduler is of no use then.
        """
        try:
            cache = scheduler.cache
            cache.tenants.replace(self.tenants)
            thawing = _Thawing(self, self.tree(cache))
            thawing.counts(scheduler)
            thawing.everybody(scheduler)
            scheduler.check()
            return {number: Step(number, tuple(_work(*work) for work in works)) for number, works in self.flights}
        except _NONSENSE as error:
            raise _nonsense(error) from error


class _Thawing:
    """One picture that is being thawed."""

    def __init__(self, picture: Picture, tree: Tree) -> None:
        self._picture = picture
        self._words = picture.words
        self._records = picture.records
        self._tree = tree

    def requests(self) -> dict[int, Known]:
        found: dict[int, Known] = {}
        for number, name, prompt_len, (block, rest), how, fields, *_, scores, _, said, search in self._picture.asked:
            tokens, _ = self._tree.line(block, rest)
            prompt = tokens[:prompt_len]
            place = self._stand(prompt)
            request = self._picture.make_request(prompt, place, how)
            known = found[number] = Known(number, str(name), request, place, arrived=float(fields[0]))
            for at, logprob, rank, top in scores:
                likely = tuple((int(token), float(own)) for token, own in top)
                known.scores[at] = Logprob(prompt[at], float(logprob), int(rank), likely)
            if search is not None:
                known.num_agreed = search[1][-1][list(FIELDS[Group]).index("num_said")]
            for index, words in said:
                line: list[int] = []
                for word in array("I", words):
                    line.append(self._words.next(place, word))
                    place = self._words.after(place, line[-1])
                known.said[index] = line
                place = known.place
        for fields, _, (block, rest), *_ in self._picture.sequences:
            found[fields[1]].lines[fields[2]] = self._tree.line(block, rest)[0]
        return found

    def _stand(self, tokens: list[int]) -> Place:
        place = self._words.root
        for token in tokens:
            place = self._words.after(place, token)
        return place

    def counts(self, scheduler: Scheduler) -> None:
        """Shares, pace, budget."""
        roster, shares, planner, budget, pace = self._picture.counts
        speculation = scheduler._planner._speculation
        set_fields(scheduler._roster, roster, self._records)
        set_fields(scheduler._shares, shares, self._records)
        set_fields(scheduler._planner, planner, self._records)
        set_fields(scheduler._planner.budget, budget, self._records)
        if speculation is not None:
            own = speculation._pace
            fields, paces, gaps, times = pace
            set_fields(speculation, fields, self._records)
            set_fields(own, paces, self._records)
            own._gaps.extend(map(float, gaps))
            own._times = {rows: deque(map(float, each), own._gaps.maxlen) for rows, each in times.items()}

    def everybody(self, scheduler: Scheduler) -> None:
        roster, known = scheduler._roster, self.requests()
        entries = {each[0]: each for each in self._picture.asked}
        for number, each in known.items():
            roster.entries[number] = self._entry(each, entries[number])
        for said in self._picture.sequences:
            sequence = self._sequence(known, said, scheduler)
            roster.sequences[sequence.id] = sequence
        for number, each in entries.items():
            entry = roster.entries[number]
            living = [roster.sequences[id] for id in each[8]]
            entry.living = {sequence.index: sequence for sequence in living}
            if each[12] is not None:
                entry.group = self._group(known[number], each[12], scheduler)
        self._places(scheduler)

    def _group(self, known: Known, said: list[Any], scheduler: Scheduler) -> Group:
        members, search = said
        group = SearchReader(known.request, self._words, known.place, self._records).read(search)
        group.members = {node: scheduler._roster.sequences[id] for node, id in members}
        for node, member in group.members.items():
            member.strategy = Member(node, group.strategy.leaf(node).expand)
        given = known.said.get(0, ())
        going_on = scheduler._strategies.going_on
        group.strategy = going_on(known.number, known.request, group.strategy, given, group.num_said)
        return group

    def _entry(self, known: Known, said: list[Any]) -> Entry:
        _, _, _, _, _, fields, tally, miss, _, _, blocks, *_ = said
        entry = Entry(known.request, 0.0, 0.0)
        set_fields(entry, fields, self._records)
        set_fields(entry.tally, tally, self._records)
        entry.tally.miss = None if miss is None else Miss(*miss)
        entry.scores = dict(known.scores)
        entry.blocks = set(blocks)
        return entry

    def _sequence(self, known: dict[int, Known], said: list[Any], scheduler: Scheduler) -> Sequence:
        fields, status, _, leaf, how, followed = said
        own = known[fields[1]]
        strategy = scheduler._strategies.drawing(*how) if isinstance(how, list) else None
        sequence = Sequence(0, 0, 0, own.request, strategy, list(own.lines[fields[2]]))
        set_fields(sequence, fields, self._records)
        sequence.status, sequence.leaf = Status(status), self._tree.node(leaf)
        self._tree.hold(sequence)
        speculation = scheduler._planner._speculation
        if followed is not None and speculation is not None:
            sequence.proposer = speculation._make_proposer(sequence)
            sequence.proposer.follow(sequence.tokens, followed)
        return sequence

    def _places(self, scheduler: Scheduler) -> None:
        roster, (running, waiting, new, held) = scheduler._roster, self._picture.places
        for id in running:
            roster._run(roster.sequences[id])
        for line in waiting.values():
            for id in line:
                roster.waiting.push(roster.sequences[id], is_new=id in new)
        roster.held += [roster.sequences[id] for id in held]


def fill(mirror: Mirror, known: list[Known], words: WordReader) -> None:
    """Tell a mirror that began with a key what nobody knew there: prompts, tokens so far, and where they stand."""
    for each in known:
        asked = mirror.asked[each.number]
        asked.request, asked.place, asked.prompt = each.request, each.place, list(each.request.prompt)
        asked.scores, asked.ends, asked.num_agreed = dict(each.scores), each.request.end_ids, each.num_agreed
        own = {
            index: tokens[: asked.lines[index].length] for index, tokens in each.lines.items() if index in asked.lines
        }
        told = {index: [*asked.prompt, *tokens] for index, tokens in each.said.items()}
        for lines, all_tokens in ((asked.lines, own), (asked.said, told)):
            for index, tokens in all_tokens.items():
                line = lines[index]
                if len(tokens) == line.length:
                    line.tokens, line.place = tokens, each.place
                    for token in tokens[asked.prompt_len :]:
                        line.place = words.after(line.place, token)


def _work(sequence: int, start: int, num_tokens: int, is_pending: bool, num_draws: int, num_drafts: int) -> Work:
    if not 0 <= num_tokens <= 1 << 26 or not 0 <= num_draws <= 1 << 16 or not 0 <= num_drafts <= 1 << 16:
        raise TraceError("a picture makes no sense: a step in flight is too large")
    return Work(
        sequence, start, (0,) * num_tokens, bool(is_pending), (), draws=(_NOBODY,) * num_draws, drafts=(0,) * num_drafts
    )


def _nonsense(error: Exception) -> NotThawed:
    if isinstance(error, NotThawed):
        return error
    return NotThawed(f"a picture makes no sense: {type(error).__name__}: {str(error)[:200]}")
