"""Figures: what a time with an engine came to, for everybody and for each tenant, from the events of its requests.

The same counting for what was recorded and for what is simulated, so that the two can be compared. Seconds; percentiles
are nearest-rank. The first token of a search comes when it is certain, so searches have no gaps between tokens.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from openwork.core.event import Admitted, Arrived, Ended, Event, Preempted, Token


@dataclass(frozen=True, slots=True)
class Figures:
    """``None`` where there was nothing to take it from. Hit rate: prompt tokens found in the prefix cache, of all."""

    requests: int = 0
    refused: int = 0
    prompt_tokens: int = 0
    output_tokens: int = 0
    duration_s: float = 0.0  # from the first arrival to the last end
    output_tok_s: float | None = None
    first_token_p50_s: float | None = None
    first_token_p99_s: float | None = None
    gap_p50_s: float | None = None
    gap_p99_s: float | None = None
    gap_max_s: float | None = None
    preemptions: int = 0
    hit_rate: float | None = None
    evicted: int = 0  # blocks
    steps: int = 0
    by_tenant: dict[str, Figures] = field(default_factory=dict)


@dataclass(slots=True)
class _Request:
    tenant: str
    prompt: int
    is_search: bool
    arrived: float
    first: float | None = None
    ended: float | None = None
    cached: int | None = None
    tokens: int = 0
    preemptions: int = 0
    last: dict[int, float] = field(default_factory=dict)
    gaps: list[float] = field(default_factory=list)


class Counting:
    """``arrive`` and ``see`` what happens, in order. Requests are known by any key."""

    def __init__(self) -> None:
        self.evicted = self.steps = 0
        self.refused: list[str] = []  # tenants
        self._requests: dict[int, _Request] = {}

    def arrive(self, key: int, time: float, tenant: str, prompt: int, is_search: bool) -> None:
        self._requests.setdefault(key, _Request(tenant, prompt, is_search, time))

    def see(self, key: int, event: Event, offset: float = 0.0) -> None:
        """``offset`` is added to the times of the event's clock."""
        own, time = self._requests.get(key), event.time + offset
        if own is None or isinstance(event, Arrived):
            return
        if isinstance(event, Token):
            own.first = time if own.first is None else own.first
            if not own.is_search and event.index in own.last:
                own.gaps.append(time - own.last[event.index])
            own.last[event.index] = time
            own.tokens += 1
        elif isinstance(event, Admitted) and own.cached is None:
            own.cached = event.cached
        elif isinstance(event, Preempted):
            own.preemptions += 1
        elif isinstance(event, Ended):
            own.ended = time

    def figures(self) -> Figures:
        """What it came to."""
        requests = list(self._requests.values())
        by_tenant = {}
        for tenant in sorted({*(each.tenant for each in requests), *self.refused}):
            own = [each for each in requests if each.tenant == tenant]
            by_tenant[tenant] = self._of(own, self.refused.count(tenant), 0, 0, {})
        return self._of(requests, len(self.refused), self.evicted, self.steps, by_tenant)

    @staticmethod
    def _of(own: list[_Request], refused: int, evicted: int, steps: int, by_tenant: dict[str, Figures]) -> Figures:
        waits = [each.first - each.arrived for each in own if each.first is not None]
        gaps = [gap for each in own for gap in each.gaps]
        ends = [each.ended for each in own if each.ended is not None]
        lasted = max(ends) - min(each.arrived for each in own) if ends else 0.0
        begun = [each for each in own if each.cached is not None]
        looked_up, tokens = sum(each.prompt for each in begun), sum(each.tokens for each in own)
        return Figures(
            requests=len(own),
            refused=refused,
            prompt_tokens=sum(each.prompt for each in own),
            output_tokens=tokens,
            duration_s=lasted,
            output_tok_s=tokens / lasted if lasted > 0 else None,
            first_token_p50_s=percentile(waits, 50),
            first_token_p99_s=percentile(waits, 99),
            gap_p50_s=percentile(gaps, 50),
            gap_p99_s=percentile(gaps, 99),
            gap_max_s=max(gaps, default=None),
            preemptions=sum(each.preemptions for each in own),
            hit_rate=sum(each.cached or 0 for each in begun) / looked_up if looked_up else None,
            evicted=evicted,
            steps=steps,
            by_tenant=by_tenant,
        )


def percentile(values: Sequence[float], percent: float) -> float | None:
    """The smallest value that at least so many percent are not above; None of nothing."""
    if not values:
        return None
    order = sorted(values)
    return order[max(0, math.ceil(percent / 100 * len(order)) - 1)]
