"""Picture: the whole pure half at one moment, from which a replay can begin that has not what was before.

    requests · sequences · who runs, waits, is held · shares, pace, budget · searches · tenants · the cache · flights

It holds everything that decides a later step, and nothing else (state.py says which field is what). It is taken in one
go between two lines, so it must be quick: rows come from attribute getters, blocks in columns, and words of tokens are
remembered from when they were written. Where tokens are not kept it holds words alone (pseudonym.py). What it does not
know is how to be read: thaw.py.
"""

from __future__ import annotations

from array import array
from typing import Any

import msgspec

from openwork.core.sequence import Sequence
from openwork.core.step import Step, Work
from openwork.decode.ngram import Ngram
from openwork.decode.sampling import Sampling
from openwork.kv.prefix import Node
from openwork.schedule.roster import Entry, Tally
from openwork.schedule.scheduler import Scheduler
from openwork.trace.coding.blocks import Ghosts, Spelling, said_of
from openwork.trace.coding.mirror import Asked, Line, Mirror
from openwork.trace.coding.plain import plain
from openwork.trace.coding.pseudonym import Writer as WordWriter
from openwork.trace.coding.searching import SearchWriter, num_places
from openwork.trace.coding.state import VERSION, fields_of

MOST_PLACES = 1000  # of all searches together: beyond them a picture takes too long to take between two steps
WORD_BYTES = 4


class PictureWriter:
    """Sees every step that is under way, and takes pictures of the scheduler it attends to."""

    def __init__(self, mirror: Mirror, words: WordWriter, keeps_tokens: bool) -> None:
        self.mirror = mirror
        self._words = words
        self._keeps_tokens = keeps_tokens
        self._spelling = Spelling(words)
        self._flights: dict[int, Step] = {}
        self._scheduler: Scheduler | None = None

    def attend(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler

    def planned(self, step: Step) -> None:
        self._flights[step.number] = step
        if self._scheduler is not None:  # a little at each step, rather than all at once
            self._spelling.look(self._scheduler.cache.tree)

    def landed(self, number: int) -> None:
        self._flights.pop(number, None)

    def take(self) -> list[Any] | None:
        """All of it as plain data; None when nobody is attended to, or it would take too long."""
        if self._scheduler is None:
            return None
        entries = self._scheduler._roster.entries
        if sum(num_places(entry.group.strategy) for entry in entries.values() if entry.group) > MOST_PLACES:
            return None
        return self._say(self._scheduler)

    def _say(self, scheduler: Scheduler) -> list[Any]:
        roster, planner, ghosts = scheduler._roster, scheduler._planner, Ghosts()
        cache = said_of(scheduler.cache, self._spelling, ghosts)
        requests = [self._request(number, entry) for number, entry in roster.entries.items()]
        sequences = [self._sequence(sequence, ghosts) for sequence in roster.sequences.values()]
        waiting = roster.waiting
        places = [
            [sequence.id for sequence in roster.running],
            {tenant: [sequence.id for sequence in line] for tenant, line in waiting._lines.items()},
            sorted(waiting._new),
            [sequence.id for sequence in roster.held],
        ]
        speculation, pace = planner._speculation, None
        if speculation is not None:
            own = speculation._pace
            times = {rows: list(seconds) for rows, seconds in own._times.items()}
            pace = [fields_of(speculation), fields_of(own), list(own._gaps), times]
        return [
            VERSION,
            planner._num_steps,
            [scheduler.cache.pool.num_blocks, scheduler.cache.block_size, scheduler.cache.has_prefix],
            plain(scheduler.cache.tenants.known),
            [fields_of(roster), fields_of(scheduler._shares), fields_of(planner), fields_of(planner.budget), pace],
            requests,
            sequences,
            places,
            cache,
            ghosts.said,
            [[number, [_flight(work) for work in step.works]] for number, step in self._flights.items()],
        ]

    # -- requests ------------------------------------------------------------------------------------------------

    def _request(self, number: int, entry: Entry) -> list[Any]:
        asked = self.mirror.asked[number]
        living = next((each for each in entry.living.values() if _stands(each)), None)
        tally: Tally = entry.tally
        miss = tally.miss
        scores = [
            [at, each.logprob, each.rank, each.top if self._keeps_tokens else ()] for at, each in entry.scores.items()
        ]
        return [
            number,
            asked.name,
            asked.prompt_len,
            self._rest(asked.words, living),
            msgspec.Raw(asked.how),
            fields_of(entry),
            fields_of(tally),
            None if miss is None else [miss.cause, miss.token, miss.by, miss.time],
            [each.id for each in entry.living.values()],
            scores,
            list(entry.blocks),
            [[line.index, bytes(line.words)] for line in asked.said.values()],
            self._search(asked, entry),
        ]

    def _search(self, asked: Asked, entry: Entry) -> list[Any] | None:
        group = entry.group
        if group is None:
            return None
        members = [[node, each.id] for node, each in group.members.items()]
        return [members, SearchWriter(self._words, asked.place, asked.ends).say(group)]

    def _rest(self, words: bytes, living: Sequence | None) -> list[Any]:
        """A line's words: [the block of the tree that it stands on, or None, and what goes on from there]."""
        if living is None:
            return [None, words]
        return [living.leaf.block, words[self._stood(living) :]]

    def _stood(self, sequence: Sequence) -> int:
        assert self._scheduler is not None
        return sequence.filed * self._scheduler.cache.block_size * WORD_BYTES

    # -- sequences -----------------------------------------------------------------------------------------------

    def _sequence(self, sequence: Sequence, ghosts: Ghosts) -> list[Any]:
        asked = self.mirror.asked[sequence.request_id]
        line = asked.lines.get(sequence.index)
        strategy, proposer = sequence.strategy, sequence.proposer
        words = self._rest(self._line(sequence, asked, line), sequence if _stands(sequence) else None)
        return [
            fields_of(sequence),
            sequence.status.value,
            words,
            ghosts.name(sequence.leaf),
            [strategy._fan] if isinstance(strategy, Sampling) else strategy.node,
            len(proposer._tokens) if isinstance(proposer, Ngram) else None,
        ]

    def _line(self, sequence: Sequence, asked: Asked, line: Line | None) -> bytes:
        """The words of all its tokens."""
        if sequence.known == asked.prompt_len:
            return asked.words
        if self._keeps_tokens:
            if line is None:
                return asked.words + array("I", sequence.tokens[asked.prompt_len :]).tobytes()
            have = asked.prompt_len + len(line.words) // WORD_BYTES
            line.words += array("I", sequence.tokens[have:]).tobytes()
            return asked.words + line.words
        known, place = (b"", asked.place) if line is None else (line.words, line.place)
        have = asked.prompt_len + len(known) // WORD_BYTES
        return asked.words + known + self._words.walk(place, sequence.tokens[have:])[0]


def _stands(sequence: Sequence) -> bool:
    """Whether what it has filed is in the tree."""
    leaf: Node | None = sequence.leaf
    return leaf is not None and leaf.is_in and leaf.parent is not None


def _flight(work: Work) -> list[Any]:
    """A work that is under way, as far as its result needs it."""
    return [work.sequence, work.start, len(work.tokens), work.is_pending, len(work.draws), len(work.drafts)]
