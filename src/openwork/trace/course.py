"""Course: what happened in a recording, as facts: every step, every request, every token's step, where the blocks were.

Times are seconds after the first process began; a place is a position in the list of steps, or of requests. Who is
charged and who evicted whom is known where the schedule was replayed (gather). It judges nothing: the timeline draws
it, the report reads it.
"""

from __future__ import annotations

from array import array
from collections import Counter
from dataclasses import dataclass, field

from openwork.core.event import Account, Miss, Preempted
from openwork.core.gauges import Gauges
from openwork.trace.cost import Work
from openwork.trace.entry import Began
from openwork.trace.watch import Move


@dataclass(slots=True)
class Line:
    """One sequence of a request. ``tokens`` and ``worked`` are places in Course.steps; ``spans`` its states in time."""

    tokens: array[int] = field(default_factory=lambda: array("I"))
    worked: array[int] = field(default_factory=lambda: array("I"))
    spans: list[tuple[float, str, str]] = field(default_factory=list)  # (since, state, cause), until the next
    computed: int = 0  # positions that were computed for it at some time, or found
    before: int = 0  # tokens that it had when it was met under way, which are in no step here
    finish: str = ""
    finished_s: float | None = None


@dataclass(slots=True)
class Asked:
    """One request, over all the processes that served it."""

    name: str
    tenant: str
    arrived_s: float
    prompt: int  # tokens
    most: int  # tokens that it may generate
    is_search: bool
    process: int
    number: int
    error: str = ""  # why it was refused
    joined_s: float | None = None  # it was met under way then: what became of it before is not in the recording
    admitted_s: float | None = None
    ended_s: float | None = None
    cached: int = 0
    miss: Miss | None = None
    account: Account | None = None
    again: Counter[str] = field(default_factory=Counter)  # tenant -> tokens that were evicted for it and came again
    lost: int = 0  # tokens that the cache of an ended process had
    # (place of the step, what happened, place of the request that it made way for)
    preempted: list[tuple[int, Preempted, int | None]] = field(default_factory=list)
    lines: dict[int, Line] = field(default_factory=dict)


@dataclass(slots=True)
class Stepped:
    """One step. ``chunks`` are the works of more than one row, ``again`` counts rows that had been computed before."""

    process: int
    number: int
    planned_s: float
    rows: int
    works: int
    work: Work
    landed_s: float | None = None
    elapsed_s: float = 0.0
    again: int = 0
    copies: int = 0
    order: str = ""
    bound: str = ""
    budget: int = 0
    chunks: list[tuple[int, int]] = field(default_factory=list)  # (place of the request, rows)
    alone: Counter[str] = field(default_factory=Counter)  # tenant -> works of one row
    left_out: list[tuple[int, int, str]] = field(default_factory=list)  # (place of the request, index, cause)
    moves: Counter[str] = field(default_factory=Counter)
    # (place of the request, index, position of the first guess, guesses, how many came true; None before it landed)
    guesses: list[tuple[int, int, int, int, int | None]] = field(default_factory=list)
    failed: str = ""

    @property
    def chunk_rows(self) -> int:
        return sum(rows for _, rows in self.chunks)

    @property
    def rejected(self) -> int:
        """Guesses whose rows were computed for nothing."""
        return sum(count - came for _, _, _, count, came in self.guesses if came is not None)


@dataclass(slots=True)
class Sample:
    """Where the blocks were when a step had been planned.

    ``entries`` are those of the block tables in that step, ``distinct`` the blocks they name, so that the rest is what
    sharing saves; ``runs`` counts the stretches of neighbouring blocks that the tables are made of. ``moves`` is how
    many of the window's moves had been made.
    """

    step: int
    total: Gauges
    by_tenant: dict[str, Gauges]
    entries: int
    distinct: int
    runs: int
    moves: int


@dataclass(slots=True)
class Happened:
    """An event of the window, and the place of the step it belongs to."""

    step: int
    time_s: float
    request: int | None
    what: str
    about: dict[str, object]


@dataclass(slots=True)
class Detail:
    """What is kept of the steps of a window alone."""

    works: dict[int, list[tuple[int, int, int, int, str, int]]] = field(default_factory=dict)
    moves: list[tuple[int, Move]] = field(default_factory=list)
    happened: list[Happened] = field(default_factory=list)
    start: list[tuple[str, str]] = field(default_factory=list)  # state and owner of each block when it began


@dataclass(slots=True)
class Course:
    """The facts, in order. ``replayed`` counts the steps that were replayed and equal."""

    processes: list[tuple[float, Began]] = field(default_factory=list)  # (when, what)
    steps: list[Stepped] = field(default_factory=list)
    requests: list[Asked] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    evicted: Counter[tuple[str, str]] = field(default_factory=Counter)  # (for whose sake, whose) -> blocks
    differences: list[str] = field(default_factory=list)  # why replays ended, in words
    replayed: int = 0
    detail: Detail = field(default_factory=Detail)

    @property
    def is_replayed(self) -> bool:
        """Whether all of it was."""
        return not self.differences and self.replayed == len(self.steps)
