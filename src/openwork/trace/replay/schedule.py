"""Schedule replay: a scheduler is told again what was recorded, and must decide again what it decided.

    recorded lines -> the same scheduler, the recorded times, the recorded results -> the same steps, or a Difference

It guarantees that a Difference is the first one, field by field, and that nothing after it in the same engine process
is judged. A step is compared whole: whose rows, which tokens, which blocks, which copies, what is drawn, why. It runs
no model. Whoever wants to see what the scheduler saw (the timeline, the report) hands in a cache that watches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from openwork.core.errors import OpenworkError
from openwork.core.event import Admitted, Ended, Event
from openwork.core.settings import CacheSettings
from openwork.core.step import Step
from openwork.core.terms import Tenants
from openwork.kv.cache import KVCache
from openwork.kv.saved import restore
from openwork.schedule.scheduler import Scheduler
from openwork.trace.coding.thaw import NotThawed
from openwork.trace.entry import (
    Began,
    Cancelled,
    Decided,
    Entry,
    Failed,
    Pictured,
    Pinned,
    Planned,
    Ran,
    Replaced,
    Restored,
    Submitted,
    Waited,
)
from openwork.trace.replay.compare import first_difference, short
from openwork.trace.replay.told import Told, ToldStrategies

MakeCache = Callable[[CacheSettings, Tenants], KVCache]


@dataclass(frozen=True, slots=True)
class Difference:
    """Where a replay first came to something else. ``process`` counts engine processes from 0.

    ``where`` names the field within the line, as in "step.works[2].blocks".
    """

    process: int
    line: str  # "step 12", "the result of step 12", "request 3"
    where: str
    recorded: Any
    replayed: Any

    def __str__(self) -> str:
        return (
            f"process {self.process}, {self.line}: {self.where} was {short(self.recorded)}, "
            f"and is {short(self.replayed)} in the replay"
        )


@dataclass(frozen=True, slots=True)
class Checked:
    """What came of a replay: all that was compared, and the first difference in each process that had one."""

    processes: int
    steps: int  # compared and found equal
    requests: int  # those that went on in another process counted once
    differences: tuple[Difference, ...] = ()
    gaps: tuple[str, ...] = ()  # where lines are missing; nothing after one can be compared
    unread: int = 0  # lines that were not compared: after a difference or a gap, or before the first picture
    since: tuple[float, ...] = ()  # from where a replay went on with a picture; seconds of the calendar

    @property
    def is_equal(self) -> bool:
        """Whether everything was compared and nothing differed."""
        return not self.differences and not self.unread


class Rerun:
    """One engine process, told again what it was told.

    ``feed`` takes the lines after Began, in order. ``events`` holds what the last of them led to, ``step`` the step it
    planned; ``in_flight`` are the steps whose results have not come back.
    """

    def __init__(self, began: Began, process: int = 0, make_cache: MakeCache = KVCache) -> None:
        self.began = began
        self.process = process
        self.tenants = Tenants(began.tenants)
        self.cache = make_cache(began.cache, self.tenants)
        self._told = Told()
        # Guesses follow from the tokens themselves, or from a model that is not here: they are told where tokens are
        # not kept, and where a model made them.
        speculation = began.schedule.speculation
        is_computed = speculation is not None and speculation.draft_model is not None
        proposer = None if began.has_tokens and not is_computed else self._told.proposer
        strategies = None if began.has_tokens else ToldStrategies(self._told)
        self.scheduler = Scheduler(began.schedule, self.cache, began.admission, proposer, strategies)
        self.in_flight: dict[int, Step] = {}
        self.events: list[Event] = []
        self.step: Step | None = None
        self.landed: Step | None = None  # the step whose result the last line brought
        self.difference: Difference | None = None  # the first; nothing may be fed after it
        self.gap = ""  # what is missing before the last line; nor after this
        self.since: float | None = None  # when it was pictured; None: it was told from its beginning
        self.lost = ""  # what is missing before that, where it is not the beginning
        self.is_told = False
        self._num_steps = 0

    @classmethod
    def from_picture(cls, began: Began, pictured: Pictured, process: int = 0, make_cache: MakeCache = KVCache) -> Rerun:
        """One that goes on from a picture, as from its beginning. Raises NotThawed."""
        if began.cache != pictured.picture.cache:
            raise NotThawed("a picture is of a cache of another size")
        self = cls(began, process, make_cache)
        self.in_flight = pictured.picture.restore(self.scheduler)
        self._num_steps, self.since = pictured.picture.step, pictured.time
        return self

    def is_at(self, pictured: Pictured) -> bool:
        """Whether it has come to where a picture was taken, as far as can be told."""
        return pictured.known is None and self._num_steps == pictured.picture.step

    def feed(self, entry: Entry) -> None:
        """Do again what a line says was done."""
        self.events, self.step, self.landed, self.is_told = [], None, None, True
        try:
            self.difference = self._do(entry)
        except (AssertionError, LookupError, OpenworkError, ValueError) as error:
            # Lines that contradict each other lead a scheduler to states that it never has.
            kind = type(entry).__name__
            self.difference = self._differs(f"a {kind} line", kind.lower(), "possible", f"impossible: {error}")

    def _do(self, entry: Entry) -> Difference | None:
        match entry:
            case Submitted():
                return self._submit(entry)
            case Cancelled(time=time, number=number, index=index, reason=reason):
                self.events = self.scheduler.cancel(number, time, index, reason)
            case Pinned(time=time, terms=terms, tokens=tokens, until=until):
                self.scheduler.pin(terms, tokens, time, until)
            case Replaced(tenants=tenants):
                self.tenants.replace(tenants)
            case Restored(records=records):
                restore(self.cache, records, self.began.vocab_size)
            case Planned():
                return self._plan(entry)
            case Waited(time=time):
                self._told.wait(entry.for_guess)
                self.step, self.events = self.scheduler.plan(time)
                if self.step is not None:
                    return self._differs("a wait", "step", None, self.step)
            case Decided():
                self._told.decide(entry)
            case Ran() | Failed():
                return self._land(entry)
            case Began():
                raise ValueError("a process begins once")
            case Pictured():  # it has come here by itself
                pass
        return None

    def _submit(self, entry: Submitted) -> Difference | None:
        line = f"request {entry.number}"
        self._told.submit(entry.number, entry.so_far)
        try:
            self.events = self.scheduler.add(entry.number, entry.request, entry.time, entry.so_far)
        except OpenworkError as error:
            return None if entry.error else self._differs(line, "error", entry.error, str(error))
        return self._differs(line, "error", entry.error, "") if entry.error else None

    def _plan(self, entry: Planned) -> Difference | None:
        if entry.step.number != self._num_steps:
            self.gap = f"process {self.process}: lines are missing before step {entry.step.number}"
            return None
        self._num_steps += 1
        self._told.plan(entry.step)
        self.step, self.events = self.scheduler.plan(entry.time)
        if self.since is not None:
            self._recall(entry.events, self.since)
        line = f"step {entry.step.number}"
        found = first_difference(entry.step, self.step, "step")
        found = found or self._compare(entry.events)
        if self.step is not None:
            self.in_flight[self.step.number] = self.step
        return None if found is None else self._differs(line, *found)

    def _recall(self, recorded: tuple[Event, ...], since: float) -> None:
        """What was evicted before a picture is not in it: that something is missing for that is taken as recorded."""
        for place, (was, now) in enumerate(zip(recorded, self.events, strict=False)):
            if not isinstance(was, Admitted) or not isinstance(now, Admitted) or was.miss is None or now.miss is None:
                continue
            is_before = was.miss.cause == "evicted" and was.miss.time is not None and was.miss.time <= since
            if is_before and was.miss.token == now.miss.token:
                tally = self.scheduler._roster.entries[now.request].tally
                if tally.miss is now.miss:
                    tally.miss = was.miss
                self.events[place] = replace(now, miss=was.miss)

    def _land(self, entry: Ran | Failed) -> Difference | None:
        number = entry.result.step if isinstance(entry, Ran) else entry.step
        line = f"the result of step {number}"
        if self.in_flight and number > (oldest := next(iter(self.in_flight))):  # results come in order
            self.gap = f"process {self.process}: the result of step {oldest} is missing"
            return None
        if number >= self._num_steps:
            self.gap = f"process {self.process}: lines are missing before the result of step {number}"
            return None
        self.landed = self.in_flight.pop(number, None)
        if self.landed is None:
            return self._differs(line, "step", number, "not in flight")
        if isinstance(entry, Ran):
            if len(entry.result.outcomes) != len(self.landed.works):
                return self._differs(line, "outcomes", len(entry.result.outcomes), len(self.landed.works))
            self._told.land(entry.events)
            self.events = self.scheduler.commit(self.landed, entry.result, entry.time)
        else:
            self.events = self.scheduler.fail(self.landed, entry.message, entry.time)
        found = self._compare(entry.events)
        return None if found is None else self._differs(line, *found)

    def _compare(self, recorded: tuple[Event, ...]) -> tuple[str, Any, Any] | None:
        """Events, where the line has any; what a search found is not kept where tokens are not."""
        if not recorded:
            return None
        now = self.events if self.began.has_tokens else [_without_words(event) for event in self.events]
        return first_difference(recorded, tuple(now), "events")

    def _differs(self, line: str, where: str, recorded: Any, replayed: Any) -> Difference:
        return Difference(self.process, line, where, recorded, replayed)


def rerun(entries: Iterable[Entry], make_cache: MakeCache = KVCache) -> Iterator[tuple[Entry, Rerun | None]]:
    """Every line of a recording, and the process that was told it again.

    None: its beginning is not in the recording, lines are missing, or it has begun to differ. The first line that
    differs comes with its process, whose ``difference`` says how; the first behind a gap likewise, and ``gap``. Behind
    a gap, and where the beginning is gone, it goes on at the next picture, with a process that has ``since``.
    """
    num_processes = 0
    began: Began | None = None  # None: nothing can begin before the next
    current: Rerun | None = None
    for entry in entries:
        if isinstance(entry, Began):
            began, current = entry, Rerun(entry, num_processes, make_cache)
            num_processes += 1
        elif isinstance(entry, Pictured):
            if began is not None and (current is None or not current.is_at(entry)):
                current = _thawed(current or Rerun(began, num_processes - 1, make_cache), entry, make_cache)
        elif current is not None:
            current.feed(entry)
        yield entry, current
        if current is not None and (current.difference is not None or current.gap):
            began = began if current.difference is None else None
            current = None


def _thawed(before: Rerun, pictured: Pictured, make_cache: MakeCache) -> Rerun:
    """The process that goes on from a picture; or the one before, with a gap, where it cannot be thawed."""
    try:
        process = Rerun.from_picture(before.began, pictured, before.process, make_cache)
    except NotThawed as error:
        before.gap = f"process {before.process}: {error}"
        return before
    if before.is_told:
        process.lost = f"process {before.process}: lines are missing before step {pictured.picture.step}"
    return process


def check(entries: Iterable[Entry]) -> Checked:
    """Replay a whole recording. Never raises for what it says: whatever differs is in the answer."""
    processes = steps = requests = unread = 0
    differences: list[Difference] = []
    gaps: list[str] = []
    since: list[float] = []
    for entry, process in rerun(entries):
        if process is None:
            unread += not isinstance(entry, Pictured)
        elif process.gap:
            gaps.append(process.gap)
            unread += 1
        elif process.difference is not None:
            differences.append(process.difference)
        elif isinstance(entry, Pictured) and process.since == entry.time:
            since.append(process.began.unix_s + entry.time - process.began.time)
            gaps += [process.lost] if process.lost else []
        else:
            processes += isinstance(entry, Began)
            steps += isinstance(entry, Planned)
            requests += isinstance(entry, Submitted) and entry.so_far is None
    return Checked(processes, steps, requests, tuple(differences), tuple(gaps), unread, tuple(since))


def _without_words(event: Event) -> Event:
    return replace(event, search=None) if isinstance(event, Ended) else event
