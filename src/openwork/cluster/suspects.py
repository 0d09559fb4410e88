"""Suspects: which request is to blame when the engine's process dies: each is let run alone. A calculation.

Suspected is whoever was in a step that had not come back, or had been handed over and not been acknowledged; for a kill
from outside, the former only.

    the process died by itself, or hung     every suspect is tried: it runs alone until it has come through
    it was killed from outside              nobody is, unless it was there twice with nothing gained in between: running
                                            out of memory looks like a kill, and may be one request's doing

    alone in its second death, or later                       quarantined
    alone in three kills, with nothing gained in between      quarantined

Come through has who was given tokens in two turns since the last death: at most two steps were under way in it. Whoever
has is no suspect any more, so a request can only be blamed for deaths that it made no headway between. It follows that
an innocent request is quarantined only if the engine dies for another reason at the very moment it runs alone, again
and again; and that one which kills the engine wherever it gets to is alone with it soon and quarantined.

It does not know processes or tokens.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

Cause = Literal["itself", "hang", "outside"]

DEATHS = 2  # of the process by itself, the last one alone
KILLS = 3  # from outside, each of them alone
KILLS_TO_TRY = 2
TURNS = 2


@dataclass(slots=True)
class _Record:
    """What speaks against one request since it last came through."""

    deaths: int = 0
    kills: int = 0
    kills_alone: int = 0
    turns: int = 0  # that gave it tokens since the last of them


class Suspects:
    """Records of suspects by request, and the line of those that are to be tried."""

    def __init__(self) -> None:
        self._records: dict[int, _Record] = {}
        self._line: list[int] = []

    @property
    def on_trial(self) -> int | None:
        """The request that is to run alone now; None when everybody may run."""
        return self._line[0] if self._line else None

    @property
    def is_anyone(self) -> bool:
        """Whether anybody is suspected, so that gains count."""
        return bool(self._records)

    def died(self, cause: Cause, suspects: Collection[int]) -> int | None:
        """The process died with these under way. Who is quarantined for it, if anybody."""
        for record in self._records.values():
            record.turns = 0
        is_alone = len(suspects) == 1
        guilty = None
        tried = []
        for request in sorted(suspects, reverse=True):  # the newest first: the others have come through many a step
            record = self._records.setdefault(request, _Record())
            record.turns = 0
            if cause == "outside":
                record.kills += 1
                record.kills_alone += is_alone
                is_guilty, is_tried = record.kills_alone >= KILLS, record.kills >= KILLS_TO_TRY
            else:
                record.deaths += 1
                is_guilty, is_tried = is_alone and record.deaths >= DEATHS, True
            if is_guilty:
                guilty = request
            elif is_tried and request not in self._line:
                tried.append(request)
        self._line = tried + self._line
        if guilty is not None:
            self.forget(guilty)
        return guilty

    def gave(self, request: int) -> None:
        """A turn gave tokens to a request."""
        record = self._records.get(request)
        if record is None:
            return
        record.turns += 1
        if record.turns >= TURNS:
            self.forget(request)

    def forget(self, request: int) -> None:
        """A request came through, or has ended."""
        self._records.pop(request, None)
        if request in self._line:
            self._line.remove(request)
