"""Policy: whose turn it is, and who gives way. Three small questions, each answered by one function of numbers.

    urgency    where a request stands among all, once and for all: no order in which two sequences could pass each other
               again and again, and with patience for a unit nobody is passed for ever
    turn       the order in which a step is filled
    victim     who of the running gives its blocks back

With is_fair the tenant furthest behind has the next turn, and the tenant that holds most by its weight gives way first;
inside a tenant it is urgency again. Whoever has waited longer than patience_s is overdue: it comes before all others
and gives way only to an older one. That keeps every mixture of policies from starving anybody.
"""

from __future__ import annotations

from collections.abc import Iterable

from openwork.core.request import Request
from openwork.core.sequence import Sequence
from openwork.core.settings import ScheduleSettings
from openwork.kv.cache import KVCache
from openwork.schedule.roster import Roster
from openwork.schedule.shares import Shares

Turn = tuple[int, float, tuple[float, int, int]]  # smaller comes first
CHUNKS = 3  # the first number of a turn that shares can move
MOST_TRIED = 8  # tenants whose first in line could not begin, before nobody else is tried in a step


class Policy:
    """Reads settings, shares and counts; all it writes is who is overdue."""

    def __init__(self, settings: ScheduleSettings, cache: KVCache, roster: Roster, shares: Shares) -> None:
        self._settings = settings
        self._cache = cache
        self._roster = roster
        self._shares = shares
        self._entitled: set[int] = set()  # ids of sequences, in the step being filled
        # In the plain case the order of rank is everything, and nobody younger is ever served before.
        self.is_plain = not settings.is_fair and settings.first == "decode"
        fair, first = "fair " if settings.is_fair else "", "" if settings.first == "decode" else ", prefill first"
        self.name = f"{fair}{settings.order}{first}"

    def urgency(self, request: Request, now: float) -> float:
        """The first number of a rank; with equal ones the order of arrival decides."""
        terms, patience = request.terms, self._settings.patience_s
        if self._settings.order == "priority":
            return now + terms.priority * patience
        if self._settings.order == "deadline":
            return now + (patience if terms.first_token_s is None else terms.first_token_s)
        return 0.0

    def look_round(self, due: Iterable[Sequence], heads: Iterable[Sequence], now: float) -> None:
        """Before a step is filled: who of the running and of the first in line is overdue, and who may displace others.

        Whoever may begins before the others go on, while these have no place in the step yet.
        """
        self._entitled = set()
        if self.is_plain:
            return
        heads = list(heads)
        for sequence in (*due, *heads):
            sequence.is_overdue = sequence.is_overdue or now - sequence.since > self._settings.patience_s
        if self._settings.is_fair:
            first = sorted(heads, key=self.turn)[:MOST_TRIED]
            self._entitled = {s.id for s in first if self._over(s.tenant, 0) or self._over(s.tenant, 1)}

    def turn(self, sequence: Sequence) -> Turn:
        """When a sequence has its turn in a step.

        0 plain order, or overdue | 1 entitled to a place | 2 one row | 3 chunks, by shares | 4 one row, prefill first
        """
        if self.is_plain or sequence.is_overdue:
            return 0, 0.0, sequence.rank
        served = self._shares.served(sequence.tenant) if self._settings.is_fair else 0.0
        if not sequence.blocks:
            return (1 if sequence.id in self._entitled else CHUNKS), served, sequence.rank
        # A sequence that needs one row holds nobody up, so shares decide among the others.
        if sequence.due == 1:
            return (2 if self._settings.first == "decode" else 4), 0.0, sequence.rank
        return CHUNKS, served, sequence.rank

    # -- giving way ----------------------------------------------------------------------------------------------

    def victim(self, asker: Sequence, planned: set[int], is_capped: bool) -> Sequence | None:
        """Who gives its blocks back so that ``asker``, which runs, can go on: perhaps itself; None: it shall wait.

        ``is_capped``: it is its tenant's own bound that was reached.
        """
        found = [s for s in self._roster.running if s.id not in planned and (not is_capped or s.tenant == asker.tenant)]
        if self.is_plain:
            return found[-1]
        found = [s for s in found if s is asker or self._may_take(asker, s)]
        key = self._weightiest if self._settings.is_fair else _youngest
        chosen = max(found, key=key)
        return None if chosen is asker and planned else chosen

    def _may_take(self, asker: Sequence, other: Sequence) -> bool:
        """The overdue give way only to those who are so too, and older."""
        return not other.is_overdue or (asker.is_overdue and asker.rank < other.rank)

    def _weightiest(self, sequence: Sequence) -> tuple[bool, float, tuple[float, int, int]]:
        held = self._held(sequence.tenant) / self._cache.tenants[sequence.tenant].weight
        return not sequence.is_overdue, held, sequence.rank

    def yielding(self, asker: Sequence, planned: set[int], needed: int) -> list[Sequence]:
        """Running sequences that make way for one that waits, the first to go first.

        ``needed`` blocks are wanted; 0: a place. By order, whoever is less urgent makes way, a mere later arrival does
        not; with fair shares, a tenant above its part, and ahead in tokens, for one that stays within its own. Nobody
        makes way twice without a token in between, so that two cannot take turns and get nowhere.
        """
        found = [s for s in self._roster.running if s.id not in planned and self._may_take(asker, s)]
        if not asker.is_overdue:
            found = [s for s in found if not s.gave_way]
        if not self._settings.is_fair:
            found = [s for s in found if asker.is_overdue or s.rank[0] > asker.rank[0]]
            return sorted(found, key=_youngest, reverse=True)
        if not asker.is_overdue:
            over = self._over(asker.tenant, needed)
            found = [s for s in found if s.tenant in over]
        return sorted(found, key=self._weightiest, reverse=True)

    def _over(self, tenant: str, needed: int) -> set[str]:
        """Tenants above their part, and ahead of ``tenant`` in tokens; none if it would be above its own."""
        if not self._is_within(tenant, needed):
            return set()
        ahead = (name for name in self._roster.running_of if self._is_ahead(name, tenant))
        if needed:
            return {name for name in ahead if self._held(name) > self._blocks(name)}
        return {name for name in ahead if self._roster.running_of[name] > self._places(name)}

    def _is_ahead(self, one: str, other: str) -> bool:
        return one != other and self._shares.served(one) >= self._shares.served(other)

    def _is_within(self, tenant: str, needed: int) -> bool:
        if needed:
            return self._held(tenant) + needed <= self._blocks(tenant)
        return self._roster.running_of.get(tenant, 0) + 1 <= self._places(tenant)

    def _places(self, tenant: str) -> float:
        return max(1.0, self._shares.part(tenant, self._settings.max_running))

    def _blocks(self, tenant: str) -> float:
        return self._shares.part(tenant, self._cache.pool.num_blocks)

    def _held(self, tenant: str) -> int:
        """Blocks charged to a tenant that somebody uses."""
        return self._cache.pool.charged.get(tenant, 0) - self._cache.eviction.idle_of(tenant)


def _youngest(sequence: Sequence) -> tuple[bool, float, tuple[float, int, int]]:
    return not sequence.is_overdue, 0.0, sequence.rank
