"""Shares: how many tokens each tenant was served, by its weight, so that the one furthest behind goes next.

A deficit round robin on tokens (Shreedhar and Varghese, 1995) whose turns are as long as one chunk, with the counters
of "Fairness in Serving Large Language Models" (Sheng et al., 2024): a tenant that comes back after a pause starts level
with whoever is furthest behind, so that nobody saves up turns and nobody pays for having used what was idle. Prompt and
output tokens count alike; what the prefix cache had counts nothing.
"""

from __future__ import annotations

from openwork.core.terms import Tenants

_REMEMBERED = 4096  # tenants with nothing to do whose counters are kept


class Shares:
    """Counters of the tenants that have living requests, and of some that had."""

    def __init__(self, tenants: Tenants) -> None:
        self._tenants = tenants
        self._served: dict[str, float] = {}  # tokens over weight
        self._living: dict[str, int] = {}  # tenant -> requests
        self._weights: dict[str, float] = {}  # of the living, as they were when they came
        self._sum = 0.0  # of those

    def enter(self, tenant: str) -> None:
        """One more request of a tenant."""
        if tenant not in self._living:
            lowest = min((self._served[other] for other in self._living), default=0.0)
            self._served[tenant] = max(self._served.pop(tenant, 0.0), lowest)
            self._weights[tenant] = self._tenants[tenant].weight
            self._sum += self._weights[tenant]
        self._living[tenant] = self._living.get(tenant, 0) + 1

    def leave(self, tenant: str) -> None:
        """One request less."""
        self._living[tenant] -= 1
        if not self._living[tenant]:
            del self._living[tenant]
            self._sum -= self._weights.pop(tenant)
            if not self._living:
                self._served.clear()
                self._sum = 0.0  # without what rounding has left
            elif len(self._served) > len(self._living) + _REMEMBERED:
                idle = next(name for name in self._served if name not in self._living)
                del self._served[idle]

    def charge(self, tenant: str, tokens: int) -> None:
        self._served[tenant] += tokens / self._weights[tenant]

    def served(self, tenant: str) -> float:
        """Tokens by weight, from where the tenant was counted in."""
        return self._served.get(tenant, 0.0)

    def part(self, tenant: str, total: int) -> float:
        """The fair part of ``total`` things of a tenant that has something to do, among all that have."""
        return total * self._weights[tenant] / self._sum
