"""Objective: the score of a finished line, and the highest that any line beginning like this one can have.

    score  log Pr(y) / norm(|y|)  -  repetition * runs that came before  -  coverage * phrases that are missing

The bound is admissible for every setting: log Pr only falls and is divided by at most the norm of the greatest length,
runs that came before stay there, and a phrase counts as missing only when too few tokens are left for it.
"""

from __future__ import annotations

from collections.abc import Sequence

from openwork.core.penalty import Penalty


class Objective:
    """Lines are the generated tokens, an end token included; they have at most ``max_tokens``."""

    def __init__(self, penalty: Penalty | None, max_tokens: int) -> None:
        self._penalty = penalty or Penalty()
        self._most = max_tokens
        self.is_plain = penalty is None

    def score(self, logprob: float, line: Sequence[int]) -> float:
        """Of a finished line."""
        how = self._penalty
        missing = sum(not _holds(line, phrase) for phrase in how.phrases)
        return logprob / self._norm(len(line)) - self._repetition(line) - how.coverage * missing

    def bound(self, logprob: float, line: Sequence[int] = ()) -> float:
        """Of all lines that begin with this one and have a log-probability of at most ``logprob``."""
        how = self._penalty
        left = self._most - len(line)
        lost = sum(not _holds(line, phrase) and len(phrase) - _begun(line, phrase) > left for phrase in how.phrases)
        return logprob / self._norm(self._most) - self._repetition(line) - how.coverage * lost

    def _norm(self, length: int) -> float:
        if self._penalty.length is None:
            return 1.0
        base = float(length) if self._penalty.length == "power" else (5 + length) / 6
        return float(base**self._penalty.alpha)

    def _repetition(self, line: Sequence[int]) -> float:
        if not self._penalty.repetition:
            return 0.0
        size = self._penalty.ngram
        runs = [tuple(line[at : at + size]) for at in range(len(line) - size + 1)]
        return self._penalty.repetition * (len(runs) - len(set(runs)))


def _holds(line: Sequence[int], phrase: tuple[int, ...]) -> bool:
    return any(tuple(line[at : at + len(phrase)]) == phrase for at in range(len(line) - len(phrase) + 1))


def _begun(line: Sequence[int], phrase: tuple[int, ...]) -> int:
    """How much of a phrase a line ends with."""
    most = min(len(line), len(phrase))
    return next((size for size in range(most, 0, -1) if tuple(line[-size:]) == phrase[:size]), 0)
