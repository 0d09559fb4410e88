"""Scheduler: add and cancel requests, plan a step, commit its result.

It guarantees: a step never has more than max_step_tokens rows; a sequence always writes to blocks of its own; nobody is
starved, so everything ends; every request ends exactly once; what a failed sequence computed is in nobody's cache.

One step may be planned while another runs, so a sequence may hold one pending token, and what comes back may belong to
a sequence that was preempted or has finished meanwhile: a preempted one keeps the token, a finished one has no use for
it. Its blocks may belong to somebody else by then; that is safe because steps run in order, and whoever holds a block
writes a slot before reading it. It knows no clock, no arrays, no text, and who runs its steps. Who goes into a step is
the planner's business, whose turn it is the policy's, and who is let in at all the door's.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence as Line

from openwork.core.event import Arrived, Event, Prefilled, Token
from openwork.core.gauges import Gauges
from openwork.core.output import FinishReason
from openwork.core.request import Request
from openwork.core.sequence import Sequence, Status
from openwork.core.settings import AdmissionSettings, ScheduleSettings
from openwork.core.step import Choice, Outcome, Result, Step, Work
from openwork.core.terms import Terms
from openwork.decode.search import Strategies
from openwork.decode.strategy import Continue, Fork, Stop
from openwork.kv.cache import KVCache
from openwork.kv.gauges import gauge
from openwork.schedule.admission import Door, check_so_far
from openwork.schedule.ends import Ends
from openwork.schedule.planner import Planner
from openwork.schedule.policy import Policy
from openwork.schedule.roster import Entry, Roster
from openwork.schedule.searches import Hear, Searches
from openwork.schedule.shares import Shares
from openwork.schedule.speculation import MakeProposer


class Scheduler:
    """Decides; does not compute. ``plan`` and ``commit`` are called in turn by one loop.

    ``make_proposer`` is another way of guessing tokens than the one that the settings name, ``strategies`` another way
    of deciding than that of the requests.
    """

    def __init__(
        self,
        settings: ScheduleSettings,
        cache: KVCache,
        admission: AdmissionSettings | None = None,
        make_proposer: MakeProposer | None = None,
        strategies: Strategies | None = None,
    ) -> None:
        self.cache = cache
        self._roster = Roster()
        self._shares = Shares(cache.tenants)
        self._policy = Policy(settings, cache, self._roster, self._shares)
        self._planner = Planner(settings, cache, self._roster, self._shares, self._policy, make_proposer)
        self._door = Door(admission or AdmissionSettings(), cache.pool.num_blocks, cache.block_size)
        self._strategies = strategies or Strategies()
        self._searches = Searches(cache, self._roster, self._strategies)
        self._ends = Ends(cache, self._roster, self._shares, self._searches)
        self._sequences = self._roster.sequences

    # -- requests ------------------------------------------------------------------------------------------------

    @property
    def is_idle(self) -> bool:
        return not self._roster.entries

    @property
    def num_waiting(self) -> int:
        return len(self._roster.waiting)

    @property
    def num_running(self) -> int:
        return len(self._roster.running)

    def add(
        self, request_id: int, request: Request, now: float, so_far: Mapping[int, Line[int]] | None = None
    ) -> list[Event]:
        """Take a request in. Ids are given by the caller, rise, and are never used twice.

        ``so_far`` is for a request that another engine had begun and can no longer finish: the tokens it gave out, by
        index, of the sequences that had not finished; empty when there were none. It goes on with the tokens it would
        have had, whatever waits here.

        Raises RequestError when it can never be served, Overloaded when it cannot be queued; nothing has changed then.
        """
        tenant = request.terms.tenant
        waiting = None if so_far is not None else self._roster.waiting
        self._door.check(request, self.cache.tenants[tenant], waiting)
        lines = {index: list(tokens) for index, tokens in (so_far or {}).items() if tokens}
        check_so_far(request, lines)
        entry = Entry(request, now, self._policy.urgency(request, now), min(lines, default=0), has_begun=bool(lines))
        self._roster.entries[request_id] = entry
        self._shares.enter(tenant)
        if request.search is not None:  # begun anew: the same answers lead to the same search
            self._searches.begin(request_id, lines.get(0, []), now)
            return [Arrived(request_id, now)]
        for index, tokens in sorted(lines.items()) or [(0, [])]:
            sequence = self._roster.new(request_id, index, request, [*request.prompt, *tokens], now)
            sequence.strategy = self._strategies.drawing(1 if lines else request.params.num_drawn)
            self._roster.enter(sequence, is_new=not lines)
        return [Arrived(request_id, now)]

    def cancel(
        self, request_id: int, now: float, index: int | None = None, reason: FinishReason = "cancelled"
    ) -> list[Event]:
        """End a request, or one sequence of it. Nothing happens when it has ended already.

        A search is one thing: whichever of its sequences is named, all of it ends.
        """
        entry = self._roster.entries.get(request_id)
        if entry is None:
            return []
        if entry.group is not None:
            return self._ends.finish_search(request_id, reason, now) if (index or 0) < entry.request.params.n else []
        events: list[Event] = []
        for sequence in [s for i, s in entry.living.items() if index is None or i == index]:
            events += self._ends.finish(sequence, reason, now)
        return events

    def pin(self, terms: Terms, tokens: Line[int], now: float, until: float) -> int:
        """Keep what is cached of ``tokens`` until a time; how many tokens that is. Pins take half the cache at most."""
        self.cache.eviction.advance(now)
        return self.cache.eviction.pin(terms.realm, tokens, until)

    def hear(self, hear: Hear) -> None:
        """Let somebody hear, before it is carried out, what searches decide that compare tokens (core/search.py)."""
        self._searches.hear = hear

    def sequence(self, number: int) -> Sequence | None:
        """A living sequence by the id that works name it by."""
        return self._sequences.get(number)

    def sequences_of(self, step: Step) -> list[Sequence]:
        """Whose the works of a step are, which has just been planned."""
        return [self._sequences[work.sequence] for work in step.works]

    def gauges(self) -> tuple[Gauges, dict[str, Gauges]]:
        """Where the blocks are, for everybody and by tenant."""
        return gauge(self.cache, self._sequences.values())

    # -- steps ---------------------------------------------------------------------------------------------------

    def plan(self, now: float) -> tuple[Step | None, list[Event]]:
        """The next step, or None when nothing can be computed before a result comes back."""
        return self._planner.plan(now)

    @property
    def awaits_guess(self) -> bool:
        """Whether the last plan came to nothing because a guess is worth waiting for."""
        return self._planner.awaits_guess

    def commit(self, step: Step, result: Result, now: float) -> list[Event]:
        """Take in what came back. Results of sequences that have finished meanwhile are dropped."""
        self.cache.eviction.advance(now)
        self._planner.learn(step, result, now)
        events: list[Event] = []
        for work, outcome in zip(step.works, result.outcomes, strict=True):
            sequence = self._sequences.get(work.sequence)
            if sequence is not None:
                events += self._take(sequence, step, work, outcome, now)
        return events

    def fail(self, step: Step, message: str, now: float) -> list[Event]:
        """End every sequence of a step that could not be run."""
        events: list[Event] = []
        for work in step.works:
            sequence = self._sequences.get(work.sequence)  # the end of one may be that of others
            if sequence is not None:
                events += self._ends.finish(sequence, "error", now, message=message, failure="step")
        return events

    def _take(self, sequence: Sequence, step: Step, work: Work, outcome: Outcome, now: float) -> list[Event]:
        if outcome.failure is not None:
            if outcome.failed == "numbers":
                # They were wrong before this row perhaps: nothing that it stood on is trusted any more.
                self.cache.forget(sequence, is_poisoned=True)
            return self._ends.finish(sequence, "error", now, message=outcome.failure, failure=outcome.failed)
        if outcome.scores and sequence.to_score is None:
            positions = range(work.start + 1, work.start + 1 + len(outcome.scores))
            self._roster.entries[sequence.request_id].scores.update(zip(positions, outcome.scores, strict=True))
        end = work.start + work.num_sure
        # After a preemption its blocks are others: what a step from before it wrote is not in them.
        if sequence.status is Status.RUNNING and step.number >= sequence.admitted:
            self.cache.land(sequence, end)
        events: list[Event] = []
        if work.start < sequence.prompt_len and sequence.generated == 0:
            done = min(end, sequence.prompt_len)
            events.append(Prefilled(sequence.request_id, sequence.index, done, sequence.prompt_len, now))
        if self._roster.entries[sequence.request_id].group is not None:
            events += self._searches.take(sequence, outcome, now)
            return events + self._ends.over(sequence.request_id, now)
        if not work.draws:
            if sequence.request.max_tokens == 0 and end == sequence.known:
                events += self._ends.finish(sequence, "length", now)
            return events
        sequence.pending -= 1
        if work.drafts:
            return events + self._verified(sequence, len(work.drafts), outcome.choices, now)
        decision = sequence.strategy.feed(sequence, outcome.choices)
        if isinstance(decision, Fork):
            return events + self._fork(sequence, decision, now)
        return events + self._append(sequence, decision, now)

    def _verified(self, sequence: Sequence, num_drafts: int, choices: tuple[Choice, ...], now: float) -> list[Event]:
        """Take in the tokens of one step, each as if it had come alone. All but the last were guessed right.

        The row of a token that was guessed right has been computed; those of wrong guesses are nobody's and written
        anew. Nothing was planned meanwhile, so the sequence is where it was.
        """
        tally = self._roster.entries[sequence.request_id].tally
        tally.verify_steps += 1
        tally.drafted += num_drafts
        tally.rows += num_drafts
        sequence.drafted = 0
        events: list[Event] = []
        for left in reversed(range(len(choices))):
            decision = sequence.strategy.feed(sequence, (choices[-1 - left],))
            tally.accepted += left > 0
            if left:
                self._shares.charge(sequence.tenant, 1)
            events += self._append(sequence, decision, now)
            if isinstance(decision, Stop):
                break
            if left:
                sequence.computed += 1
                self.cache.land(sequence, sequence.computed)
        return events

    def _append(self, sequence: Sequence, decision: Continue | Stop, now: float) -> list[Event]:
        position = sequence.known
        sequence.tokens.append(decision.choice.token)
        sequence.since, sequence.gave_way = now, False
        events: list[Event] = [Token(sequence.request_id, sequence.index, position, decision.choice, now)]
        if isinstance(decision, Stop):
            events += self._ends.finish(sequence, decision.reason, now, stop_id=decision.stop_id)
        return events

    def _fork(self, sequence: Sequence, fork: Fork, now: float) -> list[Event]:
        lines = [(sequence, fork.branches[0])]
        for branch in fork.branches[1:]:
            child = self._roster.new(
                sequence.request_id, branch.index, sequence.request, list(sequence.tokens), sequence.since
            )
            child.status, child.admitted, child.is_overdue = sequence.status, sequence.admitted, sequence.is_overdue
            if sequence.status is Status.RUNNING:
                self.cache.fork(sequence, child)
            else:  # preempted while the step ran: there is nothing left to share
                child.stall, child.stalled_at = sequence.stall, sequence.stalled_at
            self._roster.enter(child, is_new=False)
            lines.append((child, branch))
        events: list[Event] = []
        for line, branch in lines:
            line.strategy = branch.strategy
            events += self._append(line, branch.first, now)
        return events

    def check(self) -> None:
        """Raise AssertionError unless the laws of conservation hold: blocks, references, places, lengths."""
        self.cache.check(self._sequences.values())
        self._roster.check()
