"""Planner: fills one step. Running sequences go on, waiting ones begin, and where blocks run out somebody gives way.

It guarantees that a sequence always writes to blocks of its own, that a sequence with a place in the step is not taken
out of it again, and that whoever is first in line goes on whatever that takes: others are preempted, and at the last
pins and reserves of the cache yield. Running out of blocks is therefore never an error.
"""

from __future__ import annotations

from collections.abc import Iterator

from openwork.core.event import Admitted, Event, Preempted
from openwork.core.sequence import Sequence, Status
from openwork.core.settings import ScheduleSettings
from openwork.core.step import Copy, Result, Step, Why
from openwork.kv.cache import Found, KVCache
from openwork.schedule.budget import StepBudget
from openwork.schedule.draft import Draft
from openwork.schedule.policy import CHUNKS, MOST_TRIED, Policy
from openwork.schedule.roster import Roster
from openwork.schedule.shares import Shares
from openwork.schedule.speculation import MakeProposer, Speculation


class Planner:
    """``plan`` is called once a step; what is planned counts as computed."""

    def __init__(
        self,
        settings: ScheduleSettings,
        cache: KVCache,
        roster: Roster,
        shares: Shares,
        policy: Policy,
        make_proposer: MakeProposer | None = None,
    ) -> None:
        self.budget = StepBudget(settings)
        self._settings = settings
        self._cache = cache
        self._roster = roster
        self._shares = shares
        self._policy = policy
        self._num_steps = 0
        self.awaits_guess = False  # the last time, nothing was planned because of what may be guessed after the result
        self._speculation: Speculation | None = None
        if settings.speculation is not None:
            self._speculation = Speculation(settings.speculation, cache, roster, self.budget, make_proposer)

    def learn(self, step: Step, result: Result, now: float) -> None:
        """What a step took."""
        is_alone = all(work.num_sure == 1 for work in step.works)
        self.budget.learn(step.num_rows, result.elapsed_s, is_alone)
        if self._speculation is not None:
            self._speculation.learn(step, result, now)

    def plan(self, now: float) -> tuple[Step | None, list[Event]]:
        """The next step, or None when nothing can be computed before a result comes back."""
        self._cache.eviction.advance(now)
        self.awaits_guess = self._speculation is not None and self._speculation.waits()
        if self.awaits_guess:
            return None, []
        due = [sequence for sequence in self._roster.running if _is_due(sequence)]
        self._policy.look_round(due, self._roster.waiting.heads.values(), now)
        rows, bound = self.budget.rows(due, len(self._roster.waiting))
        draft = Draft(self._num_steps, now, rows, due, self._settings.first == "decode", MOST_TRIED)
        for sequence in self._in_turn(due, draft):
            if sequence.status is Status.WAITING:
                self._begin(sequence, draft)
            else:
                self._go_on(sequence, draft)
        if not draft.works:
            return None, draft.events
        if self._speculation is not None:
            self._speculation.fill(draft)
        self._num_steps += 1
        return draft.finish(Why(self._policy.name, rows, bound, tuple(draft.left_out))), draft.events

    # -- whose turn it is ----------------------------------------------------------------------------------------

    def _in_turn(self, due: list[Sequence], draft: Draft) -> Iterator[Sequence]:
        """Running and waiting sequences in order of their turns, which may change from one to the next."""
        turn, is_fair = self._policy.turn, self._settings.is_fair
        left = sorted(due, key=turn, reverse=True)
        head = self._head(draft)
        while left or head is not None:
            num_waiting = len(self._roster.waiting)
            if head is None or (left and turn(left[-1]) < turn(head)):
                sequence = left.pop()
                draft.pass_turn(sequence)
                if sequence.status is Status.RUNNING and sequence.id not in draft.planned:  # not preempted just now
                    yield sequence
            else:
                sequence = head
                yield sequence
            if is_fair and left and turn(left[-1])[0] == CHUNKS:
                left.sort(key=turn, reverse=True)
            has_moved = sequence is head or len(self._roster.waiting) != num_waiting
            if has_moved or (is_fair and not (left and turn(left[-1])[0] < CHUNKS)):
                head = self._head(draft)

    def _head(self, draft: Draft) -> Sequence | None:
        """The waiting sequence that comes first, among tenants whose line still moves."""
        if not self._roster.waiting:
            return None
        heads = self._roster.waiting.heads.items()
        return min((head for tenant, head in heads if draft.may_begin(tenant)), key=self._policy.turn, default=None)

    # -- going on ------------------------------------------------------------------------------------------------

    def _go_on(self, sequence: Sequence, draft: Draft) -> None:
        count = draft.grant(sequence.due)
        if not count:
            draft.leave_out(sequence, "rows")
            return
        copies = self._make_room(sequence, sequence.computed + count, draft)
        if copies is not None:
            self._put(sequence, count, copies, draft)
        elif sequence.status is Status.RUNNING:
            draft.leave_out(sequence, "blocks")

    def _make_room(self, sequence: Sequence, length: int, draft: Draft) -> tuple[Copy, ...] | None:
        """Grow a running sequence, preempting others as long as it takes; None if it had to go itself, or must wait."""
        while (copies := self._cache.grow(sequence, length)) is None:
            is_capped = self._cache.is_capped(sequence.tenant, self._cache.lacking(sequence, length))
            if (held := self._roster.dispensable(sequence.tenant if is_capped else None)) is not None:
                self._let_go(held)
                continue
            victim = self._policy.victim(sequence, draft.planned, is_capped)
            if victim is sequence and not draft.works:  # first in line, and there is nobody else
                copies = self._cache.grow(sequence, length, force=True)
                if copies is not None:
                    return copies
            if victim is None:
                return None
            self._preempt(victim, sequence, "tenant" if is_capped else "blocks", draft)
            if victim is sequence:
                return None
        return copies

    def _let_go(self, held: Sequence) -> None:
        """A line that was kept for others to go on from is kept no more: they will be computed from the cache."""
        self._roster.entries[held.request_id].blocks.update(held.blocks)
        self._cache.free(held)
        self._roster.bury(held)

    def _preempt(self, sequence: Sequence, asker: Sequence, cause: str, draft: Draft) -> None:
        forgotten, kept = sequence.computed, self._cache.free(sequence)
        self._roster.stop(sequence)
        entry = self._roster.entries[sequence.request_id]
        entry.tally.preemptions += 1
        entry.note_stall(sequence, draft.now)
        sequence.stall, sequence.stalled_at = "preempted", draft.now
        draft.events.append(
            Preempted(
                request=sequence.request_id,
                index=sequence.index,
                forgotten=forgotten,
                time=draft.now,
                tenant=sequence.tenant,
                cause=cause,
                by=asker.request_id,
                kept=min(kept, forgotten),
            )
        )

    def _put(self, sequence: Sequence, count: int, copies: tuple[Copy, ...], draft: Draft) -> None:
        entry = self._roster.entries[sequence.request_id]
        draft.add(sequence, count, entry, copies, self._cache.blocks_for(sequence.computed + count))
        if self._settings.is_fair:
            self._shares.charge(sequence.tenant, count)

    # -- beginning -----------------------------------------------------------------------------------------------

    def _begin(self, sequence: Sequence, draft: Draft) -> None:
        """Start a waiting sequence, if there are rows, a place, and blocks for all it knows so far."""
        cause = self._obstacle(sequence, draft)
        if cause is None:
            return
        draft.left_out.append((sequence.id, cause))
        is_own = cause in ("tenant", "prefix")
        # In a fair house a tenant that cannot begin is passed, unless it was passed for too long.
        if self._settings.is_fair and cause in ("blocks", "places", "result"):
            is_own = not sequence.is_overdue
        draft.close(sequence.tenant if is_own else None)

    def _obstacle(self, sequence: Sequence, draft: Draft) -> str | None:
        """What keeps a sequence from beginning; None once it has begun."""
        # Tokens that were asked for before the preemption must be seen before they can be computed again.
        if sequence.pending:
            return "result"
        most = self._cache.tenants[sequence.tenant].max_running
        if most is not None and self._roster.running_of.get(sequence.tenant, 0) >= most:
            return "tenant"
        if not draft.grant(sequence.due):
            return "rows"
        victims: list[Sequence] = []
        if len(self._roster.running) >= self._settings.max_running:
            victims = self._policy.yielding(sequence, draft.planned, needed=0)[:1]
            if not victims:
                return "places"
        limit = self._limit(sequence)
        found = self._cache.find(sequence, limit)
        if self._is_on_its_way(sequence, found, limit):
            return "prefix"
        fitting = self._find_blocks(sequence, found, victims, draft)
        if fitting is None:
            return "tenant" if self._cache.is_capped(sequence.tenant, found.needed) else "blocks"
        self._admit(sequence, fitting, draft)
        return None

    def _limit(self, sequence: Sequence) -> int:
        """Tokens that may come from the cache: the last one's row is needed, and every row that is yet to be scored."""
        entry = self._roster.entries[sequence.request_id]
        last = sequence.known - 1
        if sequence.to_score is not None:
            return min(sequence.to_score, last)
        return min(entry.num_scored, last) if sequence.index == entry.scorer and not entry.is_scored else last

    def _is_on_its_way(self, sequence: Sequence, found: Found, limit: int) -> bool:
        """Whether a running sequence is computing the very block that comes next: it will be cached in a moment."""
        at = len(found.match.nodes) * self._cache.block_size
        end = at + self._cache.block_size
        if not self._cache.has_prefix or end > limit:
            return False
        realm, tokens = sequence.request.terms.realm, sequence.tokens
        return any(
            other.landed < end
            and other.landed < other.computed
            and other.tokens[at:end] == tokens[at:end]
            and other.request.terms.realm == realm
            and other.tokens[:at] == tokens[:at]
            for other in self._roster.running
        )

    def _find_blocks(self, sequence: Sequence, found: Found, victims: list[Sequence], draft: Draft) -> Found | None:
        """What to begin with, once it fits. Others make way, these ``victims`` first, if that makes it fit at all."""
        if not victims and (fitting := self._fitting(sequence, found)) is not None:
            return fitting
        yielding = self._policy.yielding(sequence, draft.planned, found.needed)
        yielding = victims + [other for other in yielding if other not in victims]
        left = [other for other in self._roster.running if other not in yielding]
        room = self._cache.room_without(yielding, sequence, found)
        if not yielding or found.needed + self._owed(left) > room:
            return None  # it would be in vain
        for other in yielding:
            self._preempt(other, sequence, "places" if other in victims else "blocks", draft)
            other.gave_way = True
            fitting = self._fitting(sequence, self._cache.find(sequence, self._limit(sequence)))
            if fitting is not None:
                return fitting
        return None

    def _fitting(self, sequence: Sequence, found: Found) -> Found | None:
        """What fits beside what the running ones still need for all they know. Held lines give way, if that helps."""
        owed = self._owed(self._roster.running)
        fitting = self._cache.fitting(sequence, found, owed)
        if fitting is None and found.needed + owed <= self._cache.room_without(self._roster.held, sequence, found):
            while fitting is None and (held := self._roster.dispensable()) is not None:
                self._let_go(held)
                found = self._cache.find(sequence, self._limit(sequence))
                fitting = self._cache.fitting(sequence, found, owed)
        if fitting is None and not self._roster.running:  # nobody else can give way: pins and reserves do
            for held in list(self._roster.held):
                self._let_go(held)
            found = self._cache.find(sequence, self._limit(sequence))
            fitting = self._cache.fitting(sequence, found, force=True)
        return fitting

    def _owed(self, running: list[Sequence]) -> int:
        return sum(max(0, self._cache.blocks_for(other.known) - len(other.blocks)) for other in running)

    def _admit(self, sequence: Sequence, found: Found, draft: Draft) -> None:
        entry = self._roster.entries[sequence.request_id]
        self._cache.adopt(sequence, found.match)
        self._roster.start(sequence)
        sequence.admitted = draft.number
        if entry.tally.queued_s is None:
            entry.tally.queued_s = draft.now - entry.arrived
            entry.tally.cached, entry.tally.miss = found.match.length, found.miss
        draft.events.append(
            Admitted(sequence.request_id, sequence.index, draft.number, draft.now, found.match.length, found.miss)
        )
        count = draft.grant(sequence.due)
        copies = self._cache.grow(sequence, sequence.computed + count, force=len(self._roster.running) == 1)
        assert copies is not None, "there was room for all it knows"
        self._put(sequence, count, copies, draft)


def _is_due(sequence: Sequence) -> bool:
    if not sequence.pending:
        return sequence.due > 0
    # A line that may split is waited for; a pending token that is certainly the last needs no row of its own.
    is_last = sequence.generated + sequence.pending >= sequence.request.max_tokens
    return not sequence.strategy.may_fork and not is_last
