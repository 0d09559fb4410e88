"""Journey: what became of one request, gathered from a recording: its story, and its part in every step.

Over all engine processes that had it. It is what the documents about a request are made of; it makes none itself.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from openwork.core.event import Event
from openwork.core.request import Request
from openwork.core.step import Copy, Outcome, Step, Work
from openwork.trace.entry import Began, Cancelled, Entry, Failed, Planned, Ran, Submitted, Waited
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
    stories = Stories()
    began: Began | None = None
    journey: Journey | None = None
    number: int | None = None  # of the request, in this process
    steps: dict[int, Part] = {}
    for entry in entries:
        stories.tell(entry)
        match entry:
            case Began():
                began, number = entry, None
                steps.clear()
            case Submitted() if entry.name == id and not entry.error:
                number = entry.number
                journey = journey or Journey(stories.by_id[id], began)
                journey.story = stories.by_id[id]
            case Planned() | Ran() | Failed() | Waited() | Cancelled() if journey is not None and began is not None:
                offset = began.unix_s - began.time
                step = entry.result.step if isinstance(entry, Ran) else None
                if isinstance(entry, Planned):
                    step = entry.step.number
                    if (part := _part(entry, number, began.run, offset)) is not None:
                        journey.parts.append(part)
                        steps[step] = part
                elif isinstance(entry, Ran) and step in steps:
                    steps[step].elapsed_s, steps[step].outcomes = entry.result.elapsed_s, entry.result.outcomes
                elif isinstance(entry, Failed) and entry.step in steps:
                    steps[entry.step].failed = "the step failed"
                journey.events += [(e.time + offset, step, e) for e in entry.events if e.request == number]
            case _:
                pass
    return None if journey is None or journey.story.request is None else journey


def _part(entry: Planned, number: int | None, run: int, offset: float) -> Part | None:
    owned = zip(entry.owners, entry.step.works, strict=False)
    works = [(index, work) for (request, index), work in owned if request == number]
    if not works:
        return None
    own = {block for _, work in works for block in work.blocks}
    copies = tuple(copy for copy in entry.step.copies if copy.target in own)
    return Part(run, entry.step, entry.time + offset, works, copies)
