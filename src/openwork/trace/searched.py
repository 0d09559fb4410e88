"""Searched: all that a search read and answered, gathered from the lines of a recording.

    Planned + Ran   ->   rows        each with its line of tokens, what was asked of it, what came of it, and its hash
                         answers     what its strategy was given, in order, with what had been spent by then
                         report      what it concluded, if it did

A search that went on in another engine process began anew there, so it has several lives, each with all of these. It
guarantees that rows are in the order in which they were computed, and it computes nothing itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from openwork.core.event import Ended
from openwork.core.output import Logprob, SearchReport
from openwork.core.step import Candidates, Expand, Outcome, Work
from openwork.decode.strategy import Answer, Spent
from openwork.trace.entry import Began, Entry, Planned, Ran, Submitted

Line = tuple[int, ...]  # tokens behind the prompt


@dataclass(frozen=True, slots=True)
class Row:
    """A row behind ``line`` that was asked for candidates, or else scored the token that follows it."""

    line: Line
    row_hash: int | None  # None: it was not recorded
    found: Candidates | Logprob
    expand: Expand | None = None  # what was asked; None: the log-probability of ``target``
    target: int = 0
    top: int = 0


@dataclass(frozen=True, slots=True)
class Answered:
    """A leaf that was answered: what its rows came to, the last of which is ``row``, and what was spent by then."""

    line: Line
    expand: Expand
    answer: Answer
    spent: Spent
    row: int  # its place among the rows of this life


@dataclass(slots=True)
class Life:
    """What a search did in one engine process."""

    number: int
    arrived: float
    rows: list[Row] = field(default_factory=list)
    answers: list[Answered] = field(default_factory=list)
    report: SearchReport | None = None
    is_going_on: bool = True  # what comes back later was computed, and is no answer
    num_computed: int = 0  # positions
    scores: dict[int, list[float]] = field(default_factory=dict)  # by sequence, of leaves that have not answered

    def land(self, work: Work, line: Line, behind: int, outcome: Outcome, time: float) -> None:
        """What came of one work: ``line`` is what its sequence had, ``behind`` the length of the prompt."""
        self.rows += rows_of(work, line, behind, outcome)
        if not self.is_going_on or outcome.failure is not None:
            return
        scored = self.scores.setdefault(work.sequence, [])
        scored += [score.logprob for score in outcome.scores]
        if work.expand is not None and outcome.candidates is not None:
            answer = Answer(tuple(self.scores.pop(work.sequence)), outcome.candidates)
            spent = Spent(self.num_computed, time - self.arrived)
            self.answers.append(Answered(line, work.expand, answer, spent, len(self.rows) - 1))


def rows_of(work: Work, line: Line, behind: int, outcome: Outcome) -> Iterator[Row]:
    """The rows of a work that a search read: ``line`` is what its sequence had behind a prompt of so many tokens."""
    if outcome.failure is not None:
        return
    hashes = iter(outcome.row_hashes)
    if work.score is not None:
        first = work.start + work.score.first + 1 - behind  # tokens behind the prompt up to the first such row
        for place, (target, score) in enumerate(zip(work.score.targets, outcome.scores, strict=True), first):
            yield Row(line[:place], next(hashes, None), score, None, target, work.score.top)
    if work.expand is not None and outcome.candidates is not None:
        yield Row(line, next(hashes, None), outcome.candidates, work.expand)


def lives_of(entries: Iterable[Entry], id: str) -> list[Life]:
    """The lives of the search that is called so, in order."""
    lives: list[Life] = []
    behind, number = 0, None  # None: it was not heard of in the process that is being read
    flights: dict[int, list[tuple[int, Work, Line]]] = {}
    for entry in entries:
        match entry:
            case Began():
                number, flights = None, {}
            case Submitted(name=name) if name == id and not entry.error:
                number, behind = entry.number, len(entry.request.prompt)
                lives.append(Life(number, entry.time))
            case Planned(step=step) if number is not None:
                own = [place for place, (whose, _) in enumerate(entry.owners) if whose == number]
                lives[-1].num_computed += sum(step.works[place].count for place in own)
                read = [place for place in own if entry.lines and entry.lines[place] is not None]
                flights[step.number] = [(place, step.works[place], entry.lines[place] or ()) for place in read]
            case Ran(result=result) if number is not None:
                for place, work, line in flights.pop(result.step, ()):
                    lives[-1].land(work, line, behind, result.outcomes[place], entry.time)
        for event in getattr(entry, "events", ()):
            if isinstance(event, Ended) and event.request == number and lives[-1].is_going_on:
                lives[-1].report, lives[-1].is_going_on = event.search, False
    return lives
