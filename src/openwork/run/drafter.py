"""Drafter: a small model that guesses which tokens the large one will choose next. Guesses: those of one sequence.

    line      | tokens of a sequence . . . . . . . | d1 d2 d3
    cache     | has been computed before . . | now | one row at a time

Its cache is addressed by the same block tables as the large model's, so it needs no allocator of its own. What a block
holds is remembered as the tokens themselves: whatever became of a sequence, preempted, forked, guessed wrong or taken
from the prefix cache, the longest beginning that is still right is used and the rest computed. A wrong memory could
only make a wrong guess. It is asked between steps, when nothing else computes.
"""

from __future__ import annotations

import time
from collections.abc import Sequence as Line_of
from dataclasses import dataclass

import numpy as np

from openwork.core.sequence import Sequence
from openwork.models.decoder import Decoder
from openwork.ops.paged import PagedKV, Rows

MOST_ROWS = 1024  # of a line that are caught up with at a time; guesses come when that is done
_USUAL = 0.9  # of the time that a guess took before is left in the estimate when the next was measured
_FADE = 0.95  # what one trial later is left of a trial's weight
_FORGET = 0.995  # what one token later is left of what the trials have taught
_PRIOR, _PRIOR_WEIGHT = 0.75, 2.0  # how often a guess is right before one was tried, as if so many had been


@dataclass(frozen=True, slots=True)
class Ask:
    """How may a line go on? ``blocks`` have room for it and for ``most`` guesses."""

    line: tuple[int, ...]
    blocks: tuple[int, ...]
    most: int


@dataclass(slots=True, eq=False)
class _Thread:
    """A line that is being guessed for. ``first`` is the block in which the next row is written."""

    ask: Ask
    computed: int
    first: int
    before: int  # what stands before that block, as one number
    line: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        self.line = self.ask.line

    @property
    def end(self) -> int:
        """How far it is computed next."""
        return min(len(self.line), self.computed + MOST_ROWS)


class Drafter:
    """``kv`` has the blocks of the large model's cache, bound to the same ops; guesses are ids below ``vocab_size``.

    ``guess_s`` is what one guess usually takes.
    """

    def __init__(self, model: Decoder, kv: PagedKV, vocab_size: int) -> None:
        self.guess_s = 0.0
        self._model = model
        self._kv = kv
        self._vocab_size = vocab_size
        self._expected: list[Ask] = []
        self._guessed: dict[Ask, tuple[int, ...]] = {}
        self._held: dict[int, tuple[int, tuple[int, ...]]] = {}  # block -> what stands before it, and its tokens

    def expect(self, ask: Ask) -> None:
        """This will be asked for in a moment, when all that will be are known: they are computed together then."""
        self._expected.append(ask)

    def guess(self, ask: Ask) -> tuple[int, ...]:
        """Greedily, the tokens that follow: as many, or fewer; none while there is much to catch up with."""
        if ask not in self._guessed:
            self._guessed = dict.fromkeys((*self._expected, ask), ())
            self._expected = []
            asked = [each for each in self._guessed if self._most(each) > 0]
            threads = [_Thread(each, *self._find(each.line, each.blocks)) for each in asked]
            while threads:
                group, threads = _fitting(threads)
                self._go_on(group)
        return self._guessed.pop(ask)

    def _most(self, ask: Ask) -> int:
        return min(ask.most, self._model.spec.max_positions - len(ask.line))  # not beyond its window

    def _go_on(self, threads: list[_Thread]) -> None:
        """Catch up with some lines, then guess a token of each at a time."""
        last = self._forward(threads)
        began, num_rows = time.perf_counter(), 0
        going = [thread for thread in threads if thread.computed == len(thread.line)]
        hidden = last[[place for place, thread in enumerate(threads) if thread.computed == len(thread.line)]]
        while going:
            ids, finite = (found.tolist() for found in self._model.best(hidden))
            left = []
            for thread, token, is_finite in zip(going, ids, finite, strict=True):
                if is_finite and 0 <= token < self._vocab_size:
                    thread.line = (*thread.line, token)
                    if len(thread.line) - len(thread.ask.line) < self._most(thread.ask):
                        left.append(thread)
            going = left
            if going:
                hidden = self._forward(going)
                num_rows += len(going)
        for thread in threads:
            self._remember(thread)
            self._guessed[thread.ask] = thread.line[len(thread.ask.line) :]
        if num_rows:
            each = (time.perf_counter() - began) / num_rows
            self.guess_s = _USUAL * self.guess_s + (1 - _USUAL) * each if self.guess_s else each

    def _forward(self, threads: list[_Thread]) -> np.ndarray:
        """Compute what is due of each line; the last row of each (lines, hidden_size)."""
        ends = [thread.end for thread in threads]
        counts = [end - thread.computed for thread, end in zip(threads, ends, strict=True)]
        ids = [token for t, end in zip(threads, ends, strict=True) for token in t.line[t.computed : end]]
        positions = np.concatenate([np.arange(t.computed, end) for t, end in zip(threads, ends, strict=True)])
        positions = positions.astype(np.int32)
        starts = np.cumsum([0, *counts]).astype(np.int32)
        tables = np.zeros((len(threads), max(-(-end // self._kv.block_size) for end in ends)), np.int32)
        for row, (thread, end) in enumerate(zip(threads, ends, strict=True)):
            held = thread.ask.blocks[: -(-end // self._kv.block_size)]
            tables[row, : len(held)] = held
            thread.computed = end
        rows = self._model.ops.bind_rows(Rows(positions, starts, tables, *self._model.cos_sin(positions)))
        hidden = self._model.forward(np.array(ids, np.int32), rows, self._kv)
        return hidden[starts[1:] - 1]

    # -- what the cache holds ------------------------------------------------------------------------------------

    def _find(self, line: tuple[int, ...], blocks: Line_of[int]) -> tuple[int, int, int]:
        """How many tokens of a line the cache still has, never all, for the last row is needed; the block in which the
        next is written, and what stands before that as one number."""
        size, before = self._kv.block_size, 0
        for place, block in enumerate(blocks):
            part = line[place * size : (place + 1) * size]
            stands_on, tokens = self._held.get(block, (0, ()))
            common = _num_common(tokens, part) if stands_on == before else 0
            if common < size or (place + 1) * size == len(line):
                return min(place * size + common, len(line) - 1), place, before
            before = hash((before, part))
        raise AssertionError("the blocks are fewer than the line needs")

    def _remember(self, thread: _Thread) -> None:
        size, before = self._kv.block_size, thread.before
        for place in range(thread.first, -(-thread.computed // size)):
            part = thread.line[place * size : min(thread.computed, (place + 1) * size)]
            self._held[thread.ask.blocks[place]] = before, part
            before = hash((before, part))


class Guesses:
    """A Proposer for one sequence.

    Only what was tried is known, so the estimate goes back to what was believed at first while nothing is: after some
    hundred tokens without a guess it is worth a try again.
    """

    def __init__(self, drafter: Drafter, sequence: Sequence) -> None:
        self._drafter = drafter
        self._sequence = sequence
        self._known = 0
        self._guessed: tuple[int, ...] = ()  # what follows the known tokens, if it is right
        self._trials = _PRIOR_WEIGHT
        self._hits = _PRIOR_WEIGHT * _PRIOR

    @property
    def guess_s(self) -> float:
        return self._drafter.guess_s

    def follow(self, tokens: Line_of[int], known: int) -> None:
        for token in tokens[self._known : known]:
            if self._guessed:
                is_hit = self._guessed[0] == token
                self._trials = self._trials * _FADE + 1
                self._hits = self._hits * _FADE + is_hit
                self._guessed = self._guessed[1:] if is_hit else ()
        kept = _FORGET ** max(0, known - self._known)
        self._trials = _PRIOR_WEIGHT + (self._trials - _PRIOR_WEIGHT) * kept
        self._hits = _PRIOR_WEIGHT * _PRIOR + (self._hits - _PRIOR_WEIGHT * _PRIOR) * kept
        self._known = max(self._known, known)

    def odds(self, most: int) -> list[float]:
        odd = self._hits / self._trials
        return [odd**place for place in range(1, most + 1)]

    def prepare(self, num: int) -> None:
        self._drafter.expect(self._ask(num))

    def propose(self, num: int) -> tuple[int, ...]:
        self._guessed = self._drafter.guess(self._ask(num))
        return self._guessed

    def _ask(self, num: int) -> Ask:
        return Ask(tuple(self._sequence.tokens), tuple(self._sequence.blocks), num)


def _fitting(threads: list[_Thread]) -> tuple[list[_Thread], list[_Thread]]:
    """As many as one forward pass takes, at least one; and the rest."""
    num_rows = 0
    for place, thread in enumerate(threads):
        num_rows += thread.end - thread.computed
        if num_rows > MOST_ROWS and place:
            return threads[:place], threads[place:]
    return threads, []


def _num_common(one: Line_of[int], other: Line_of[int]) -> int:
    if one == other:
        return len(one)
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
