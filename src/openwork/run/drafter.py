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

import numpy as np

from openwork.core.sequence import Sequence
from openwork.models.decoder import Decoder
from openwork.ops.paged import PagedKV, Rows

MOST_ROWS = 1024  # of a line that are caught up with at a time; guesses come when that is done
_USUAL = 0.9  # of the time that a guess took before is left in the estimate when the next was measured
_FADE = 0.95  # what one trial later is left of a trial's weight
_FORGET = 0.995  # what one token later is left of what the trials have taught
_PRIOR, _PRIOR_WEIGHT = 0.75, 2.0  # how often a guess is right before one was tried, as if so many had been


class Drafter:
    """``kv`` has the blocks of the large model's cache, bound to the same ops; guesses are ids below ``vocab_size``.

    ``guess_s`` is what one guess usually takes.
    """

    def __init__(self, model: Decoder, kv: PagedKV, vocab_size: int) -> None:
        self.guess_s = 0.0
        self._model = model
        self._kv = kv
        self._vocab_size = vocab_size
        self._held: dict[int, tuple[int, tuple[int, ...]]] = {}  # block -> what stands before it, and its tokens

    def guess(self, line: tuple[int, ...], blocks: Line_of[int], most: int) -> tuple[int, ...]:
        """Greedily, the tokens that follow: as many, or fewer; none while there is much to catch up with.

        ``blocks`` have room for the line and the guesses.
        """
        most = min(most, self._model.spec.max_positions - len(line))
        if most < 1:
            return ()  # beyond its window
        valid, first, before = self._find(line, blocks)
        end = min(len(line), valid + MOST_ROWS)
        hidden = self._forward(line, valid, end, blocks)
        known = len(line)
        began, computed = time.perf_counter(), end
        while end == known and len(line) - known < most:
            (token,), (is_finite,) = (found.tolist() for found in self._model.best(hidden[-1:]))
            if not is_finite or not 0 <= token < self._vocab_size:
                break
            line = (*line, token)
            if len(line) - known < most:
                hidden = self._forward(line, computed, computed + 1, blocks)
                computed += 1
        self._remember(line, blocks, first, before, computed)
        if computed > end:
            each = (time.perf_counter() - began) / (computed - end)
            self.guess_s = _USUAL * self.guess_s + (1 - _USUAL) * each if self.guess_s else each
        return line[known:]

    def _forward(self, line: tuple[int, ...], start: int, end: int, blocks: Line_of[int]) -> np.ndarray:
        positions = np.arange(start, end, dtype=np.int32)
        table = np.array([blocks[: -(-end // self._kv.block_size)]], np.int32)  # (1, blocks)
        rows = Rows(positions, np.array([0, end - start], np.int32), table, *self._model.cos_sin(positions))
        ids = np.array(line[start:end], np.int32)
        return self._model.forward(ids, self._model.ops.bind_rows(rows), self._kv)

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

    def _remember(self, line: tuple[int, ...], blocks: Line_of[int], first: int, before: int, computed: int) -> None:
        size = self._kv.block_size
        for place in range(first, -(-computed // size)):
            part = line[place * size : min(computed, (place + 1) * size)]
            self._held[blocks[place]] = before, part
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

    def propose(self, num: int) -> tuple[int, ...]:
        sequence = self._sequence
        self._guessed = self._drafter.guess(tuple(sequence.tokens), sequence.blocks, num)
        return self._guessed


def _num_common(one: Line_of[int], other: Line_of[int]) -> int:
    if one == other:
        return len(one)
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
