"""Arrivals: what was asked of an engine and when, and what it answered, so that the same can be asked again elsewhere.

Gathered from a recording in one pass, beside how long its steps took and what the whole came to. A request that went on
in another process after its own had ended is one arrival with all its tokens. Times are seconds after the first process
began. What a search was answered is kept by the line of tokens it asked about, so that it is answered in any order.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from openwork.core.event import Ended, Event, Finished, Token
from openwork.core.output import FinishReason, Logprob
from openwork.core.request import Request
from openwork.core.step import Candidates, Expand, Result, Step, Work
from openwork.core.terms import Tenant, Terms
from openwork.kv.saved import Saved, export
from openwork.schedule.scheduler import Scheduler
from openwork.trace.coding.thaw import Known
from openwork.trace.cost import Lap, work_of
from openwork.trace.entry import Began, Entry, Failed, Pictured, Pinned, Planned, Ran, Replaced, Restored, Submitted
from openwork.trace.replay.schedule import Rerun, rerun
from openwork.trace.watch import WatchedCache
from openwork.trace.whatif.figures import Counting


@dataclass(slots=True)
class Arrival:
    """A request and its answer.

    ``cuts`` are sequences that were ended from outside: after so many tokens, so long after the arrival, for a reason.
    """

    at_s: float
    name: str
    request: Request
    tokens: dict[int, list[int]] = field(default_factory=dict)  # sequence index -> what it was given
    cuts: dict[int, tuple[int, float, FinishReason]] = field(default_factory=dict)
    ended_s: float | None = None


@dataclass(slots=True)
class Timed:
    """What else a scheduler was told: a pin that lasts so long, or a new list of tenants."""

    at_s: float
    terms: Terms | None = None
    tokens: tuple[int, ...] = ()
    lasts_s: float = 0.0
    tenants: Mapping[str, Tenant] | None = None


@dataclass(slots=True)
class Recorded:
    """All of it. ``began`` is the first process; ``num_left_out`` requests were refused, or lack their beginning."""

    began: Began | None = None
    restored: tuple[Saved, ...] = ()
    arrivals: list[Arrival] = field(default_factory=list)
    others: list[Timed] = field(default_factory=list)
    answers: dict[int, Candidates] = field(default_factory=dict)  # by key(), as are the scores
    scores: dict[int, Logprob] = field(default_factory=dict)
    laps: list[Lap] = field(default_factory=list)
    counting: Counting = field(default_factory=Counting)
    restarts: list[tuple[float, float]] = field(default_factory=list)  # a process ended, the next began
    processes: int = 0
    num_left_out: int = 0
    notes: list[str] = field(default_factory=list)


def key(place: int, tokens: Sequence[int], expand: Expand | None = None) -> int:
    """A line of tokens of one request, and what is asked about the next, in short. A line may be asked about again."""
    return hash((place, tuple(tokens), expand))


def collect(entries: Iterable[Entry]) -> Recorded:
    """Gather it from the lines of a recording. Where a process cannot be replayed its searches cannot be answered."""
    collecting = Collecting()
    for entry, process in rerun(entries, WatchedCache):
        collecting.take(entry, process)
        if process is not None and isinstance(process.cache, WatchedCache):
            process.cache.take_moves()  # nobody asks for them here
    return collecting.close()


class Collecting:
    """``take`` every line with the process that was told it again, which runs over a WatchedCache; then ``close``."""

    def __init__(self) -> None:
        self.recorded = Recorded()
        self._offset = 0.0
        self._places: dict[int, int] = {}  # number in this process -> place in arrivals
        self._names: dict[str, int] = {}
        self._steps: dict[int, tuple[Step, float]] = {}  # in flight, and when each was planned
        self._asked: dict[int, list[tuple[int, tuple[int, ...]] | None]] = {}  # step -> what its works ask about
        self._landed: float | None = None  # when the last step came back
        self._evicted = 0  # blocks, in this process
        self._finished: set[tuple[int, int]] = set()
        self._until = 0.0

    def take(self, entry: Entry, process: Rerun | None) -> None:
        recorded = self.recorded
        if process is not None and (process.difference is not None or process.gap):
            recorded.notes.append(f"The schedule cannot be replayed to its end: {process.difference or process.gap}.")
            process = None
        if not isinstance(entry, Began):
            self._until = max(self._until, entry.time + self._offset)
        match entry:
            case Began():
                self._begin(entry)
            case Restored(records=records) if recorded.processes == 1:
                recorded.restored = records
            case Submitted():
                self._submit(entry)
            case Pictured(known=known) if known is not None and process is not None:
                self._join(known, process)
            case Pinned(time=time, terms=terms, tokens=tokens, until=until):
                recorded.others.append(Timed(time + self._offset, terms, tokens, until - time))
            case Replaced(time=time, tenants=tenants):
                recorded.others.append(Timed(time + self._offset, tenants=tenants))
            case Planned():
                recorded.counting.steps += 1
                self._steps[entry.step.number] = entry.step, entry.time
                if process is not None:
                    self._asked[entry.step.number] = [self._line(w, process.scheduler) for w in entry.step.works]
            case Ran():
                self._ran(entry)
            case Failed():
                self._steps.pop(entry.step, None)
                self._landed = None
        for event in getattr(entry, "events", ()) if process is None else process.events:
            self._happen(event)
        if process is not None and isinstance(process.cache, WatchedCache):
            recorded.counting.evicted += process.cache.num_evicted - self._evicted
            self._evicted = process.cache.num_evicted

    def _begin(self, began: Began) -> None:
        recorded = self.recorded
        if recorded.began is None:
            recorded.began = began
        elif (began.cache, began.schedule) != (recorded.began.cache, recorded.began.schedule):
            recorded.notes.append("Later processes had other settings; those of the first are the recorded ones here.")
        recorded.processes += 1
        self._offset = began.unix_s - recorded.began.unix_s - began.time
        if recorded.processes > 1:
            recorded.restarts.append((self._until, max(self._until, began.time + self._offset)))
        self._places, self._steps, self._asked, self._landed, self._evicted = {}, {}, {}, None, 0

    def _submit(self, entry: Submitted) -> None:
        if entry.error:
            self.recorded.num_left_out += 1
            return
        at_s, arrivals = entry.time + self._offset, self.recorded.arrivals
        place = self._names.get(entry.name) if entry.so_far is not None else None
        if place is None:
            place = len(arrivals)
            arrivals.append(Arrival(at_s, entry.name, entry.request))
            terms = entry.request.terms
            search = entry.request.search is not None
            self.recorded.counting.arrive(place, at_s, terms.tenant, len(entry.request.prompt), search)
        for index in entry.so_far or ():  # it goes on: what ended it was the end of its process
            arrivals[place].cuts.pop(index, None)
            self._finished.discard((place, index))
        if entry.so_far is not None:  # what its reader had not been given comes again
            for index, tokens in arrivals[place].tokens.items():
                if (place, index) not in self._finished:
                    del tokens[len(entry.so_far.get(index, ())) :]
        self._names[entry.name] = self._places[entry.number] = place

    def _join(self, known: tuple[Known, ...], process: Rerun) -> None:
        """A replay begins here: with what is cached, and without the requests that are under way."""
        recorded, missed = self.recorded, sum(each.number not in self._places for each in known)
        if not recorded.arrivals and recorded.processes == 1:
            recorded.restored = export(process.cache)
        if missed:
            recorded.notes.append(f"Requests that were under way where the recording begins are left out: {missed}.")

    def _happen(self, event: Event) -> None:
        place = self._places.get(event.request)
        if place is None:
            return
        self.recorded.counting.see(place, event, self._offset)
        arrival = self.recorded.arrivals[place]
        if isinstance(event, Token):
            arrival.tokens.setdefault(event.index, []).append(event.choice.token)
        elif isinstance(event, Ended):
            arrival.ended_s = event.time + self._offset
        elif isinstance(event, Finished):
            self._finished.add((place, event.index))
            by_itself = event.stop_id is not None or arrival.request.search is not None
            is_own = event.reason in ("length", "repetition") or (event.reason == "stop" and by_itself)
            if not is_own:
                given = len(arrival.tokens.get(event.index, ()))
                arrival.cuts[event.index] = given, event.time + self._offset - arrival.at_s, event.reason

    # -- steps ---------------------------------------------------------------------------------------------------

    def _line(self, work: Work, scheduler: Scheduler) -> tuple[int, tuple[int, ...]] | None:
        """The request and the tokens that a work of a search asks about."""
        sequence = scheduler.sequence(work.sequence)
        if sequence is None or sequence.request.search is None:
            return None
        place = self._places.get(sequence.request_id)
        return None if place is None else (place, tuple(sequence.tokens))

    def _ran(self, entry: Ran) -> None:
        step, planned = self._steps.pop(entry.result.step, (None, 0.0))
        if step is None:
            return
        # Planned while another ran, it could begin when that had come back.
        start = planned if self._landed is None else max(planned, self._landed)
        lap = Lap(work_of(step), start + self._offset, entry.time - start, entry.result.elapsed_s)
        self.recorded.laps.append(lap)
        self._landed = entry.time
        self._learn(step, entry.result, self._asked.pop(step.number, []))

    def _learn(self, step: Step, result: Result, asked: Sequence[tuple[int, tuple[int, ...]] | None]) -> None:
        for work, outcome, line in zip(step.works, result.outcomes, asked, strict=False):
            if line is None:
                continue
            place, tokens = line
            if outcome.candidates is not None:
                self.recorded.answers[key(place, tokens, work.expand)] = outcome.candidates
            if work.score is not None:
                first = work.start + work.score.first + 2
                for end, score in enumerate(outcome.scores, start=first):
                    self.recorded.scores[key(place, tokens[:end])] = score

    def close(self) -> Recorded:
        """What has not ended in the recording ends with the last token that is in it."""
        for place, arrival in enumerate(self.recorded.arrivals):
            for index in range(arrival.request.params.num_drawn):
                if (place, index) not in self._finished:
                    given = len(arrival.tokens.get(index, ()))
                    arrival.cuts[index] = given, self._until - arrival.at_s, "cancelled"
        return self.recorded
