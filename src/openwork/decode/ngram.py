"""Ngram: guesses how a sequence goes on from how it went on before, where its last tokens stood already.

    tokens    | a b c d e . . . . . . a b c |
                     ^ source           ^^^   length: how many tokens before both agree
    guess       d e . . .                    as far as is asked for; what is guessed is itself repeated at the end

Places where the same two tokens stood are chained, latest first, as in LZ77 (Ziv and Lempel, 1977), and the longest
match among a bounded number of them is followed until it is wrong. So a token costs a bounded time, however long the
sequence. Every token that was foretold is a trial, whether it was used as a guess or not; so how likely the next guess
is right is counted, by length of match, without computing anything for it. It knows neither steps nor costs.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Protocol

TRIED = 8  # places that are looked at for the longest match
LONGEST = 16  # tokens of a match that are compared
_LEAST_ODDS = 0.02  # a guess that is less likely is not worth a row anywhere
_FADE = 0.95  # what one trial later is left of a trial's weight
# How often a guess is right before anything was counted, by the bits of the length of its match (2 or 3 tokens, up to
# 7, 15, 31, more), as if so many trials had been made.
_PRIOR, _PRIOR_WEIGHT = (0.4, 0.6, 0.8, 0.9, 0.95), 2.0


class Proposer(Protocol):
    """Guesses the tokens that follow. ``guess_s`` is what each guess takes, before the step."""

    @property
    def guess_s(self) -> float: ...

    def follow(self, tokens: Sequence[int], known: int) -> None:
        """Take in the first ``known`` tokens of a sequence; those taken in before are the same again."""
        ...

    def odds(self, most: int) -> list[float]:
        """For each token that would be guessed, at most so many: how likely it and all before it are right."""
        ...

    def prepare(self, num: int) -> None:
        """It will be asked for so many when all others have been told the same: for who can make them together."""
        ...

    def propose(self, num: int) -> tuple[int, ...]:
        """That many tokens, of those there are odds for; perhaps fewer, where making them takes time."""
        ...


class Ngram:
    """A Proposer. The first ``prompt_len`` tokens are learnt from, and are no trials."""

    guess_s = 0.0  # looking up is nothing beside a step

    def __init__(self, prompt_len: int) -> None:
        self._prompt_len = prompt_len
        self._tokens = array("l")
        self._latest: dict[int, int] = {}  # two tokens as one number -> the place behind where they stood last
        self._earlier = array("l")  # place -> the place behind where the two tokens before it stood before that, or 0
        self._source = 0  # place of the token that is expected next; 0: none
        self._length = 0
        self._trials = [_PRIOR_WEIGHT] * len(_PRIOR)
        self._hits = [_PRIOR_WEIGHT * prior for prior in _PRIOR]

    def follow(self, tokens: Sequence[int], known: int) -> None:
        before = len(self._tokens)
        if known <= before:
            return
        for token in tokens[before:known]:
            if self._source:
                self._judge(token)
            self._append(token)
            if not self._source and len(self._tokens) >= self._prompt_len:
                self._search()

    def odds(self, most: int) -> list[float]:
        found: list[float] = []
        odds = 1.0
        for length in range(self._length, self._length + most if self._source else 0):
            kind = _kind(length)
            odds *= self._hits[kind] / self._trials[kind]
            if odds < _LEAST_ODDS:
                break
            found.append(odds)
        return found

    def prepare(self, num: int) -> None:
        pass

    def propose(self, num: int) -> tuple[int, ...]:
        known, guess = len(self._tokens), list[int]()
        for place in range(self._source, self._source + num):
            guess.append(self._tokens[place] if place < known else guess[place - known])
        return tuple(guess)

    def _judge(self, token: int) -> None:
        kind = _kind(self._length)
        is_hit = self._tokens[self._source] == token
        self._trials[kind] = self._trials[kind] * _FADE + 1
        self._hits[kind] = self._hits[kind] * _FADE + is_hit
        if is_hit:
            self._source += 1
            self._length += 1
        else:
            self._source = self._length = 0

    def _append(self, token: int) -> None:
        tokens = self._tokens
        place = len(tokens)
        earlier = 0
        if place:
            pair = tokens[-1] << 32 | token
            earlier = self._latest.get(pair, 0)
            self._latest[pair] = place + 1
        tokens.append(token)
        self._earlier.append(earlier)

    def _search(self) -> None:
        """The longest match of what came last, the latest among equals."""
        tokens, place = self._tokens, len(self._tokens)
        other, tried = self._earlier[-1], 0
        while other and tried < TRIED:
            length = 2
            while length < LONGEST and length < other and tokens[other - length - 1] == tokens[place - length - 1]:
                length += 1
            if length > self._length:
                self._source, self._length = other, length
                if length == LONGEST:
                    return
            other, tried = self._earlier[other - 1], tried + 1


def _kind(length: int) -> int:
    return min(length.bit_length() - 2, len(_PRIOR) - 1)
