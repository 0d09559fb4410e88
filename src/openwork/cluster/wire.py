"""Wire: what the process that serves and the one that computes say to one another. A fixed schema of tagged records.

Each direction has its own messages, and a message its number, which is never used for another. Records of core cross as
they are, and their constructors check them once more on arrival. Nothing is ever called, imported or evaluated because
of what was read. How messages become bytes is known to frames.py, when they are said to whoever says them.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec

from openwork.core import errors
from openwork.core.errors import EngineError, OpenworkError, Overloaded, RequestError
from openwork.core.event import Admitted, Arrived, Ended, Event, Finished, Preempted, Prefilled, Token
from openwork.core.gauges import Gauges
from openwork.core.output import FinishReason
from openwork.core.request import Request
from openwork.core.settings import AdmissionSettings, LoadSettings, RecordSettings, ScheduleSettings
from openwork.core.terms import Tenant, Terms
from openwork.engine.face import Facts, Recorded


class Message(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    """One thing to say. Which one it is stands first, as a number."""


# -- down: to the process that computes ------------------------------------------------------------------------------


class Start(Message, tag=1):
    """What to load and how to serve it; the first message, and sent once."""

    model: str | None
    load: LoadSettings
    schedule: ScheduleSettings
    admission: AdmissionSettings
    tenants: dict[str, Tenant]
    cache_dir: str | None = None  # where the prefix cache is saved
    restores: bool = False  # and whether it is restored from there now
    record: RecordSettings | None = None


class Submit(Message, tag=2):
    """``so_far`` is None for a request that never began; else what of its unfinished sequences was given out.

    ``name`` is what it is called in a recording, whichever process has it.
    """

    id: int
    request: Request
    so_far: dict[int, list[int]] | None = None
    name: str | None = None


class Cancel(Message, tag=3):
    id: int
    index: int | None
    reason: FinishReason


class Withdraw(Message, tag=4):
    """Forget a request without another event of it; it will be submitted again."""

    id: int


class Pin(Message, tag=5):
    ask: int
    terms: Terms
    tokens: list[int]
    seconds: float


class Replace(Message, tag=6):
    """A new list of tenants."""

    tenants: dict[str, Tenant]


class Stop(Message, tag=7):
    """Save the prefix cache where it is to be saved, and end."""


Down = Start | Submit | Cancel | Withdraw | Pin | Replace | Stop


# -- up: to the process that serves ----------------------------------------------------------------------------------


class Loading(Message, tag=20):
    stage: str
    done: int
    total: int


class Ready(Message, tag=21):
    """``weights`` changes when the files of the model do, ``kv_bytes`` is what the cache may take."""

    facts: Facts
    weights: str
    kv_bytes: int
    restored: int = 0  # tokens of the prefix cache that were brought back


class Trouble(Message, tag=22):
    """An error of ours, to be raised again on the other side."""

    kind: str
    message: str
    hint: str = ""
    param: str = ""
    is_own: bool = False


class Refused(Message, tag=23):
    """The model could not be loaded."""

    trouble: Trouble


class Accepted(Message, tag=24):
    id: int


class Rejected(Message, tag=25):
    id: int
    trouble: Trouble


class Withdrawn(Message, tag=26):
    id: int


class Pinned(Message, tag=27):
    ask: int
    num_tokens: int


class Planned(Message, tag=28):
    """Sent before the runner gets the step, so that a death has its suspects."""

    step: int
    num_rows: int
    requests: list[int]


class Report(Message, tag=29):
    """Where the blocks of the cache are, and how recording goes."""

    gauges: Gauges
    by_tenant: dict[str, Gauges]
    recorded: Recorded | None = None


class OnArrived(Message, tag=40):
    event: Arrived


class OnAdmitted(Message, tag=41):
    event: Admitted


class OnPreempted(Message, tag=42):
    event: Preempted


class OnPrefilled(Message, tag=43):
    event: Prefilled


class OnToken(Message, tag=44):
    event: Token


class OnFinished(Message, tag=45):
    event: Finished


class OnEnded(Message, tag=46):
    event: Ended


Happened = OnArrived | OnAdmitted | OnPreempted | OnPrefilled | OnToken | OnFinished | OnEnded

_AS_HAPPENED: dict[type, Any] = {
    Arrived: OnArrived,
    Admitted: OnAdmitted,
    Preempted: OnPreempted,
    Prefilled: OnPrefilled,
    Token: OnToken,
    Finished: OnFinished,
    Ended: OnEnded,
}


class Turned(Message, tag=30):
    """All that happened in one turn, whole: a request is never seen between two of its events of one moment."""

    num_landed: int  # steps that have come back, or failed, since this process began
    num_running: int
    num_waiting: int
    events: list[Happened]


Up = Loading | Ready | Refused | Accepted | Rejected | Withdrawn | Pinned | Planned | Report | Turned


def happened(events: list[Event]) -> list[Happened]:
    return [_AS_HAPPENED[type(event)](_told(event)) for event in events]


def _told(event: Event) -> Event:
    """Stamps are for the recording, which is written on this side."""
    if isinstance(event, Token) and event.choice.stamp is not None:
        return replace(event, choice=replace(event.choice, stamp=None))
    return event


# -- errors ----------------------------------------------------------------------------------------------------------

_KINDS: dict[str, type[OpenworkError]] = {
    each.__name__: each
    for each in (
        errors.ModelError,
        errors.UnsupportedModel,
        errors.RequestError,
        errors.PromptTooLong,
        errors.MemoryTooSmall,
        errors.BackendError,
        errors.TraceError,
    )
}


def as_trouble(error: BaseException) -> Trouble:
    """An error in words; of one that is not ours, its type and text."""
    if not isinstance(error, OpenworkError):
        return Trouble("", f"{type(error).__name__}: {error}"[:2000])
    param, is_own = getattr(error, "param", ""), getattr(error, "is_own", False)
    return Trouble(type(error).__name__, error.message, error.hint, param, is_own)


def as_error(trouble: Trouble) -> OpenworkError:
    """The same error again; EngineError for what is not one of ours."""
    if trouble.kind == Overloaded.__name__:
        return Overloaded(trouble.message, trouble.hint, is_own=trouble.is_own)
    error = _KINDS.get(trouble.kind, EngineError)(trouble.message, trouble.hint)
    if isinstance(error, RequestError):
        error.param = trouble.param
    return error
