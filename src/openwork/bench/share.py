"""A rate beside its ceiling: work and ceilings are measured in turn, and shares are taken turn by turn.

    ceiling  work  ceiling  work  ceiling  ...  ceiling
       +------ | -----+       |      |
                      +------ | -----+

A piece of work is held against the mean of the two ceilings around it. Of the memory's ceiling and the arithmetic's
the lower one binds: the one that alone would take longer. Medians over the turns are what is told.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from openwork.bench.cost import Cost, Least, Weights, least
from openwork.bench.limits import Ceiling, Limits

Bound = Literal["memory", "arithmetic"]


@dataclass(frozen=True, slots=True)
class Share:
    """Tokens a second, what each ceiling would allow, and the share of the lower; medians over the turns."""

    tok_s: float
    memory_tok_s: float
    arithmetic_tok_s: float
    share: float
    linear_share: float  # of the arithmetic ceiling of the matrices alone
    bound: Bound

    @property
    def limit_tok_s(self) -> float:
        return self.memory_tok_s if self.bound == "memory" else self.arithmetic_tok_s


def beside(work: Callable[[], tuple[float, Cost]], limits: Limits, weights: Weights, turns: int) -> Share:
    """Measure work, which tells its seconds and its cost, and the ceilings in turn, ``turns`` times."""
    formats = (weights.dtype, weights.kv_dtype)
    before, found = limits.now(formats), []
    for _ in range(turns):
        seconds, cost = work()
        after = limits.now(formats)
        found.append((seconds, cost.tokens, least(cost, weights, _between(before, after))))
        before = after
    return share_of(found)


def share_of(found: list[tuple[float, int, Least]]) -> Share:
    """The share that turns of (seconds, tokens, least seconds) make together."""

    def median(figure: Callable[[float, int, Least], float]) -> float:
        return statistics.median(figure(*each) for each in found)

    memory_tok_s = median(lambda _, tokens, least: tokens / least.memory)
    arithmetic_tok_s = median(lambda _, tokens, least: tokens / least.arithmetic)
    bound: Bound = "memory" if memory_tok_s <= arithmetic_tok_s else "arithmetic"
    return Share(
        tok_s=median(lambda seconds, tokens, _: tokens / seconds),
        memory_tok_s=memory_tok_s,
        arithmetic_tok_s=arithmetic_tok_s,
        share=median(lambda seconds, _, least: getattr(least, bound) / seconds),
        linear_share=median(lambda seconds, _, least: least.linear / seconds),
        bound=bound,
    )


def _between(one: Ceiling, other: Ceiling) -> Ceiling:
    return Ceiling((one.read + other.read) / 2, {dot: (rate + other.dots[dot]) / 2 for dot, rate in one.dots.items()})
