"""Repetition: when a text has run into a loop. Frozen, checked once; a model that says the same run of tokens again and
again will seldom say anything else, and stopping costs less than waiting for the window to fill."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from openwork.core.bounds import check_whole
from openwork.core.errors import RequestError

MAX_PATTERN = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Repetition:
    """A text is stopped when it ends with one run of tokens ``min_count`` times in a row.

    max_pattern_size  tokens of the longest run that is looked for. [1, 1024]
    min_pattern_size  of the shortest. [1, max_pattern_size]
    min_count         how often in a row. [2, 1024]

    Names and meaning are those of vLLM's ``repetition_detection``. Raises RequestError.
    """

    max_pattern_size: int
    min_pattern_size: int = 1
    min_count: int = 4

    def __post_init__(self) -> None:
        check_whole("repetition_detection.max_pattern_size", self.max_pattern_size, 1, MAX_PATTERN)
        check_whole("repetition_detection.min_pattern_size", self.min_pattern_size, 1, MAX_PATTERN)
        check_whole("repetition_detection.min_count", self.min_count, 2, MAX_PATTERN)
        if self.min_pattern_size > self.max_pattern_size:
            raise RequestError(
                f"is {self.min_pattern_size}, above max_pattern_size {self.max_pattern_size}",
                param="repetition_detection.min_pattern_size",
            )

    def is_in(self, tokens: Sequence[int]) -> bool:
        """Whether ``tokens`` end with a loop. What does not repeat costs one comparison for each size of run."""
        most = min(self.max_pattern_size, len(tokens) // self.min_count)
        sizes = [size for size in range(self.min_pattern_size, most + 1) if tokens[-1 - size] == tokens[-1]]
        return any(tokens[-size * (self.min_count - 1) :] == tokens[-size * self.min_count : -size] for size in sizes)
