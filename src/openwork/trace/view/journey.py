"""Journey: what became of one request, gathered from a recording: its story, and its part in every step.

Over all engine processes that had it. It is what the documents about a request are made of; it makes none itself.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from openwork.core.event import Event
from openwork.core.request import Request
from openwork.core.step import Copy, Outcome, Step, Work
from openwork.trace.entry import Began, Cancelled, Entry, Failed, Pictured, Planned, Ran, Submitted, Waited
from openwork.trace.story import Stories, Story


@dataclass(slots=True)
class Part:
    """What one request had in one step."""

    run: int  # of the engine process
    step: Step
    time: float  # when it was planned, in seconds of the calendar
    works: list[tuple[int, Work]]  # (index of the sequence, what it had)
    copies: tuple[Copy, ...]  # into its own blocks
    elapsed_s: float | None = None
    failed: str = ""
    outcomes: tuple[Outcome, ...] = ()  # of all works of the step, in its order


@dataclass(slots=True)
class Journey:
    """A request's story, and its part in each step. Times are seconds of the calendar."""

    story: Story
    began: Began | None = None  # of the process that had it first
    parts: list[Part] = field(default_factory=list)
    events: list[tuple[float, int | None, Event]] = field(default_factory=list)  # (time, step, event)

    @property
    def request(self) -> Request:
        assert self.story.request is not None
        return self.story.request

    @property
    def indices(self) -> list[int]:
        return sorted(self.story.lines) or [0]


def gather(entries: Iterable[Entry], id: str) -> Journey | None:
    """Everything that concerns one request; None when it is not there, or its prompt is gone."""
    gathering = Gathering(id)
    for entry in entries:
        gathering.take(entry)
    return gathering.journey


class Gathering:
    """``take`` the lines of a recording, as they come; ``journey`` is what they say of one request so far."""

    def __init__(self, id: str) -> None:
        self._id = id
        self._stories = Stories()
        self._began: Began | None = None
        self._journey: Journey | None = None
        self._number: int | None = None  # of the request, in this process
        self._steps: dict[int, Part] = {}

    @property
    def journey(self) -> Journey | None:
        """None when the request is not there, or its prompt is gone."""
        return None if self._journey is None or self._journey.story.request is None else self._journey

    def take(self, entry: Entry) -> None:
        self._stories.tell(entry)
        match entry:
            case Began():
                self._began, self._number = entry, None
                self._steps.clear()
            case Submitted() if entry.name == self._id and not entry.error:
                story = self._stories.by_id[self._id]
                self._number = entry.number
                self._journey = self._journey or Journey(story, self._began)
                self._journey.story = story
            case Pictured() if self._journey is None:  # it came before the recording begins
                self._join(entry)
            case Planned() | Ran() | Failed() | Waited() | Cancelled() if self._journey is not None:
                self._happen(entry, self._journey)
            case _:
                pass

    def _join(self, pictured: Pictured) -> None:
        for known in pictured.known or ():
            if known.name == self._id:
                self._number = known.number
                self._journey = Journey(self._stories.join(known), self._began)

    def _happen(self, entry: Planned | Ran | Failed | Waited | Cancelled, journey: Journey) -> None:
        if self._began is None:
            return
        offset, number = self._began.unix_s - self._began.time, self._number
        step = entry.result.step if isinstance(entry, Ran) else None
        if isinstance(entry, Planned):
            step = entry.step.number
            if (part := _part(entry, number, self._began.run, offset)) is not None:
                journey.parts.append(part)
                self._steps[step] = part
        elif isinstance(entry, Ran) and step in self._steps:
            self._steps[step].elapsed_s = entry.result.elapsed_s
            self._steps[step].outcomes = entry.result.outcomes
        elif isinstance(entry, Failed) and entry.step in self._steps:
            self._steps[entry.step].failed = "the step failed"
        journey.events += [(e.time + offset, step, e) for e in entry.events if e.request == number]


def _part(entry: Planned, number: int | None, run: int, offset: float) -> Part | None:
    owned = zip(entry.owners, entry.step.works, strict=False)
    works = [(index, work) for (request, index), work in owned if request == number]
    if not works:
        return None
    own = {block for _, work in works for block in work.blocks}
    copies = tuple(copy for copy in entry.step.copies if copy.target in own)
    return Part(run, entry.step, entry.time + offset, works, copies)
