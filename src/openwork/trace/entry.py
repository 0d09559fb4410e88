"""Entry: one line of a flight recording. Together, in order, the lines are all that a scheduler was ever told.

    Began -> Restored? -> (Submitted | Cancelled | Pinned | Replaced | Planned | Waited | Decided | Ran | Failed
                           | Pictured)*

One Began is one engine process; the next begins anew.

It guarantees that whoever gives the same calls to the same scheduler gets the same steps: each line holds the time that
the engine's clock showed, and Planned and Ran hold what went to the runner and what came back. Times are seconds from
an arbitrary beginning of that process; Began ties it to the calendar. What a line looks like on disk is the log's
business; a line that was read from a log that keeps no prompts has stand-ins for tokens, equal where those were equal.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from openwork.core.event import Admitted, Arrived, Ended, Event, Finished, Preempted, Prefilled, Token
from openwork.core.output import FinishReason
from openwork.core.request import Request
from openwork.core.settings import AdmissionSettings, CacheSettings, ScheduleSettings
from openwork.core.step import Result, Step
from openwork.core.terms import Tenant, Terms
from openwork.decode.strategy import Generation
from openwork.kv.saved import Saved


@dataclass(frozen=True, slots=True)
class Began:
    """An engine process began. ``unix_s`` is the calendar's time when its clock showed ``time``."""

    time: float
    unix_s: float
    model: str
    contract_id: str
    dtype: str
    kv_dtype: str
    threads: int
    vocab_size: int
    has_tokens: bool  # prompts and outputs are the real ids; else stand-ins
    cache: CacheSettings
    schedule: ScheduleSettings
    admission: AdmissionSettings
    tenants: Mapping[str, Tenant] = field(default_factory=dict)
    version: str = ""
    run: int = 0  # counts the engine processes that were recorded in one place
    weights: int | None = None  # the model's fingerprint (run/capture.py)
    step_bytes: int = 0  # of weights, read in a step of one row; 0: not known
    position_bytes: int = 0  # of keys and values at one position


@dataclass(frozen=True, slots=True)
class Submitted:
    """A request came. ``name`` is what callers know it by, ``number`` what this process calls it."""

    time: float
    number: int
    name: str
    request: Request
    so_far: Mapping[int, tuple[int, ...]] | None = None  # tokens given out before this process began, by sequence index
    error: str = ""  # why it was not accepted, if it was not


@dataclass(frozen=True, slots=True)
class Cancelled:
    time: float
    number: int
    index: int | None
    reason: FinishReason
    events: tuple[Event, ...] = ()


@dataclass(frozen=True, slots=True)
class Pinned:
    time: float
    terms: Terms
    tokens: tuple[int, ...]
    until: float


@dataclass(frozen=True, slots=True)
class Restored:
    """The prefix cache was filled with what an earlier process had kept, before anything else happened."""

    time: float
    records: tuple[Saved, ...]


@dataclass(frozen=True, slots=True)
class Replaced:
    """A new list of tenants took effect."""

    time: float
    tenants: Mapping[str, Tenant]


@dataclass(frozen=True, slots=True)
class Planned:
    """A step, before it runs. Its works hold the whole block table of each sequence that is in it.

    ``lines``: of each work whose rows a search reads, the tokens behind the prompt that its sequence has; else None.
    """

    time: float
    step: Step
    events: tuple[Event, ...] = ()  # what planning it did to requests: admissions, preemptions
    owners: tuple[tuple[int, int], ...] = ()  # of each work: the request's number, and the index of the sequence in it
    lines: tuple[tuple[int, ...] | None, ...] = ()  # () where no search reads any


@dataclass(frozen=True, slots=True)
class Waited:
    """The scheduler was asked for a step and had none before a result comes back. Who is overdue is decided then too,
    and lines of a search may have given way: without this line a later step could come out otherwise.

    ``for_guess``: there may have been one, but what can be guessed behind that result was worth waiting for.
    """

    time: float
    events: tuple[Event, ...] = ()
    for_guess: bool = False


@dataclass(frozen=True, slots=True)
class Decided:
    """What a search does next, and the lines it may keep in the order of their worth, lowest first: (node, rank).

    It stands before the result that it decided by, in logs without tokens, and only of searches that compare tokens
    (core/search.py): all others are decided again.
    """

    time: float
    number: int
    generation: Generation
    worths: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Ran:
    """What came of a step, each chosen token with the hash of its row of logits."""

    time: float
    result: Result
    events: tuple[Event, ...] = ()


@dataclass(frozen=True, slots=True)
class Failed:
    time: float
    step: int
    message: str
    events: tuple[Event, ...] = ()


@dataclass(frozen=True, slots=True)
class Pictured:
    """The whole scheduler as it is here, so that a replay can begin which has not what was before.

    ``known`` are the requests that are under way, where lines before this are missing; None: nothing is.
    """

    time: float
    picture: Any = field(compare=False)  # trace.coding.thaw.Picture, which stands above this file
    known: tuple[Any, ...] | None = field(default=None, compare=False)  # of trace.coding.thaw.Known


Entry = (
    Began | Restored | Submitted | Cancelled | Pinned | Replaced | Planned | Waited | Decided | Ran | Failed | Pictured
)

# Whatever of these is written field by field: a log says which field has which number (coding/plain.py).
WRITTEN: tuple[type, ...] = (
    Began,
    Request,
    Step,
    Result,
    Arrived,
    Admitted,
    Preempted,
    Prefilled,
    Token,
    Finished,
    Ended,
    Terms,
    Tenant,
)
