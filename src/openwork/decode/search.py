"""Which strategy a request gets."""

from __future__ import annotations

from collections.abc import Sequence

from openwork.core.request import Request
from openwork.decode.beam import BeamSearch
from openwork.decode.best_first import BestFirstSearch
from openwork.decode.choose import Choosing
from openwork.decode.sampling import Sampling
from openwork.decode.strategy import SearchStrategy, Strategy


def strategy_of(request: Request) -> SearchStrategy:
    """A new one, that knows nothing yet."""
    search = request.search
    assert search is not None
    if search.choose is not None:
        return Choosing(request)
    return BeamSearch(request) if search.beam is not None else BestFirstSearch(request)


class Strategies:
    """New ones. Whoever tells a scheduler what to decide hands in others (trace/replay/told.py)."""

    def drawing(self, fan: int) -> Strategy:
        """Of a sequence that becomes ``fan`` ones at its first token."""
        return Sampling(fan)

    def searching(self, number: int, request: Request) -> SearchStrategy:
        return strategy_of(request)

    def going_on(
        self, number: int, request: Request, search: SearchStrategy, given: Sequence[int], num_agreed: int
    ) -> SearchStrategy:
        """Of a search that is under way: its reader has these tokens, and it has agreed on so many."""
        return search
