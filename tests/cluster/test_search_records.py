"""A request that searches, and what it comes to, cross to another process and back as they are."""

from dataclasses import replace

import msgspec
import pytest
from remotely import follow, remote, request, run
from searching import remembered, search_alone

from openwork import LLM, Beam, BestFirst, Constraint, Penalty, Repetition, SamplingParams, Search
from openwork.cluster import wire
from openwork.core.budget import Budget
from openwork.core.event import Ended, Finished, Token
from openwork.core.request import Limits, Request
from openwork.core.search import Choose
from openwork.testing.echo import hashed

LETTERS = Constraint.regex("[a-z]{2,3}")
SEARCHES = [
    (Search(beam=Beam(width=2, budget=Budget(finished=3))), {"max_tokens": 4}),
    (Search(best_first=BestFirst(budget=Budget(nodes=40))), {"constraint": LETTERS, "max_tokens": 4}),
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


def test_what_the_best_of_many_and_loops_need_crosses_too():
    loop = Repetition(max_pattern_size=4, min_count=3)
    params = SamplingParams(n=2, best_of=3, repetition_detection=loop)
    sent = Request((1, 2), params, Limits(30, 100, frozenset({0})))
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(wire.Submit(1, sent)), type=wire.Down).request == sent


def test_another_process_finds_the_same_and_draws_as_many():
    async def ask():
        async with remote() as engine:
            plain = request(engine, 5, 6, ignore_eos=False, temperature=1.0, max_tokens=8, constraint=LETTERS, n=2)
            search = replace(plain, search=Search(best_first=BestFirst(budget=Budget(nodes=300))))
            best = request(engine, 5, 6, temperature=1.0, best_of=3)
            return [(await follow(await engine.submit(each))) for each in (search, best)]

    searched, best = run(ask)
    params = SamplingParams(max_tokens=8, constraint=LETTERS, n=2)
    with LLM() as llm:
        alone = llm.search([5, 6], BestFirst(budget=Budget(nodes=300)), params).search
    assert searched[-1].search == alone and alone.found
    assert {event.index for event in best if isinstance(event, Finished)} == {0, 1, 2}
    assert all(event.choice.logprob is not None for event in best if isinstance(event, Token))


def test_a_search_is_cancelled_whole_by_any_of_its_sequences():
    async def ask():
        async with remote() as engine:
            plain = request(engine, 5, 6, temperature=1.0, ignore_eos=False, max_tokens=400, n=3)
            stream = await engine.submit(replace(plain, search=Search(beam=Beam(width=4))))
            events = await stream.take()
            stream.cancel(2)
            return events + await follow(stream)

    events = run(ask)
    ends = [event for event in events if isinstance(event, Finished)]
    assert [(event.index, event.reason) for event in ends] == [(i, "cancelled") for i in range(3)]
