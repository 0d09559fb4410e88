"""Entry: one open request as its reader knows it, from life to life of the engine's process.

It keeps what was given out, so that another process can go on from there, and passes events on so that the reader sees
one life: no second Arrived or Admitted, no progress that goes back, a time account of the whole. Steps and times stay
in order because steps of earlier lives are added and the system's steady clock is the same for all processes. It does
not know processes, nor who else is there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Literal

from openwork.core.event import Account, Admitted, Arrived, Ended, Event, Finished, Preempted, Prefilled, Token
from openwork.core.output import Failure, FinishReason
from openwork.core.request import Request

# held here; handed over; acknowledged; to be given back. In the last three it is in the process that computes.
Place = Literal["held", "sent", "inside", "leaving"]


@dataclass(slots=True)
class _Line:
    """One sequence."""

    tokens: list[int] = field(default_factory=list)
    computed: int = 0  # of the prompt, as last told
    is_admitted: bool = False
    is_finished: bool = False
    cancelled: FinishReason | None = None  # asked for, and not yet seen to happen


@dataclass(slots=True)
class _Past:
    """What an account should say of earlier lives."""

    first: Admitted | None = None
    arrived_s: float = 0.0
    preemptions: int = 0
    died_s: float | None = None  # since when it waits for another life
    paused_s: float = 0.0
    lives: int = 1


class Entry:
    """``put`` hears every event that is passed on; ``events`` of one frame come together."""

    def __init__(self, id: int, request: Request, put: Callable[[list[Event]], None], name: str = "") -> None:
        self.id = id
        self.name = name  # in a recording, whichever process has it
        self.request = request
        self.place: Place = "held"
        self.has_begun = False  # some process has accepted it
        self.has_ended = False
        self._put = put
        self._lines = [_Line() for _ in range(request.params.num_drawn)]
        self._past = _Past()

    @property
    def first(self) -> Admitted | None:
        """When it first got into a step, and what it found in the prefix cache."""
        return self._past.first

    # -- what the reader sees ------------------------------------------------------------------------------------

    def take(self, events: list[Event], first_step: int) -> bool:
        """Pass on what one turn brought; ``first_step`` is the number of steps of earlier lives.

        Returns whether tokens were among it.
        """
        passed: list[Event] = []
        has_tokens = False
        for event in events:
            if type(event) is Token:  # the usual one
                has_tokens = True
                line = self._lines[event.index]
                line.tokens.append(event.choice.token)
                line.is_admitted = True
                passed.append(event)
            elif (seen := self._seen(event, first_step)) is not None:
                passed.append(seen)
        if passed:
            self._put(passed)
        return has_tokens

    def _seen(self, event: Event, first_step: int) -> Event | None:
        """The event as the reader is to see it, if at all."""
        past = self._past
        match event:
            case Admitted() | Preempted() | Prefilled() if event.index >= len(self._lines):
                # A search computes more lines than it gives out, and what becomes of them is its own business.
                past.preemptions += isinstance(event, Preempted)
                return None
            case Arrived():
                if self.has_begun:
                    return None
                self.has_begun, past.arrived_s = True, event.time
            case Admitted():
                return self._admitted(event, first_step)
            case Preempted():
                self._lines[event.index].is_admitted = False
                past.preemptions += 1
            case Prefilled():
                if event.computed <= self._lines[event.index].computed:
                    return None
                self._lines[event.index].computed = event.computed
            case Finished():
                self._lines[event.index].is_finished = True
            case Ended():
                self.has_ended = True
                return event if past.lives == 1 else replace(event, account=self._account(event.account))
        return event

    def _admitted(self, event: Admitted, first_step: int) -> Admitted | None:
        past, line = self._past, self._lines[event.index]
        if past.died_s is not None:
            past.paused_s += event.time - past.died_s
            past.died_s = None
        if line.is_admitted:
            return None
        line.is_admitted = True
        event = replace(event, step=event.step + first_step)
        past.first = past.first or event
        return event

    def _account(self, account: Account) -> Account:
        """Of all lives. Rows and chunks are those of the last: what a process that is gone had done is not known."""
        past = self._past
        stalls = (*account.stalls, ("restart", past.paused_s)) if past.paused_s else account.stalls
        account = replace(account, preemptions=past.preemptions, stalls=stalls)
        if past.first is None:
            return account
        queued_s = past.first.time - past.arrived_s
        return replace(account, queued_s=queued_s, cached=past.first.cached, miss=past.first.miss)

    # -- ends that no process tells of ---------------------------------------------------------------------------

    def cancel(self, index: int | None, reason: FinishReason) -> None:
        """Remember that the reader wants no more of it, or of one sequence."""
        for line in self._chosen(index):
            line.cancelled = line.cancelled or reason

    def settle_cancels(self, now: float) -> None:
        """No process has this request: what was cancelled ends here; in silence, if nobody was told that it began."""
        if not self.has_begun:
            self.has_ended = all(line.cancelled is not None for line in self._lines)
            return
        events: list[Event] = []
        for index, line in enumerate(self._lines):
            if line.cancelled is not None and not line.is_finished:
                line.is_finished = True
                events.append(Finished(self.id, index, line.cancelled, now))
        self._close(events, now)

    def fail(self, failure: Failure, message: str, now: float) -> None:
        """End whatever has not ended, with an error."""
        events: list[Event] = []
        if not self.has_begun:
            self.has_begun, self._past.arrived_s = True, now
            events.append(Arrived(self.id, now))
        for index, line in enumerate(self._lines):
            if not line.is_finished:
                line.is_finished = True
                events.append(Finished(self.id, index, "error", now, message=message, failure=failure))
        self._close(events, now)

    def _close(self, events: list[Event], now: float) -> None:
        if all(line.is_finished for line in self._lines) and not self.has_ended:
            self.has_ended = True
            scores = None if self.request.params.prompt_logprobs is None else (None,) * len(self.request.prompt)
            account = self._account(Account(queued_s=now - self._past.arrived_s))
            events.append(Ended(self.id, 0, now, scores, account))
        if events:
            self._put(events)

    def _chosen(self, index: int | None) -> list[_Line]:
        """The sequences that a cancel ends. A search is one thing, and where a request has not split there is only
        the first, which takes all along."""
        living = [(i, line) for i, line in enumerate(self._lines) if not line.is_finished]
        has_split = any(line.tokens for line in self._lines)
        if index is None or self.request.search is not None or (index == 0 and not has_split):
            return [line for _, line in living]
        return [line for i, line in living if i == index and has_split]

    # -- from life to life ---------------------------------------------------------------------------------------

    def so_far(self) -> dict[int, list[int]] | None:
        """What another process needs to go on: None when it has to begin."""
        if not self.has_begun:
            return None
        return {i: line.tokens for i, line in enumerate(self._lines) if line.tokens and not line.is_finished}

    def lose(self, now: float) -> None:
        """The process that had it is gone, or has given it back."""
        if self.place == "held":
            return
        self.place = "held"
        self._past.lives += 1
        if self._past.first is not None and self._past.died_s is None:
            self._past.died_s = now
        self.settle_cancels(now)
