"""Settings: the numbers an operator chose. One small frozen record per component, checked when made, never changed."""

from __future__ import annotations

from dataclasses import dataclass

from openwork.core.errors import OpenworkError

LANES = 16  # a key tile of the cache holds this many tokens


@dataclass(frozen=True, slots=True)
class CacheSettings:
    """The paged cache: ``num_blocks`` blocks of ``block_size`` token slots."""

    num_blocks: int
    block_size: int = 16

    def __post_init__(self) -> None:
        if self.num_blocks < 1:
            raise OpenworkError(f"the cache needs at least one block, not {self.num_blocks}")
        if self.block_size < LANES or self.block_size % LANES:
            raise OpenworkError(f"block_size is {self.block_size}", f"It must be a multiple of {LANES}.")

    @property
    def capacity(self) -> int:
        """Tokens the whole cache can hold."""
        return self.num_blocks * self.block_size


@dataclass(frozen=True, slots=True)
class ScheduleSettings:
    """How much goes into one step.

    ``max_step_tokens`` bounds the rows of a step, so that a long prompt is cut into chunks and running sequences do
    not wait for it. ``max_running`` bounds the sequences that hold blocks.
    """

    max_step_tokens: int = 512
    max_running: int = 128

    def __post_init__(self) -> None:
        if self.max_running < 1:
            raise OpenworkError(f"max_running is {self.max_running}", "At least one sequence must run.")
        if self.max_step_tokens < self.max_running + 1:
            raise OpenworkError(
                f"max_step_tokens is {self.max_step_tokens}, not above max_running {self.max_running}",
                "Every running sequence needs a row in each step, and a prompt at least one more.",
            )
