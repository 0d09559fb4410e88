"""Events: what happened to a request, in order, each with its time on the engine's clock.

Arrived -> Admitted -> (Token | Preempted -> Admitted)* -> Finished per sequence -> Ended, exactly once
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from openwork.core.output import NO_GUESSES, Failure, FinishReason, Guessed, Logprob, SearchReport
from openwork.core.step import Choice


@dataclass(frozen=True, slots=True)
class Miss:
    """Why the prefix cache had no more than the first ``token`` tokens of a sequence.

    cold       nothing that follows them was ever cached here, or nobody remembers
    diverged   what is cached goes on with another token
    partial    what is cached ends there, within a block
    evicted    it was cached until ``time``, when a block was needed for tenant ``by``
    namespace  it is cached, under another namespace

    ``by``, ``time`` and the last cause tell on others: they are for operators, never for an answer.
    """

    cause: Literal["cold", "diverged", "partial", "evicted", "namespace"]
    token: int
    by: str | None = None
    time: float | None = None


@dataclass(frozen=True, slots=True)
class Account:
    """What became of a request's time, in seconds on the engine's clock, and how much work it was."""

    queued_s: float = 0.0  # from its arrival until it first held blocks
    cached: int = 0  # prompt tokens that were found in the prefix cache
    rows: int = 0  # positions computed for it, those after a preemption counted again
    chunks: int = 0  # steps its prompt took, recomputation included
    preemptions: int = 0
    stalls: tuple[tuple[str, float], ...] = ()  # (cause, seconds) it was left out of steps, over all its sequences
    miss: Miss | None = None  # why no more of its prompt was cached; None when all that could be was
    guessed: Guessed = NO_GUESSES


@dataclass(frozen=True, slots=True)
class Arrived:
    request: int
    time: float


@dataclass(frozen=True, slots=True)
class Admitted:
    """A sequence holds blocks and is in a step, for the first time or again after a preemption."""

    request: int
    index: int
    step: int
    time: float
    cached: int = 0  # positions it found in the prefix cache
    miss: Miss | None = None


@dataclass(frozen=True, slots=True)
class Preempted:
    """A sequence gave all its blocks back; ``forgotten`` positions are computed again unless the cache keeps them."""

    request: int
    index: int
    forgotten: int
    time: float
    tenant: str = ""  # whose it is
    cause: str = "blocks"  # what ran out: "blocks", "tenant" (its own share of them) or "places"
    by: int | None = None  # the request that it gave way to
    kept: int = 0  # of the forgotten, positions that are in the prefix cache at this moment


@dataclass(frozen=True, slots=True)
class Prefilled:
    """``computed`` of the ``known`` tokens of a sequence's prompt are in the cache."""

    request: int
    index: int
    computed: int
    known: int
    time: float


@dataclass(frozen=True, slots=True)
class Token:
    request: int
    index: int
    position: int
    choice: Choice
    time: float


@dataclass(frozen=True, slots=True)
class Finished:
    """One sequence is complete. ``stop_id`` is the token that ended it, ``failure`` and ``message`` say what failed."""

    request: int
    index: int
    reason: FinishReason
    time: float
    stop_id: int | None = None
    message: str = ""
    failure: Failure = ""


@dataclass(frozen=True, slots=True)
class Ended:
    """The last sequence of a request finished; nothing more will be said about it.

    ``search`` is there when it was a search that came to an end by itself.
    """

    request: int
    kv_blocks: int  # blocks its sequences held when each finished, shared ones counted once
    time: float
    prompt_logprobs: tuple[Logprob | None, ...] | None = None
    account: Account = Account()
    search: SearchReport | None = None


Event = Arrived | Admitted | Preempted | Prefilled | Token | Finished | Ended
