"""simulate: the same arrivals before the same scheduler under other settings, each step taking what such steps took.

    arrivals, in their time -> Scheduler (other settings) -> steps -> StepCost, Tempo -> a virtual clock -> Figures

It guarantees that every request gets the tokens it got in the recording and ends where it ended there: by contract the
bits do not depend on the schedule, so only times, hits and preemptions can differ. What it does not know: that a client
might have asked at another time had it been answered sooner, and what a machine does beside.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

from openwork.core.errors import OpenworkError
from openwork.core.event import Arrived, Ended, Event, Finished, Token
from openwork.core.output import FinishReason, Logprob
from openwork.core.step import Candidates, Choice, Outcome, Result, Step, Work
from openwork.core.terms import Tenants
from openwork.engine.loop import Loop
from openwork.kv.saved import restore
from openwork.schedule.scheduler import Scheduler
from openwork.trace.cost import StepCost, work_of
from openwork.trace.watch import WatchedCache
from openwork.trace.whatif.arrivals import Arrival, Recorded, Timed, key
from openwork.trace.whatif.change import Settings
from openwork.trace.whatif.conversation import Follows
from openwork.trace.whatif.figures import Counting, Figures
from openwork.trace.whatif.tempo import Tempo

_Line = tuple[float, int, int, Arrival | Timed | float]  # when, which kind first, its number, what


@dataclass(frozen=True, slots=True)
class Machine:
    """What the simulated steps run on."""

    cost: StepCost
    tempo: Tempo


def simulate(
    recorded: Recorded, machine: Machine, settings: Settings, follows: Mapping[int, Follows] | None = None
) -> Figures:
    """What would have come of the recorded arrivals under these settings.

    Those that ``follows`` names, by place, come when they have been answered; the others when they came.
    """
    return _Simulation(recorded, machine, settings, follows or {}).run()


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
        self, recorded: Recorded, machine: Machine, settings: Settings, follows: Mapping[int, Follows]
    ) -> None:
        self._recorded = recorded
        self._machine = machine
        self._settings = settings
        self._clock = _Clock()
        self._tenants = Tenants(settings.tenants)
        self._counting = Counting()
        self._living: dict[int, dict[int, int]] = {}  # place -> tokens given, by index of sequences not finished
        self._after: Mapping[int, Follows] = follows
        self._next: dict[int, list[int]] = {}  # place -> those that come after it has been answered
        for place, each in follows.items():
            self._next.setdefault(each.place, []).append(place)
        self._cuts: list[tuple[float, int, int, FinishReason]] = []  # those that come at a time, a heap
        self._script = self._planned()
        self._begin()
        if recorded.restored and recorded.began is not None and settings.cache.prefix:
            restore(self._cache, recorded.restored, recorded.began.vocab_size)

    def _begin(self) -> None:
        """An engine, as it begins."""
        self._cache = WatchedCache(self._settings.cache, self._tenants)
        self._scheduler = Scheduler(self._settings.schedule, self._cache, self._settings.admission)
        self._runner = _Runner(self._recorded, self._machine, self._clock, self._scheduler)
        self._loop = Loop(self._scheduler, self._runner, self._clock)

    def run(self) -> Figures:
        script = self._script
        while script or not self._loop.is_idle:
            if self._loop.is_idle:
                self._clock.wait(script[0][0])
            while script and script[0][0] <= self._clock.now():
                _, _, place, what = heapq.heappop(script)
                if isinstance(what, Arrival):
                    self._arrive(place, what)
                elif isinstance(what, Timed):
                    self._tell(what)
                else:
                    self._restart(what)
            self._cut_in_time()
            self._see(self._loop.turn())
        self._counting.steps += self._runner.num_steps
        return self._counting.figures()

    def _planned(self) -> list[_Line]:
        """What comes at a time that is known from the beginning, a heap."""
        recorded = self._recorded
        known = [(place, arrival) for place, arrival in enumerate(recorded.arrivals) if place not in self._after]
        lines: list[_Line] = [
            *((other.at_s, 0, number, other) for number, other in enumerate(recorded.others)),
            *((ended_s, 1, number, began_s) for number, (ended_s, began_s) in enumerate(recorded.restarts)),
            *((arrival.at_s, 2, place, arrival) for place, arrival in known),
        ]
        return sorted(lines, key=lambda line: line[:3])

    def _restart(self, until_s: float) -> None:
        """The engine's process ends here as it did, and its requests go on in the next."""
        self._counting.steps += self._runner.num_steps
        self._begin()
        self._clock.wait(until_s)
        for place in sorted(self._living):
            arrival = self._recorded.arrivals[place]
            given = {index: arrival.tokens.get(index, [])[:count] for index, count in self._living[place].items()}
            self._see(self._scheduler.add(place, arrival.request, self._clock.now(), given))

    def _tell(self, what: Timed) -> None:
        now = self._clock.now()
        if what.tenants is not None:
            self._tenants.replace({**what.tenants, **self._settings.tenants})
        elif what.terms is not None:
            self._scheduler.pin(what.terms, what.tokens, now, now + what.lasts_s)

    def _arrive(self, place: int, arrival: Arrival) -> None:
        # As in a recording, it has come when the loop takes it in.
        request, now = arrival.request, self._clock.now()
        try:
            events = self._scheduler.add(place, request, now)
        except OpenworkError:
            self._counting.refused.append(request.terms.tenant)
            self._answered(place)
            return
        self._living[place] = {}
        tenant, is_search = request.terms.tenant, request.search is not None
        self._counting.arrive(place, now, tenant, len(request.prompt), is_search)
        for index, (given, after_s, reason) in arrival.cuts.items():
            if is_search or not given:
                heapq.heappush(self._cuts, (now + after_s, place, index, reason))
        self._see(events)

    def _answered(self, place: int) -> None:
        """Whoever waited for this answer reads it and asks on."""
        for each in self._next.get(place, ()):
            at_s = self._clock.now() + self._after[each].pause_s
            heapq.heappush(self._script, (at_s, 2, each, self._recorded.arrivals[each]))

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
            if isinstance(event, Ended):
                self._living.pop(event.request, None)
                self._answered(event.request)
            elif isinstance(event, Finished):
                self._living.get(event.request, {}).pop(event.index, None)
            elif isinstance(event, Token):
                lines = self._living.setdefault(event.request, {})
                given = lines[event.index] = lines.get(event.index, 0) + 1
                if cut is not None and given >= cut[0]:
                    left += self._scheduler.cancel(event.request, self._clock.now(), event.index, cut[2])
                if cut is not None and given > cut[0]:
                    continue  # it was ended before this one
            self._counting.see(event.request, event)


class _Runner:
    """Answers as was recorded, and takes as long as such steps took."""

    def __init__(self, recorded: Recorded, machine: Machine, clock: _Clock, scheduler: Scheduler) -> None:
        self._recorded = recorded
        self._machine = machine
        self._clock = clock
        self._scheduler = scheduler
        self._free_at = 0.0
        self.num_steps = 0

    def submit(self, step: Step) -> tuple[float, Result]:
        self.num_steps += 1
        cost, start = self._machine.cost, max(self._clock.now(), self._free_at)
        self._free_at = self._machine.tempo.end(start, cost.seconds(work_of(step)))
        took = self._free_at - start
        outcomes = tuple(self._outcome(work) for work in step.works)
        return self._free_at, Result(step.number, outcomes, max(took - cost.pause_s, took / 2))

    def collect(self, ticket: tuple[float, Result]) -> Result:
        self._clock.wait(ticket[0])
        return ticket[1]

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
