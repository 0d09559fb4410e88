"""gather: the facts of a recording, from a replay of its schedule.

Every step that is counted as replayed was compared with the recorded one, so what the replaying scheduler knows is what
the one that served knew: which request a row belonged to, where every block was, who evicted whom. Where a process
cannot be replayed (its beginning is gone, or it came out otherwise) only what the lines themselves say is gathered.
One pass; what grows with the recording are the steps, the requests and four bytes for each work and token.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from openwork.core.event import Admitted, Ended, Event, Finished, Preempted, Token
from openwork.core.request import Request
from openwork.core.step import Step
from openwork.trace.coding.thaw import Known
from openwork.trace.cost import work_of
from openwork.trace.course import Asked, Course, Happened, Line, Stepped
from openwork.trace.entry import Began, Cancelled, Entry, Failed, Pictured, Planned, Ran, Submitted
from openwork.trace.replay.schedule import Rerun, rerun
from openwork.trace.watch import WatchedCache
from openwork.trace.whereabouts import Whereabouts

MOST_LEFT_OUT = 64  # of those who were left out of one step


def gather(entries: Iterable[Entry], window: range | None = None) -> Course:
    """The facts of a recording; of the steps in ``window`` (places, from 0) every block and work."""
    gathering = Gathering(window or range(0))
    for entry, process in rerun(entries, WatchedCache):
        gathering.take(entry, process)
    return gathering.course


class Gathering:
    """``take`` every line with the process that was told it again, which runs over a WatchedCache."""

    def __init__(self, window: range = range(0)) -> None:
        self.course = Course()
        self._window = window
        self._offset = 0.0  # from a process's clock to the course's
        self._places: dict[int, int] = {}  # number of a request in this process -> place
        self._names: dict[str, int] = {}  # of those that may go on in the next process
        self._in_flight: dict[int, int] = {}  # number of a step -> place
        self._guessed: dict[int, list[int]] = {}  # number of a step -> which of its works have guesses
        self._at = 0  # place of the step that the line in hand belongs to
        self._whereabouts = Whereabouts(self.course, window)

    def take(self, entry: Entry, process: Rerun | None) -> None:
        if process is not None and process.difference is not None:
            self.course.differences.append(str(process.difference))
            process = None
        elif process is not None and process.gap:
            self.course.differences.append(process.gap)
            process = None
        self._at = max(0, len(self.course.steps) - 1)
        match entry:
            case Began():
                self._begin(entry)
                self._whereabouts.outlive(process)
            case Submitted():
                self._submit(entry)
            case Planned():
                self._plan(entry, process)
            case Ran() | Failed():
                self._land(entry)
            case Pictured(known=known) if process is not None:
                for each in known or ():
                    if each.number not in self._places:
                        self._join(each, entry.time, process)
            case Cancelled():
                self._note("cancel", entry.time, entry.number, {"index": entry.index, "reason": entry.reason})
        for event in getattr(entry, "events", ()) if process is None else process.events:
            self._happen(event, process)
        if process is not None:
            self._whereabouts.watch(entry, process, self._at, self._places)

    def _begin(self, began: Began) -> None:
        first = self.course.processes[0][1] if self.course.processes else began
        at = began.unix_s - first.unix_s
        self._offset = at - began.time
        self._places, self._in_flight = {}, {}
        self.course.processes.append((at, began))

    def _submit(self, entry: Submitted) -> None:
        request = entry.request
        known = self._names.get(entry.name) if entry.so_far is not None else None
        if known is None:
            known = self._asked(entry.name, entry.number, request, entry.time)
            self.course.requests[known].error = entry.error
        if not entry.error:
            self._names[entry.name] = self._places[entry.number] = known
            indices = [0] if entry.so_far is None else sorted(entry.so_far) or [0]
            for index in indices:
                self._line(known, index).spans.append((entry.time + self._offset, "queued", ""))

    def _join(self, known: Known, time: float, process: Rerun) -> None:
        """A request that is under way where a replay begins."""
        place = self._asked(known.name, known.number, known.request, known.arrived)
        self.course.requests[place].joined_s = time + self._offset
        self._names[known.name] = self._places[known.number] = place
        for sequence in process.scheduler._roster.entries[known.number].living.values():
            line = self._line(place, sequence.index)
            line.computed, line.before = sequence.computed, sequence.generated
            state = "running" if sequence.blocks else "queued"
            line.spans.append((time + self._offset, state, ""))

    def _asked(self, name: str, number: int, request: Request, arrived: float) -> int:
        """The place of a request that is new to the course."""
        asked = Asked(
            name=name,
            tenant=request.terms.tenant,
            arrived_s=arrived + self._offset,
            prompt=len(request.prompt),
            most=request.max_tokens,
            is_search=request.search is not None,
            process=max(0, len(self.course.processes) - 1),
            number=number,
        )
        self.course.requests.append(asked)
        return len(self.course.requests) - 1

    def _line(self, place: int, index: int) -> Line:
        lines = self.course.requests[place].lines
        line = lines.get(index)
        if line is None:  # not setdefault: nobody is to make a Line for every token
            line = lines[index] = Line()
        return line

    # -- steps ---------------------------------------------------------------------------------------------------

    def _plan(self, entry: Planned, process: Rerun | None) -> None:
        step, self._at = entry.step, len(self.course.steps)
        stepped = Stepped(
            process=max(0, len(self.course.processes) - 1),
            number=step.number,
            planned_s=entry.time + self._offset,
            rows=step.num_rows,
            works=len(step.works),
            work=work_of(step),
            copies=len(step.copies),
        )
        if step.why is not None:
            stepped.order, stepped.bound, stepped.budget = step.why.order, step.why.bound, step.why.rows
        self._in_flight[step.number] = self._at
        self.course.steps.append(stepped)
        owners: Sequence[tuple[int, int] | None] = entry.owners
        owners = owners or [self._owner(work.sequence, process) for work in step.works]
        self._works(step, stepped, owners)
        if process is None:
            return
        self.course.replayed += 1
        for number, cause in step.why.left_out[:MOST_LEFT_OUT] if step.why is not None else ():
            owner = self._owner(number, process)
            if owner is not None and owner[0] in self._places:
                stepped.left_out.append((self._places[owner[0]], owner[1], cause))

    def _works(self, step: Step, stepped: Stepped, owners: Sequence[tuple[int, int] | None]) -> None:
        detail: list[tuple[int, int, int, int, str, int]] = []
        is_shown = self._at in self._window
        for at, (work, owner) in enumerate(zip(step.works, owners, strict=False)):
            place = None if owner is None else self._places.get(owner[0])
            if owner is None or place is None:
                continue
            asked, line = self.course.requests[place], self._line(place, owner[1])
            start, count, sure = work.start, work.count, work.num_sure
            end = start + sure  # what was guessed in vain and comes again is not computed again
            if end > line.computed:
                again, line.computed = max(0, line.computed - start), end
            else:
                again = sure
            line.worked.append(self._at)
            stepped.again += again
            if sure > 1:
                stepped.chunks.append((place, count))
            else:
                stepped.alone[asked.tenant] += 1
            if work.drafts:
                stepped.guesses.append((place, owner[1], end, count - sure, None))
                self._guessed.setdefault(step.number, []).append(at)
            if is_shown:
                is_prompt = start < asked.prompt
                kind = "again" if again else "prompt" if is_prompt else "search" if asked.is_search else "decode"
                detail.append((place, owner[1], start, count, kind, len(work.blocks)))
        if is_shown:
            self.course.detail.works[self._at] = detail

    def _owner(self, sequence_id: int, process: Rerun | None) -> tuple[int, int] | None:
        """The number of the request of a living sequence, and its index there."""
        sequence = None if process is None else process.scheduler.sequence(sequence_id)
        return None if sequence is None else (sequence.request_id, sequence.index)

    def _land(self, entry: Ran | Failed) -> None:
        number = entry.result.step if isinstance(entry, Ran) else entry.step
        place = self._in_flight.pop(number, None)
        if place is None:
            return
        self._at = place
        stepped = self.course.steps[place]
        stepped.landed_s = entry.time + self._offset
        guessed = self._guessed.pop(number, ())
        if isinstance(entry, Ran):
            stepped.elapsed_s = entry.result.elapsed_s
            came = (max(0, len(entry.result.outcomes[at].choices) - 1) for at in guessed)
            stepped.guesses = [(*each[:4], n) for each, n in zip(stepped.guesses, came, strict=False)]
        else:
            stepped.failed = entry.message
            self._note("failed", entry.time, None, {"message": entry.message})

    # -- events --------------------------------------------------------------------------------------------------

    def _happen(self, event: Event, process: Rerun | None) -> None:
        place = self._places.get(event.request)
        if place is None:
            return
        asked, time = self.course.requests[place], event.time + self._offset
        match event:
            case Token(index=index):
                line = self._line(place, index)
                line.tokens.append(self._at)
                if not line.spans:  # it was born running, where its request split
                    line.spans.append((time, "running", ""))
            case Admitted(index=index):
                self._admit(event, asked, place, process)
            case Preempted(index=index, cause=cause, by=by):
                whose = self._places.get(by) if by is not None else None
                asked.preempted.append((self._at, event, whose))
                self._line(place, index).spans.append((time, "preempted", cause))
                about = {"index": index, "cause": cause, "by": whose, "forgotten": event.forgotten, "kept": event.kept}
                self._note("preempted", event.time, event.request, about)
            case Finished(index=index, reason=reason):
                line = self._line(place, index)
                line.finish, line.finished_s = reason, time
                line.spans.append((time, "finished", reason))
                self._note("finished", event.time, event.request, {"index": index, "reason": reason})
            case Ended():
                asked.ended_s, asked.account = time, event.account
                self._names.pop(asked.name, None)

    def _admit(self, event: Admitted, asked: Asked, place: int, process: Rerun | None) -> None:
        line = self._line(place, event.index)
        if asked.admitted_s is None:
            asked.admitted_s = event.time + self._offset
            asked.cached, asked.miss = event.cached, event.miss
            if process is not None and isinstance(process.cache, WatchedCache):
                for tenant, count in process.cache.again.get((event.request, event.index), {}).items():
                    if tenant is None:
                        asked.lost += count
                    else:
                        asked.again[tenant] += count
        line.spans.append((event.time + self._offset, "running", ""))
        miss = None if event.miss is None else event.miss.cause
        about = {"index": event.index, "cached": event.cached, "miss": miss}
        self._note("admitted", event.time, event.request, about)

    def _note(self, what: str, time: float, number: int | None, about: Mapping[str, object]) -> None:
        if self._at in self._window:
            place = None if number is None else self._places.get(number)
            self.course.detail.happened.append(Happened(self._at, time + self._offset, place, what, dict(about)))
