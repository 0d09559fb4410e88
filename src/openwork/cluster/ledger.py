"""Ledger: every open request, where it is, and what has to be said to the process that computes. A calculation.

It guarantees that each request taken in ends exactly once, whatever becomes of that process; that while a suspect is on
trial nobody else is in the process with it; and that messages about a request are in order, since it is submitted again
only after it has been given back or the process has died. It does not know processes, sockets or clocks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from openwork.cluster.entry import Entry
from openwork.cluster.suspects import Cause, Suspects
from openwork.cluster.wire import Cancel, Down, Planned, Submit, Turned, Withdraw
from openwork.core.event import Event, Preempted
from openwork.core.output import Failure, FinishReason
from openwork.core.request import Request

_QUARANTINED = "the engine's process ended each time when this request was computed, so it is not tried again"


@dataclass(slots=True)
class Counts:
    """What happened since the engine was first started, over all lives of its process."""

    steps: int = 0
    rows: int = 0
    preemptions: int = 0
    prefix_queries: int = 0
    prefix_hits: int = 0


class Ledger:
    """``accepted`` hears of a request when its reader may be told that it was taken in."""

    def __init__(self, accepted: Callable[[int], None]) -> None:
        self.entries: dict[int, Entry] = {}
        self.counts = Counts()
        self._accepted = accepted
        self._suspects = Suspects()
        self._under_way: dict[int, list[int]] = {}  # steps that have not come back -> their requests
        self._first_step = 0  # steps of earlier lives
        self._next_id = 0

    @property
    def num_held(self) -> int:
        return sum(entry.place == "held" for entry in self.entries.values())

    @property
    def is_trying(self) -> bool:
        """Whether somebody runs alone, and others wait for that."""
        return self._suspects.on_trial is not None

    @property
    def is_expecting(self) -> bool:
        """Whether the process has something to do, or to answer."""
        return any(entry.place != "held" for entry in self.entries.values())

    # -- what the readers want -----------------------------------------------------------------------------------

    def add(self, request: Request, put: Callable[[list[Event]], None], name: str | None = None) -> Entry:
        """Take a request in. It is handed over when ``messages`` says so."""
        entry = Entry(self._next_id, request, put, str(self._next_id) if name is None else name)
        self._next_id += 1
        self.entries[entry.id] = entry
        return entry

    def cancel(self, entry: Entry, index: int | None, reason: FinishReason, now: float) -> list[Down]:
        """End a request or one sequence of it: here, when no process has it, and otherwise by what is to be said."""
        if entry.has_ended:
            return []
        entry.cancel(index, reason)
        if entry.place == "held":
            entry.settle_cancels(now)
            self._drop_if_ended(entry)
            return []
        return [Cancel(entry.id, index, reason)]

    def messages(self) -> list[Down]:
        """What is to be said now, so that everybody is where the suspicions want them. Assumes that it is said."""
        on_trial = self._suspects.on_trial
        said: list[Down] = []
        for entry in self.entries.values():
            if on_trial is not None and entry.id != on_trial and entry.place == "inside":
                entry.place = "leaving"
                said.append(Withdraw(entry.id))
        if on_trial is None:
            may_go = [entry for entry in self.entries.values() if entry.place == "held"]
        elif any(entry.place != "held" for entry in self.entries.values()):
            may_go = []
        else:
            may_go = [self.entries[on_trial]]
        for entry in sorted(may_go, key=lambda entry: entry.id):
            entry.place = "sent"
            said.append(Submit(entry.id, entry.request, entry.so_far(), entry.name))
        return said

    # -- what the process says -----------------------------------------------------------------------------------

    def accept(self, id: int) -> None:
        entry = self.entries.get(id)
        if entry is not None:
            entry.place = "inside"
            self._accepted(id)

    def reject(self, id: int, message: str, now: float) -> bool:
        """A request is not taken in. Whether it never was: then its reader is to be told why, and else it has ended."""
        entry = self.entries.get(id)
        if entry is None:
            return False
        entry.place = "held"
        if entry.has_begun:
            entry.fail("step", message, now)
        self._drop(entry)
        return not entry.has_begun

    def give_back(self, id: int, now: float) -> None:
        """A withdrawn request is not in the process any more."""
        entry = self.entries.get(id)
        if entry is not None:
            entry.lose(now)
            self._drop_if_ended(entry)

    def plan(self, planned: Planned) -> None:
        self._under_way[planned.step] = planned.requests
        self.counts.rows += planned.num_rows

    def turn(self, turned: Turned) -> bool:
        """Pass on what happened. Whether a step came back."""
        events: dict[int, list[Event]] = {}
        for each in turned.events:
            events.setdefault(each.event.request, []).append(each.event)
            if type(each.event) is Preempted:
                self.counts.preemptions += 1
        for id, own in events.items():
            if (entry := self.entries.get(id)) is not None:
                self._take(entry, own)
        landed = [step for step in self._under_way if step < turned.num_landed]
        for step in landed:
            del self._under_way[step]
        self.counts.steps += len(landed)
        return bool(landed)

    def _take(self, entry: Entry, events: list[Event]) -> None:
        first = entry.first
        has_tokens = entry.take(events, self._first_step)
        if first is None and entry.first is not None:
            self.counts.prefix_queries += len(entry.request.prompt)
            self.counts.prefix_hits += min(entry.first.cached, len(entry.request.prompt))
        if has_tokens and self._suspects.is_anyone:
            self._suspects.gave(entry.id)
        self._drop_if_ended(entry)

    # -- the process is gone -------------------------------------------------------------------------------------

    def _blamed(self, cause: Cause) -> set[int]:
        """Who may be to blame: whoever was in a step under way, and unless it was killed, whoever it was to look at."""
        named = {id for requests in self._under_way.values() for id in requests}
        if cause != "outside":
            named |= {entry.id for entry in self.entries.values() if entry.place == "sent"}
        return named & self.entries.keys()

    def die(self, cause: Cause, now: float) -> bool:
        """The process died. Whether anybody was suspected."""
        suspects = self._blamed(cause)
        guilty = self._suspects.died(cause, suspects)
        self._under_way.clear()
        self._first_step = self.counts.steps
        for entry in list(self.entries.values()):
            entry.lose(now)
            if entry.id == guilty:
                self._end(entry, "quarantined", _QUARANTINED, now)
            self._drop_if_ended(entry)
        return bool(suspects)

    def end_all(self, failure: Failure, message: str, now: float) -> None:
        """Nobody will compute anything any more."""
        for entry in list(self.entries.values()):
            self._end(entry, failure, message, now)

    def _end(self, entry: Entry, failure: Failure, message: str, now: float) -> None:
        if not entry.has_begun:
            self._accepted(entry.id)
        entry.fail(failure, message, now)
        self._drop_if_ended(entry)

    def _drop_if_ended(self, entry: Entry) -> None:
        if entry.has_ended:
            self._drop(entry)

    def _drop(self, entry: Entry) -> None:
        self.entries.pop(entry.id, None)
        self._suspects.forget(entry.id)
