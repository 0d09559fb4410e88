"""A request that searches, and what it comes to, cross to another process and back as they are."""

import msgspec
import pytest
from searching import remembered, search_alone

from openwork import Beam, BestFirst, Penalty, SamplingParams, Search
from openwork.cluster import wire
from openwork.core.event import Ended
from openwork.core.request import Limits, Request
from openwork.core.search import Choose
from openwork.testing.echo import hashed

SEARCHES = [
    (Search(beam=Beam(width=3, early_stopping="never")), {"max_tokens": 4}),
    (Search(choose=Choose(options=((1, 2), (3,))), trace=9), {}),
    (Search(best_first=BestFirst(), penalty=Penalty(length="gnmt"), trace=9), {"min_tokens": 1, "max_tokens": 3}),
]


@pytest.mark.parametrize(("search", "params"), SEARCHES)
def test_a_search_crosses_whole(search, params):
    request = Request((1, 2), SamplingParams(**params), Limits(30, 100, frozenset({0})), search=search)
    down = msgspec.msgpack.decode(msgspec.msgpack.encode(wire.Submit(1, request)), type=wire.Down)
    assert down.request == request
    report, _ = search_alone(request, remembered(hashed(30)))
    turned = wire.Turned(1, 0, 0, wire.happened([Ended(0, 1, 0.0, search=report)]))
    up = msgspec.msgpack.decode(msgspec.msgpack.encode(turned), type=wire.Up)
    assert up.events[0].event.search == report
