"""Ends: how sequences and requests come to their end, whatever it is: a stop, a length, a cancel, a failure.

It guarantees that every request ends exactly once, with its last sequence, and that blocks, places and shares are given
back then; what a failed sequence computed is in nobody's cache. It does not know why something ends.
"""

from __future__ import annotations

from openwork.core.event import Ended, Event, Finished
from openwork.core.output import Failure, FinishReason
from openwork.core.sequence import Sequence
from openwork.kv.cache import KVCache
from openwork.schedule.roster import Roster
from openwork.schedule.searches import Searches
from openwork.schedule.shares import Shares


class Ends:
    """``finish`` a sequence, or all of a search; a request is ``over`` with its last."""

    def __init__(self, cache: KVCache, roster: Roster, shares: Shares, searches: Searches) -> None:
        self._cache = cache
        self._roster = roster
        self._shares = shares
        self._searches = searches

    def finish(
        self,
        sequence: Sequence,
        reason: FinishReason,
        now: float,
        stop_id: int | None = None,
        message: str = "",
        failure: Failure = "",
    ) -> list[Event]:
        entry = self._roster.entries[sequence.request_id]
        if entry.group is not None:
            return self.finish_search(sequence.request_id, reason, now, message, failure)
        entry.blocks.update(sequence.blocks)
        entry.note_stall(sequence, now)
        if reason == "error":
            self._cache.forget(sequence, is_poisoned=False)
        self._cache.free(sequence, keep=reason != "error")
        self._roster.bury(sequence)
        how = (reason, now, stop_id, message, failure)
        events: list[Event] = [Finished(sequence.request_id, sequence.index, *how)]
        # A sequence that was to fork and never did takes its unborn siblings with it.
        if sequence.strategy.may_fork:
            unborn = range(1, sequence.request.params.num_drawn)
            events += [Finished(sequence.request_id, i, *how) for i in unborn]
        return events + self.over(sequence.request_id, now)

    def finish_search(
        self, request_id: int, reason: FinishReason, now: float, message: str = "", failure: Failure = ""
    ) -> list[Event]:
        events = self._searches.end(request_id, reason, now, message, failure)
        return events + self.over(request_id, now)

    def over(self, request_id: int, now: float) -> list[Event]:
        """A request ends with its last sequence."""
        entry = self._roster.entries[request_id]
        if entry.living:
            return []
        del self._roster.entries[request_id]
        self._shares.leave(entry.request.terms.tenant)
        account = entry.tally.close(now - entry.arrived)
        return [Ended(request_id, len(entry.blocks), now, entry.prompt_logprobs, account, entry.report)]
