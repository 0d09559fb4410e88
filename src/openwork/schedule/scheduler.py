"""Scheduler: add and cancel requests, plan a step, commit its result.

It guarantees: a step never has more than max_step_tokens rows; running sequences come before new ones, so a long prompt
is cut into chunks and nobody waits for it; a sequence always writes to blocks of its own; the oldest sequence is never
preempted, so everything ends; every request ends exactly once. Order is order of arrival, (request, index).

One step may be planned while another runs, so a sequence may hold one pending token, and what comes back may belong to
a sequence that was preempted or has finished meanwhile: a preempted one keeps the token, a finished one has no use for
it. Its blocks may belong to somebody else by then; that is safe because steps run in order, and whoever holds a block
writes a slot before reading it. It knows no clock, no arrays, no text, and who runs its steps.
"""

from __future__ import annotations

from bisect import insort
from dataclasses import dataclass, field

from openwork.core.event import Admitted, Arrived, Ended, Event, Finished, Preempted, Prefilled, Token
from openwork.core.output import FinishReason, Logprob
from openwork.core.request import Request
from openwork.core.sequence import Sequence, Status
from openwork.core.settings import ScheduleSettings
from openwork.core.step import Copy, Outcome, Result, Score, Step, Work
from openwork.decode.sampling import Sampling
from openwork.decode.strategy import Continue, Fork, Stop
from openwork.kv.cache import KVCache


@dataclass(slots=True, eq=False)
class _Entry:
    """A request that has not ended: its living sequences, and what to say when the last one finishes."""

    request: Request
    living: dict[int, Sequence] = field(default_factory=dict)  # index -> sequence
    scores: dict[int, Logprob] = field(default_factory=dict)  # position -> log-probability of the prompt token there
    kv_blocks: int = 0

    @property
    def prompt_logprobs(self) -> tuple[Logprob | None, ...] | None:
        """One entry a prompt token, None for the first and for those that were never reached."""
        if self.request.params.prompt_logprobs is None:
            return None
        return tuple(self.scores.get(position) for position in range(len(self.request.prompt)))


def _order(sequence: Sequence) -> tuple[int, int]:
    return sequence.request_id, sequence.index


class Scheduler:
    """Decides; does not compute. ``plan`` and ``commit`` are called in turn by one loop."""

    def __init__(self, settings: ScheduleSettings, cache: KVCache) -> None:
        self._settings = settings
        self._cache = cache
        self._waiting: list[Sequence] = []  # in order; holding no blocks
        self._running: list[Sequence] = []  # in order
        self._entries: dict[int, _Entry] = {}
        self._sequences: dict[int, Sequence] = {}  # by id, living ones
        self._num_sequences = 0
        self._num_steps = 0

    # -- requests ------------------------------------------------------------------------------------------------

    @property
    def is_idle(self) -> bool:
        return not self._entries

    @property
    def num_waiting(self) -> int:
        return len(self._waiting)

    @property
    def num_running(self) -> int:
        return len(self._running)

    def add(self, request_id: int, request: Request, now: float) -> list[Event]:
        """Take a request in. Ids are given by the caller, rise, and are never used twice."""
        entry = self._entries[request_id] = _Entry(request)
        sequence = self._new_sequence(request_id, 0, request, list(request.prompt))
        sequence.strategy = Sampling(fan=request.params.n)
        entry.living[0] = sequence
        insort(self._waiting, sequence, key=_order)
        return [Arrived(request_id, now)]

    def cancel(
        self, request_id: int, now: float, index: int | None = None, reason: FinishReason = "cancelled"
    ) -> list[Event]:
        """End a request, or one sequence of it. Nothing happens when it has ended already."""
        entry = self._entries.get(request_id)
        if entry is None:
            return []
        events: list[Event] = []
        for sequence in [s for i, s in entry.living.items() if index is None or i == index]:
            events += self._finish(sequence, reason, now)
        return events

    # -- planning ------------------------------------------------------------------------------------------------

    def plan(self, now: float) -> tuple[Step | None, list[Event]]:
        """The next step, or None when nothing can be computed before a result comes back."""
        works: list[Work] = []
        copies: list[Copy] = []
        events: list[Event] = []
        due = [sequence for sequence in self._running if self._is_due(sequence)]
        rows = self._settings.max_step_tokens
        single = sum(1 for sequence in due if sequence.due == 1)  # rows kept for those that need just one
        for sequence in due:
            is_single = sequence.due == 1
            single -= is_single
            count = min(sequence.due, rows if is_single else rows - single)
            if sequence.status is not Status.RUNNING or count <= 0:  # preempted a moment ago, or no room in this step
                continue
            grown = self._make_room(sequence, sequence.computed + count, now, events)
            if grown is not None:
                copies += grown
                works.append(self._work(sequence, count))
                rows -= count
        self._admit(rows, works, copies, events, now)
        if not works:
            return None, events
        step = Step(self._num_steps, tuple(works), tuple(copies))
        self._num_steps += 1
        return step, events

    def _is_due(self, sequence: Sequence) -> bool:
        if not sequence.pending:
            return sequence.due > 0
        # A line that may split is waited for; a pending token that is certainly the last needs no row of its own.
        is_last = sequence.generated + sequence.pending >= sequence.request.max_tokens
        return not sequence.strategy.may_fork and not is_last

    def _make_room(self, sequence: Sequence, length: int, now: float, events: list[Event]) -> tuple[Copy, ...] | None:
        """Grow a running sequence, preempting younger ones as long as it takes; None if it had to go itself."""
        while (copies := self._cache.grow(sequence, length)) is None:
            victim = self._running[-1]
            events.append(self._preempt(victim, now))
            if victim is sequence:
                return None
        return copies

    def _preempt(self, sequence: Sequence, now: float) -> Preempted:
        event = Preempted(sequence.request_id, sequence.index, sequence.computed, now)
        self._cache.free(sequence)
        self._running.remove(sequence)
        sequence.status = Status.WAITING
        insort(self._waiting, sequence, key=_order)
        return event

    def _admit(self, rows: int, works: list[Work], copies: list[Copy], events: list[Event], now: float) -> None:
        """Start waiting sequences, oldest first, while there are rows, places and blocks for all they know so far."""
        while self._waiting and rows > 0 and len(self._running) < self._settings.max_running:
            sequence = self._waiting[0]
            # Tokens that were asked for before the preemption must be seen before they can be computed again.
            if sequence.pending or self._cache.blocks_for(sequence.known) > self._cache.pool.num_free:
                return
            count = min(sequence.due, rows)
            grown = self._cache.grow(sequence, count)
            assert grown is not None, "there were enough free blocks"
            self._waiting.pop(0)
            insort(self._running, sequence, key=_order)
            sequence.status = Status.RUNNING
            events.append(Admitted(sequence.request_id, sequence.index, self._num_steps, now))
            copies += grown
            works.append(self._work(sequence, count))
            rows -= count

    def _work(self, sequence: Sequence, count: int) -> Work:
        """The next ``count`` due positions of a sequence, which count as computed from here on."""
        start = sequence.computed
        end = start + count
        tokens = tuple(sequence.tokens[start:end])
        draws = ()
        if end == sequence.known + sequence.pending and sequence.request.max_tokens > 0:
            draws = sequence.strategy.draws(sequence)
        work = Work(
            sequence=sequence.id,
            start=start,
            tokens=tokens,
            is_pending=len(tokens) < count,
            blocks=tuple(sequence.blocks[: self._cache.blocks_for(end)]),
            draws=draws,
            score=self._score(sequence, start, end),
        )
        sequence.computed = end
        sequence.pending += bool(draws)
        return work

    def _score(self, sequence: Sequence, start: int, end: int) -> Score | None:
        """Row at position p scores the prompt token at p + 1."""
        top = sequence.request.params.prompt_logprobs
        scored = len(self._entries[sequence.request_id].scores)
        if top is None or sequence.index or start + 1 >= sequence.prompt_len or scored == sequence.prompt_len - 1:
            return None
        return Score(sequence.request.prompt[start + 1 : end + 1], top)

    # -- committing ----------------------------------------------------------------------------------------------

    def commit(self, step: Step, result: Result, now: float) -> list[Event]:
        """Take in what came back. Results of sequences that have finished meanwhile are dropped."""
        events: list[Event] = []
        for work, outcome in zip(step.works, result.outcomes, strict=True):
            sequence = self._sequences.get(work.sequence)
            if sequence is not None:
                events += self._take(sequence, work, outcome, now)
        return events

    def fail(self, step: Step, message: str, now: float) -> list[Event]:
        """End every sequence of a step that could not be run."""
        living = [self._sequences[work.sequence] for work in step.works if work.sequence in self._sequences]
        return [event for sequence in living for event in self._finish(sequence, "error", now, message=message)]

    def _take(self, sequence: Sequence, work: Work, outcome: Outcome, now: float) -> list[Event]:
        if outcome.failure is not None:
            return self._finish(sequence, "error", now, message=outcome.failure)
        if outcome.scores:
            positions = range(work.start + 1, work.start + 1 + len(outcome.scores))
            self._entries[sequence.request_id].scores.update(zip(positions, outcome.scores, strict=True))
        events: list[Event] = []
        if work.start < sequence.prompt_len and sequence.generated == 0:
            done = min(work.start + work.count, sequence.prompt_len)
            events.append(Prefilled(sequence.request_id, sequence.index, done, sequence.prompt_len, now))
        if not work.draws:
            if sequence.request.max_tokens == 0 and work.start + work.count == sequence.known:
                events += self._finish(sequence, "length", now)
            return events
        sequence.pending -= 1
        decision = sequence.strategy.feed(sequence, outcome.choices)
        if isinstance(decision, Fork):
            return events + self._fork(sequence, decision, now)
        return events + self._append(sequence, decision, now)

    def _append(self, sequence: Sequence, decision: Continue | Stop, now: float) -> list[Event]:
        position = sequence.known
        sequence.tokens.append(decision.choice.token)
        events: list[Event] = [Token(sequence.request_id, sequence.index, position, decision.choice, now)]
        if isinstance(decision, Stop):
            events += self._finish(sequence, decision.reason, now, stop_id=decision.stop_id)
        return events

    def _fork(self, sequence: Sequence, fork: Fork, now: float) -> list[Event]:
        entry = self._entries[sequence.request_id]
        lines = [(sequence, fork.branches[0])]
        for branch in fork.branches[1:]:
            child = self._new_sequence(sequence.request_id, branch.index, sequence.request, list(sequence.tokens))
            entry.living[branch.index] = child
            child.status = sequence.status
            if sequence.status is Status.RUNNING:
                self._cache.fork(sequence, child)
                insort(self._running, child, key=_order)
            else:  # preempted while the step ran: there is nothing left to share
                insort(self._waiting, child, key=_order)
            lines.append((child, branch))
        events: list[Event] = []
        for line, branch in lines:
            line.strategy = branch.strategy
            events += self._append(line, branch.first, now)
        return events

    # -- beginnings and ends -------------------------------------------------------------------------------------

    def _new_sequence(self, request_id: int, index: int, request: Request, tokens: list[int]) -> Sequence:
        sequence = Sequence(self._num_sequences, request_id, index, request, None, tokens)
        self._num_sequences += 1
        self._sequences[sequence.id] = sequence
        return sequence

    def _finish(
        self, sequence: Sequence, reason: FinishReason, now: float, stop_id: int | None = None, message: str = ""
    ) -> list[Event]:
        entry = self._entries[sequence.request_id]
        entry.kv_blocks += self._cache.free(sequence)
        (self._running if sequence.status is Status.RUNNING else self._waiting).remove(sequence)
        sequence.status = Status.FINISHED
        del self._sequences[sequence.id]
        del entry.living[sequence.index]
        events: list[Event] = [Finished(sequence.request_id, sequence.index, reason, now, stop_id, message)]
        # A sequence that was to fork and never did takes its unborn siblings with it.
        if sequence.strategy.may_fork:
            unborn = range(1, sequence.request.params.n)
            events += [Finished(sequence.request_id, i, reason, now, stop_id, message) for i in unborn]
        if not entry.living:
            del self._entries[sequence.request_id]
            events.append(Ended(sequence.request_id, entry.kv_blocks, now, entry.prompt_logprobs))
        return events

    def check(self) -> None:
        """Raise AssertionError unless the laws of conservation hold: blocks, references, places, lengths."""
        self._cache.check(self._sequences.values())
        assert all(s.status is Status.RUNNING for s in self._running)
        assert all(s.status is Status.WAITING and not s.blocks for s in self._waiting)
        assert self._running == sorted(self._running, key=_order)
        assert self._waiting == sorted(self._waiting, key=_order)
        places = {s.id for s in self._running} | {s.id for s in self._waiting}
        assert places == set(self._sequences) and len(places) == len(self._running) + len(self._waiting)
        assert {s.id for e in self._entries.values() for s in e.living.values()} == places
