"""Mirror: what writer and reader of a log both know of the engine, so that the log need only say what is new.

Both keep one and feed it alike: what came in, what was planned, what happened. So a row that goes on where the last one
of its sequence ended takes one byte. A key in the log is a picture of it (``picture``), from which a reader can begin
who has not what was before; ``Line.tokens`` then holds zeros where nobody knows. It does not know bytes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from openwork.core.event import Ended, Event, Finished, Token
from openwork.core.output import Logprob
from openwork.core.request import Request
from openwork.trace.coding.pseudonym import Place


@dataclass(slots=True, eq=False)
class Line:
    """One sequence. The writer leaves ``tokens`` empty and counts them."""

    number: int  # of its request
    index: int
    length: int  # tokens known, of prompt and after
    place: Place  # where it stands then
    tokens: list[int] = field(default_factory=list)
    sequence: int | None = None
    end: int = 0  # of the positions that were computed last
    blocks: tuple[int, ...] = ()
    words: bytearray = field(default_factory=bytearray)  # for the writer: of what stands behind the prompt


@dataclass(slots=True, eq=False)
class Asked:
    """A request that has not ended."""

    number: int
    name: str
    request: Request
    prompt_len: int
    place: Place  # where its prompt ends
    prompt: list[int] = field(default_factory=list)  # for the reader
    words: bytes = b""  # for the writer: of the prompt
    how: bytes = b""  # for the writer: what else it says of itself
    lines: dict[int, Line] = field(default_factory=dict)
    said: dict[int, Line] = field(default_factory=dict)  # of a search: what it gives out, which are no lines of its own
    scores: dict[int, Logprob] = field(default_factory=dict)  # for the reader: of the prompt
    is_search: bool = False
    is_whole: bool = True
    num_agreed: int = 0  # for the reader: tokens that a search decided on
    ends: frozenset[int] = field(init=False)  # tokens that may end a line
    stops: frozenset[int] = field(init=False)  # and its text; kept, for a request makes it anew each time

    def __post_init__(self) -> None:
        self.ends, self.stops = self.request.end_ids, self.request.stop_ids

    def line(self, index: int) -> Line:
        """One of its sequences; a new one begins behind the prompt, where others of them have been."""
        line = self.lines.get(index)
        if line is None:
            sibling = next(iter(self.lines.values()), None)
            line = self.lines[index] = self._begin(index)
            if sibling is not None:
                line.end, line.blocks = sibling.end, sibling.blocks
        return line

    def saying(self, index: int) -> Line:
        line = self.said.get(index)
        if line is None:
            line = self.said[index] = self._begin(index)
        return line

    def _begin(self, index: int) -> Line:
        return Line(self.number, index, self.prompt_len, self.place, list(self.prompt))


@dataclass(slots=True, eq=False)
class Slot:
    """One work of a step in flight, as far as its result needs it."""

    line: Line
    start: int
    sure: int  # rows that are no guesses
    num_draws: int
    num_drafts: int = 0
    score: tuple[int, int, int] | None = None  # targets, top, first
    drafts: tuple[int, ...] = ()
    among: tuple[int, ...] | None = None  # for the reader: the places that tokens asked for have in the log
    compares: bool = False  # for the writer: it is of a search that compares tokens

    @property
    def position(self) -> int:
        """Of the first token that is chosen."""
        return self.start + self.sure

    def land(self, num_chosen: int) -> None:
        """Guesses that were right have been computed."""
        if self.num_drafts and num_chosen:
            self.line.end = self.position + num_chosen - 1


class Mirror:
    """``order`` are the sequences of the last step, ``flights`` the steps whose results have not come."""

    def __init__(self) -> None:
        self.asked: dict[int, Asked] = {}
        self.by_sequence: dict[int, Line] = {}
        self.order: list[int] = []
        self.flights: dict[int, list[Slot]] = {}
        self.why: tuple[str, str] | None = None  # order and bound
        self.next_step = 0

    def submit(self, asked: Asked) -> None:
        self.asked[asked.number] = asked

    def happen(self, events: Iterable[Event]) -> None:
        """Events other than tokens, of which the one who writes or reads them tells ``grow``."""
        for event in events:
            if type(event) is Token:
                continue
            if type(event) is Finished:
                asked = self.asked.get(event.request)
                line = None if asked is None or asked.is_search else asked.lines.pop(event.index, None)
                if line is not None and line.sequence is not None:
                    self.by_sequence.pop(line.sequence, None)
            elif type(event) is Ended:
                asked = self.asked.pop(event.request, None)
                for line in () if asked is None else asked.lines.values():
                    if line.sequence is not None:
                        self.by_sequence.pop(line.sequence, None)

    # -- a picture of it -----------------------------------------------------------------------------------------

    def picture(self) -> list[Any]:
        """Everything but the requests themselves, as plain data: [order, why, next step, requests, flights]."""
        asked = [
            [
                each.number,
                each.name,
                each.prompt_len,
                each.is_search,
                [[line.index, line.length, line.sequence, line.end, list(line.blocks)] for line in each.lines.values()],
                [[line.index, line.length] for line in each.said.values()],
            ]
            for each in self.asked.values()
        ]
        flights = [
            [
                number,
                [
                    [s.line.number, s.line.index, s.line.length, s.start, s.sure, s.num_draws, s.num_drafts, s.score]
                    for s in slots
                ],
            ]
            for number, slots in self.flights.items()
        ]
        return [self.order, self.why, self.next_step, asked, flights]
