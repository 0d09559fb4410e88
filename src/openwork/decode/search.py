"""Which strategy a searching request gets."""

from __future__ import annotations

from openwork.core.request import Request
from openwork.decode.beam import BeamSearch
from openwork.decode.best_first import BestFirstSearch
from openwork.decode.choose import Choosing
from openwork.decode.strategy import SearchStrategy


def strategy_of(request: Request) -> SearchStrategy:
    """A new one, that knows nothing yet."""
    search = request.search
    assert search is not None
    if search.choose is not None:
        return Choosing(request)
    return BeamSearch(request) if search.beam is not None else BestFirstSearch(request)
