"""Story: what became of each request of a recording, gathered from its lines.

It guarantees that a request which went on in another engine process is one request, each of its tokens there once, and
that what is not in the recording is said to be missing and never made up. It takes lines from anywhere: a recording, or
a list in memory. It does not know how lines are stored.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from openwork.core.event import Account, Admitted, Ended, Event, Finished, Preempted, Token
from openwork.core.output import FinishReason, SearchReport
from openwork.core.request import Request
from openwork.core.stamp import Stamp
from openwork.core.step import Choice, Result, Work
from openwork.trace.coding.mirror import Asked, Mirror
from openwork.trace.coding.thaw import Known
from openwork.trace.entry import Began, Cancelled, Entry, Failed, Pictured, Planned, Ran, Submitted, Waited
from openwork.trace.searched import rows_of


@dataclass(slots=True)
class Line:
    """One sequence that was given out. The lists are as long as one another."""

    tokens: list[int] = field(default_factory=list)
    row_hashes: list[int | None] = field(default_factory=list)  # None: it was not recorded
    stamps: list[Stamp | None] = field(default_factory=list)  # of some rows (core/stamp.py)
    times: list[float | None] = field(default_factory=list)  # on the clock of the process that ran it
    steps: list[int | None] = field(default_factory=list)  # numbers of the steps that chose them, in that process
    runs: list[int] = field(default_factory=list)  # the process
    num_missing: int = 0  # tokens that are not in the recording: those listed may have gaps between them
    finish_reason: FinishReason | None = None
    stop_id: int | None = None
    message: str = ""

    def add(self, choice: Choice, time: float | None, step: int | None, run: int) -> None:
        self.tokens.append(choice.token)
        self.row_hashes.append(choice.row_hash)
        self.stamps.append(choice.stamp)
        self.times.append(time)
        self.steps.append(step)
        self.runs.append(run)

    def cut(self, length: int) -> None:
        for each in (self.tokens, self.row_hashes, self.stamps, self.times, self.steps, self.runs):
            del each[length:]


@dataclass(slots=True)
class Story:
    """One request. ``request`` is None when the line that brought it is gone: then ``is_whole`` is False."""

    id: str
    number: int
    run: int  # of the process that had it last
    request: Request | None = None
    prompt_len: int = 0
    tenant: str = ""
    has_tokens: bool = True  # its tokens are the real ids
    is_whole: bool = True  # nothing of it is missing from the recording
    is_known: bool = True  # its prompt and all its tokens are there, if not what became of each
    error: str = ""  # why it was not accepted
    lives: int = 1  # processes that had it
    arrived_unix_s: float | None = None
    queued_s: float | None = None  # from its arrival, as all times here
    first_token_s: float | None = None
    took_s: float | None = None  # None: its end is not in the recording
    cached: int = 0
    preemptions: int = 0
    account: Account | None = None
    search: SearchReport | None = None
    lines: dict[int, Line] = field(default_factory=dict)

    def line(self, index: int) -> Line:
        return self.lines.setdefault(index, Line())

    @property
    def is_over(self) -> bool:
        return self.took_s is not None or bool(self.error)

    def as_record(self) -> dict[str, Any]:
        """The summary as plain data, for JSON."""
        lines = [self.lines[index] for index in sorted(self.lines)]
        return {
            "id": self.id,
            "run": self.run,
            "number": self.number,
            "tenant": self.tenant,
            "prompt_tokens": self.prompt_len,
            "cached_tokens": self.cached,
            "output_tokens": [len(line.tokens) for line in lines],
            "finish_reasons": [line.finish_reason for line in lines],
            "is_search": self.request is not None and self.request.search is not None,
            "arrived_unix_s": self.arrived_unix_s,
            "queued_s": self.queued_s,
            "first_token_s": self.first_token_s,
            "took_s": self.took_s,
            "preemptions": self.preemptions,
            "processes": self.lives,
            "has_tokens": self.has_tokens,
            "is_whole": self.is_whole,
            "error": self.error,
        }


class Stories:
    """Feed it lines in order; ``by_id`` holds the requests in the order in which they came."""

    def __init__(self) -> None:
        self.by_id: dict[str, Story] = {}
        self._living: dict[int, Story] = {}  # by number, in the process that runs
        self._began: Began | None = None
        self._run = 0
        self._step: int | None = None
        self._is_sure = True
        self._flights: dict[int, list[tuple[int, Work, tuple[int, ...], int]]] = {}  # works whose rows a search reads
        self._read: dict[int, dict[tuple[int, ...], int]] = {}  # hashes of rows, by request and what stands before it

    def tell(self, entry: Entry) -> None:
        match entry:
            case Began():
                self._began, self._run, self._is_sure = entry, entry.run, True
                self._living.clear()
                self._flights, self._read = {}, {}
            case Submitted():
                self._submit(entry)
            case Ran():
                self._step = entry.result.step
                self._look(entry.result)
                self._happen(entry.events)
            case Planned() | Waited() | Cancelled() | Failed():
                self._step = None
                if isinstance(entry, Planned) and entry.lines:
                    works = enumerate(zip(entry.step.works, entry.lines, entry.owners, strict=True))
                    read = [(at, work, line, owner[0]) for at, (work, line, owner) in works if line is not None]
                    self._flights[entry.step.number] = read
                self._happen(entry.events)
            case Pictured():
                for known in entry.known or ():
                    self._recall(known)

    def lose(self) -> None:
        """Lines are missing from here on: of whatever is under way, and of what comes before ``rejoin``."""
        self._is_sure = False
        for story in self._living.values():
            story.is_whole = story.is_known = False

    def rejoin(self, mirror: Mirror) -> None:
        """Lines are missing before this; these requests are under way behind the gap."""
        self.lose()
        self._is_sure = True
        self._living = {number: self._goes_on(asked) for number, asked in mirror.asked.items()}

    def _goes_on(self, asked: Asked) -> Story:
        story = self.by_id.get(asked.name) or self._begun(asked.name, asked.number, asked.prompt_len, asked.request)
        story.is_whole = story.is_known = False
        for index, line in (asked.said if asked.is_search else asked.lines).items():
            known = story.line(index)
            known.num_missing = line.length - asked.prompt_len - len(known.tokens)
        return story

    def _begun(self, name: str, number: int, prompt_len: int, request: Request) -> Story:
        """One whose beginning is not in the recording."""
        story = self.by_id[name] = Story(name, number, self._run)
        story.prompt_len, story.tenant = prompt_len, request.terms.tenant
        story.has_tokens = self._began is None or self._began.has_tokens
        return story

    def join(self, known: Known) -> Story:
        """A request that was under way at the picture with which reading began."""
        story = self._living[known.number] = self._begun(
            known.name, known.number, len(known.request.prompt), known.request
        )
        story.is_whole = False
        self._recall(known)
        return story

    def _recall(self, known: Known) -> None:
        """What a picture knows of a request that is under way: its prompt, and its tokens so far."""
        story = self._living.get(known.number)
        if story is None:
            return
        story.request = story.request or known.request
        for index, tokens in known.answers.items():
            if not tokens:
                continue
            line = story.line(index)
            if line.tokens != tokens[: len(line.tokens)]:
                return  # of a log that keeps no tokens: what was read before the gap has other stand-ins
            for token in tokens[len(line.tokens) :]:
                line.add(Choice(token), None, None, self._run)
            line.num_missing = 0
        story.is_known = known.has_all

    def _submit(self, entry: Submitted) -> None:
        story = self.by_id.get(entry.name)
        if story is None or story.error:
            story = self.by_id[entry.name] = Story(entry.name, entry.number, self._run, entry.request)
            story.arrived_unix_s = self._unix_s(entry.time)
        elif story.run != self._run:
            story.lives += 1
        story.number, story.run, story.request, story.error = entry.number, self._run, entry.request, entry.error
        story.prompt_len, story.tenant = len(entry.request.prompt), entry.request.terms.tenant
        story.has_tokens = self._began is None or self._began.has_tokens
        story.is_whole, story.is_known = story.is_whole and self._is_sure, story.is_known and self._is_sure
        self._take_up(story, entry)
        if not entry.error:
            self._living[entry.number] = story

    def _take_up(self, story: Story, entry: Submitted) -> None:
        """What its reader had been given when it came here: no less, and no more, goes before what follows."""
        story.took_s = None
        for index, line in story.lines.items():
            if line.finish_reason in (None, "cancelled", "error"):
                line.finish_reason, line.message = None, ""
                line.cut(len((entry.so_far or {}).get(index, ())))
        for index, tokens in (entry.so_far or {}).items():
            line = story.line(index)
            has_all = len(line.tokens) == len(tokens)
            story.is_whole, story.is_known = story.is_whole and has_all, story.is_known and has_all
            for token in tokens[len(line.tokens) :]:
                line.add(Choice(token), None, None, self._run)

    def _look(self, result: Result) -> None:
        """Keep the hashes of rows that searches read, for the tokens that they will give out."""
        for place, work, line, number in self._flights.pop(result.step, ()):
            if number in self._living:
                rows = rows_of(work, line, self._living[number].prompt_len, result.outcomes[place])
                read = self._read.setdefault(number, {})
                read.update((row.line, row.row_hash) for row in rows if row.row_hash is not None)

    def _happen(self, events: Iterable[Event]) -> None:
        for event in events:
            story = self._living.get(event.request)
            if story is None:
                continue
            match event:
                case Token(index=index, choice=choice, time=time):
                    if story.first_token_s is None:
                        story.first_token_s = self._since_arrival(story, time)
                    line = story.line(index)
                    if (read := self._read.get(event.request)) is not None:  # a search's, which is nobody's choice
                        choice = replace(choice, row_hash=read.get(tuple(line.tokens)))
                    line.add(choice, time, self._step, self._run)
                case Admitted(time=time):
                    if story.queued_s is None:
                        story.queued_s, story.cached = self._since_arrival(story, time), event.cached
                case Preempted():
                    story.preemptions += 1
                case Finished(index=index):
                    line = story.line(index)
                    line.finish_reason, line.stop_id, line.message = event.reason, event.stop_id, event.message
                case Ended(time=time):
                    story.took_s = self._since_arrival(story, time)
                    story.account, story.search = event.account, event.search
                    del self._living[event.request]
                    self._read.pop(event.request, None)

    def _unix_s(self, time: float) -> float | None:
        return None if self._began is None else self._began.unix_s + time - self._began.time

    def _since_arrival(self, story: Story, time: float) -> float | None:
        now = self._unix_s(time)
        return None if now is None or story.arrived_unix_s is None else now - story.arrived_unix_s


def gather(entries: Iterable[Entry]) -> dict[str, Story]:
    """All requests, by id, in the order in which they came."""
    stories = Stories()
    for entry in entries:
        stories.tell(entry)
    return stories.by_id
