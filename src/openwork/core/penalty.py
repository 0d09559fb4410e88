"""Penalty: what a search holds against a sequence beside being unlikely. Frozen, checked once; never a reward, so that
what a line has lost it does not win back, and a search that goes by it can still prove something."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from openwork.core.bounds import check_flag, check_real, check_whole
from openwork.core.errors import RequestError

MAX_PHRASES = 64
MAX_PHRASE_TOKENS = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Penalty:
    """What a best-first search maximises in place of log Pr(y): log Pr(y) / length - repetition - coverage.

    length      None; "power": divided by |y| ** alpha; "gnmt": by ((5 + |y|) / 6) ** alpha (Wu et al. 2016)
    alpha       [0, 10]
    repetition  nats for each run of ``ngram`` tokens that came before in y
    coverage    nats for each phrase that is not in y
    phrases     runs of token ids
    rerank      find the n likeliest by log Pr(y), and put these in order; else the search itself goes by it

    Raises RequestError.
    """

    length: Literal["power", "gnmt"] | None = None
    alpha: float = 1.0
    repetition: float = 0.0
    ngram: int = 1
    coverage: float = 0.0
    phrases: tuple[tuple[int, ...], ...] = ()
    rerank: bool = False

    def __post_init__(self) -> None:
        if self.length not in (None, "power", "gnmt"):
            raise RequestError(f'must be "power", "gnmt" or left out, not {self.length!r}', param="penalty.length")
        check_flag("penalty.rerank", self.rerank)
        check_real("penalty.alpha", self.alpha, 0, 10)
        check_real("penalty.repetition", self.repetition, 0, 1e6)
        check_real("penalty.coverage", self.coverage, 0, 1e6)
        check_whole("penalty.ngram", self.ngram, 1, 64)
        phrases = tuple(map(tuple, self.phrases))
        object.__setattr__(self, "phrases", phrases)
        if len(phrases) > MAX_PHRASES or not all(0 < len(phrase) <= MAX_PHRASE_TOKENS for phrase in phrases):
            raise RequestError(
                f"must be at most {MAX_PHRASES} runs of 1 to {MAX_PHRASE_TOKENS} tokens", param="penalty.phrases"
            )
        if (self.coverage > 0) != bool(phrases):
            raise RequestError("goes together with phrases: give both or neither", param="penalty.coverage")
