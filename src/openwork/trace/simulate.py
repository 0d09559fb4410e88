"""simulate: the same arrivals before the same scheduler under other settings, each step taking what such steps took.

    arrivals, in their time -> Scheduler (other settings) -> steps -> StepCost -> a virtual clock -> Figures

It guarantees that every request gets the tokens it got in the recording and ends where it ended there: by contract the
bits do not depend on the schedule, so only times, hits and preemptions can differ. What it does not know: that a client
might have asked at another time had it been answered sooner, and what a machine does beside.
"""

from __future__ import annotations

import heapq
from collections import deque
from random import Random

from openwork.core.errors import OpenworkError
from openwork.core.event import Arrived, Event, Token
from openwork.core.output import FinishReason, Logprob
from openwork.core.settings import AdmissionSettings, CacheSettings, ScheduleSettings
from openwork.core.step import Candidates, Choice, Outcome, Result, Step, Work
from openwork.core.terms import Tenants
from openwork.engine.loop import Loop
from openwork.kv.saved import restore
from openwork.schedule.scheduler import Scheduler
from openwork.trace.arrivals import Arrival, Recorded, Timed, key
from openwork.trace.cost import StepCost, work_of
from openwork.trace.figures import Counting, Figures
from openwork.trace.watch import WatchedCache


def simulate(
    recorded: Recorded, cost: StepCost, cache: CacheSettings, schedule: ScheduleSettings, admission: AdmissionSettings
) -> Figures:
    """What would have come of the recorded arrivals under these settings."""
    return _Simulation(recorded, cost, cache, schedule, admission).run()


class _Clock:
    """Seconds that pass when a step has run, or nobody has anything to do."""

    def __init__(self) -> None:
        self._now = 0.0

    def now(self) -> float:
        return self._now

    def wait(self, until: float) -> None:
        self._now = max(self._now, until)


class _Simulation:
    def __init__(
        self,
        recorded: Recorded,
        cost: StepCost,
        cache: CacheSettings,
        schedule: ScheduleSettings,
        admission: AdmissionSettings,
    ) -> None:
        self._recorded = recorded
        self._clock = _Clock()
        self._tenants = Tenants(recorded.began.tenants if recorded.began is not None else {})
        self._cache = WatchedCache(cache, self._tenants)
        self._scheduler = Scheduler(schedule, self._cache, admission)
        self._runner = _Runner(recorded, cost, self._clock, self._scheduler)
        self._loop = Loop(self._scheduler, self._runner, self._clock)
        self._counting = Counting()
        self._given: dict[tuple[int, int], int] = {}  # (place, index) -> tokens
        self._cuts: list[tuple[float, int, int, FinishReason]] = []  # those that come at a time, a heap
        if recorded.restored and recorded.began is not None and cache.prefix:
            restore(self._cache, recorded.restored, recorded.began.vocab_size)

    def run(self) -> Figures:
        script: deque[tuple[float, int, Arrival | Timed]] = deque(
            sorted(
                [
                    *((arrival.at_s, place, arrival) for place, arrival in enumerate(self._recorded.arrivals)),
                    *((other.at_s, -1, other) for other in self._recorded.others),
                ],
                key=lambda each: each[:2],
            )
        )
        while script or not self._loop.is_idle:
            if self._loop.is_idle:
                self._clock.wait(script[0][0])
            while script and script[0][0] <= self._clock.now():
                _, place, what = script.popleft()
                self._arrive(place, what) if isinstance(what, Arrival) else self._tell(what)
            self._cut_in_time()
            self._see(self._loop.turn())
        self._counting.steps = self._runner.num_steps
        return self._counting.figures()

    def _tell(self, what: Timed) -> None:
        now = self._clock.now()
        if what.tenants is not None:
            self._tenants.replace(what.tenants)
        elif what.terms is not None:
            self._scheduler.pin(what.terms, what.tokens, now, now + what.lasts_s)

    def _arrive(self, place: int, arrival: Arrival) -> None:
        request = arrival.request
        try:
            events = self._scheduler.add(place, request, arrival.at_s)
        except OpenworkError:
            self._counting.refused.append(request.terms.tenant)
            return
        tenant, is_search = request.terms.tenant, request.search is not None
        self._counting.arrive(place, arrival.at_s, tenant, len(request.prompt), is_search)
        for index, (given, after_s, reason) in arrival.cuts.items():
            if is_search or not given:
                heapq.heappush(self._cuts, (arrival.at_s + after_s, place, index, reason))
        self._see(events)

    def _cut_in_time(self) -> None:
        while self._cuts and self._cuts[0][0] <= self._clock.now():
            _, place, index, reason = heapq.heappop(self._cuts)
            self._see(self._scheduler.cancel(place, self._clock.now(), index, reason))

    def _see(self, events: list[Event]) -> None:
        """Count what happened, and end what was ended after so many tokens."""
        self._counting.evicted += sum(move.what == "evict" for move in self._cache.take_moves())
        left = deque(events)
        while left:
            event = left.popleft()
            if isinstance(event, Arrived):
                continue
            cut = self._recorded.arrivals[event.request].cuts.get(event.index) if isinstance(event, Token) else None
            if isinstance(event, Token):
                whose = event.request, event.index
                given = self._given[whose] = self._given.get(whose, 0) + 1
                if cut is not None and given >= cut[0]:
                    left += self._scheduler.cancel(event.request, self._clock.now(), event.index, cut[2])
                if cut is not None and given > cut[0]:
                    continue  # it was ended before this one
            self._counting.see(event.request, event)


class _Runner:
    """Answers as was recorded, and takes as long as such steps took."""

    def __init__(self, recorded: Recorded, cost: StepCost, clock: _Clock, scheduler: Scheduler) -> None:
        self._recorded = recorded
        self._cost = cost
        self._clock = clock
        self._scheduler = scheduler
        self._random = Random(0)  # the same question has the same answer
        self._free_at = 0.0
        self.num_steps = 0

    def submit(self, step: Step) -> tuple[float, Result]:
        self.num_steps += 1
        seconds = self._cost.draw(work_of(step), self._random)
        outcomes = tuple(self._outcome(work) for work in step.works)
        return self._clock.now(), Result(step.number, outcomes, seconds)

    def collect(self, ticket: tuple[float, Result]) -> Result:
        submitted, result = ticket
        self._free_at = max(submitted, self._free_at) + self._cost.between_s + result.elapsed_s
        self._clock.wait(self._free_at)
        return result

    def close(self, wait: bool = True) -> None:
        """There is nothing to let go of."""

    def _outcome(self, work: Work) -> Outcome:
        sequence = self._scheduler.sequence(work.sequence)
        assert sequence is not None, "it was planned a moment ago"
        place = sequence.request_id
        tokens = self._recorded.arrivals[place].tokens
        choices = self._choices(work, tokens)
        scores: tuple[Logprob, ...] = ()
        if work.score is not None:
            first = work.start + work.score.first + 2
            lines = enumerate(work.score.targets, start=first)
            scores = tuple(self._score(key(place, sequence.tokens[:end]), target) for end, target in lines)
        found: Candidates | None = None
        if work.expand is not None:
            found = self._recorded.answers.get(key(place, sequence.tokens, work.expand))
            if found is None:  # only where what a search does depends on the time
                return Outcome(failure="the recording does not hold what this search asks", failed="closed")
        return Outcome(choices, scores, candidates=found)

    def _choices(self, work: Work, tokens: dict[int, list[int]]) -> tuple[Choice, ...]:
        """What was given then. Behind guesses that are right, one more."""
        chosen = []
        for draw in work.draws:
            given = tokens.get(draw.index, [])
            for place in range(len(work.drafts) + 1):
                chosen.append(self._token(given, draw.generated + place, draw.stop_ids))
                if place < len(work.drafts) and chosen[-1] != work.drafts[place]:
                    break
        return tuple(map(Choice, chosen))

    def _score(self, line: int, target: int) -> Logprob:
        return self._recorded.scores.get(line) or Logprob(target, 0.0, 1)

    @staticmethod
    def _token(given: list[int], place: int, stop_ids: frozenset[int]) -> int:
        """The recorded token; behind the last, where its sequence is about to be cut, any that ends nothing."""
        if place < len(given):
            return given[place]
        return next(token for token in range(len(stop_ids) + 1) if token not in stop_ids)
