"""Events: what happened to a request, in order, each with its time on the engine's clock.

Arrived -> Admitted -> (Token | Preempted -> Admitted)* -> Finished per sequence -> Ended, exactly once
"""

from __future__ import annotations

from dataclasses import dataclass

from openwork.core.output import FinishReason, Logprob
from openwork.core.step import Choice


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


@dataclass(frozen=True, slots=True)
class Preempted:
    """A sequence gave all its blocks back; ``forgotten`` positions will be computed again."""

    request: int
    index: int
    forgotten: int
    time: float


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
    """One sequence is complete. ``stop_id`` is the token that ended it, ``message`` says what failed."""

    request: int
    index: int
    reason: FinishReason
    time: float
    stop_id: int | None = None
    message: str = ""


@dataclass(frozen=True, slots=True)
class Ended:
    """The last sequence of a request finished; nothing more will be said about it."""

    request: int
    kv_blocks: int  # blocks its sequences held when each finished, shared ones counted once
    time: float
    prompt_logprobs: tuple[Logprob | None, ...] | None = None


Event = Arrived | Admitted | Preempted | Prefilled | Token | Finished | Ended
