"""The face for tenants: refusals leave nothing behind, pins and gauges reach the cache, accounts say what was found."""

import pytest

from openwork import RequestError, SamplingParams
from openwork.core.errors import Overloaded
from openwork.core.event import Ended, Finished, Token
from openwork.core.request import Limits, Request
from openwork.core.settings import AdmissionSettings, CacheSettings, ScheduleSettings
from openwork.core.terms import Tenant, Tenants, Terms
from openwork.engine.loop import Loop
from openwork.engine.service import Engine
from openwork.kv.cache import KVCache
from openwork.schedule.scheduler import Scheduler
from openwork.testing.echo import EchoRunner, VirtualClock, successor

LIMITS = Limits(50, 160)


def engine(tenants=None, fails=lambda step: False, poisons=lambda step, work: False, step_tokens=32, **bounds):
    cache, clock = CacheSettings(10), VirtualClock()
    tenants = tenants or Tenants()
    scheduler = Scheduler(ScheduleSettings(step_tokens, 4), KVCache(cache, tenants), AdmissionSettings(**bounds))
    runner = EchoRunner(cache, successor(50), clock, fails=fails, poisons=poisons, is_late=True)
    return Engine(Loop(scheduler, runner, clock)), clock


def request(prompt, max_tokens=5, **terms):
    return Request(tuple(prompt), SamplingParams(max_tokens=max_tokens, ignore_eos=True), LIMITS, Terms(**terms))


def answer(it, *args, **terms):
    stream = it.submit(request(*args, **terms))
    it.drain()
    events = stream.take()
    return [e.choice.token for e in events if isinstance(e, Token)], events[-1].account


def test_a_refused_request_leaves_no_stream():
    it, _ = engine(Tenants({"ann": Tenant(max_blocks=2)}), max_waiting=1)
    with pytest.raises(RequestError):
        it.submit(request(range(40), tenant="ann"))
    assert it.is_idle and it.num_requests == 0
    it.submit(request(range(20)))
    with pytest.raises(Overloaded):
        it.submit(request(range(20)))
    assert it.num_requests == 1
    it.drain()
    assert it.num_requests == 0


def test_an_answer_is_the_same_from_the_cache_and_says_so():
    it, _ = engine()
    cold, first = answer(it, range(40))
    warm, second = answer(it, range(40))
    assert cold == warm and (first.cached, second.cached) == (0, 39)


def test_tenants_see_nothing_of_each_other_unless_they_share_a_namespace():
    it, _ = engine()
    answer(it, range(40), tenant="ann")
    assert answer(it, range(40), tenant="bob")[1].cached == 0
    answer(it, range(40), tenant="ann", namespace="team")
    assert answer(it, range(40), tenant="bob", namespace="team")[1].cached == 39


def test_a_pin_lasts_for_its_seconds():
    it, clock = engine()
    answer(it, range(40))
    assert it.pin(Terms(), range(40), seconds=5.0) == 32
    assert it.gauges()[0].pinned == 2
    answer(it, range(10, 50), 60)
    assert answer(it, range(40))[1].cached >= 32
    clock.advance(5.0)
    answer(it, range(10, 14))
    assert it.gauges()[0].pinned == 0


def test_a_new_list_of_tenants_takes_effect():
    tenants = Tenants()
    it, _ = engine(tenants)
    tenants.replace({"ann": Tenant(max_blocks=1)})
    with pytest.raises(RequestError, match="blocks"):
        it.submit(request(range(40), tenant="ann"))


def test_failed_steps_leave_nothing_in_the_cache_and_neighbours_whole():
    bad = set()
    it, _ = engine(fails=lambda step: step.number in bad)
    wanted, _ = answer(it, range(40))
    other, _ = engine(fails=lambda step: step.number in bad)
    bad |= {1, 4}
    for _ in range(3):
        stream = other.submit(request(range(40)))
        other.drain()
        assert isinstance(stream.take()[-1], Ended)
    bad.clear()
    assert answer(other, range(40))[0] == wanted


def test_what_a_failed_request_had_computed_is_taken_out():
    it, _ = engine(fails=lambda step: step.number == 1)
    stream = it.submit(request(range(40)))
    it.drain()
    assert [e.reason for e in stream.take() if isinstance(e, Finished)] == ["error"]
    assert answer(it, range(40))[1].cached == 0


@pytest.mark.parametrize("length", [12, 40])
def test_bad_numbers_that_are_noticed_late_stay_in_nobodys_cache(length):
    it, _ = engine(poisons=lambda step, work: step.number == 0, step_tokens=8)
    stream = it.submit(request(range(length)))
    it.drain()
    assert [e.reason for e in stream.take() if isinstance(e, Finished)] == ["error"]
    tokens, account = answer(it, range(length))
    assert len(tokens) == 5 and account.cached == 0


def test_bad_numbers_take_what_they_read_out_of_the_cache():
    bad = []
    it, _ = engine(poisons=lambda step, work: step.number in bad)
    answer(it, range(40))
    bad.append(len(it._loop._runner.steps))
    answer(it, range(40))
    assert answer(it, range(40))[1].cached == 0, "who knows since when they were bad"


def test_what_was_being_computed_when_its_request_left_is_not_trusted():
    it, _ = engine(fails=lambda step: step.number == 0)
    stream = it.submit(request(range(12)))
    it.turn()
    it.cancel(stream)
    tokens, account = answer(it, range(12))
    assert len(tokens) == 5 and account.cached == 0


@pytest.mark.parametrize("params", [{}, {"n": 3}, {"n": 2, "prompt_logprobs": 0}], ids=str)
def test_a_request_goes_on_in_another_engine(params):
    asked = Request(tuple(range(20)), SamplingParams(max_tokens=20, ignore_eos=True, **params), LIMITS)
    whole, _ = engine()
    stream = whole.submit(asked)
    whole.drain()
    events = stream.take()
    wanted = {(e.index, e.position): e.choice.token for e in events if isinstance(e, Token)}
    broken, _ = engine()
    stream = broken.submit(asked)
    for _ in range(9):
        broken.turn()
    given = [e for e in stream.take() if isinstance(e, Token)]
    lines = {i: [e.choice.token for e in given if e.index == i] for i in range(asked.params.n)}
    if asked.params.n > 1:
        del lines[0]  # this one had been ended
    other, _ = engine(max_waiting=1)
    other.submit(request(range(30)))
    stream = other.submit(asked, lines)
    other.drain()
    events_now = stream.take()
    got = {(e.index, e.position): e.choice.token for e in events_now if isinstance(e, Token)}
    assert got == {(i, p): token for (i, p), token in wanted.items() if i in lines and p >= 20 + len(lines[i])}
    assert events_now[-1].prompt_logprobs == events[-1].prompt_logprobs
    assert {e.index for e in events_now if isinstance(e, Finished)} == set(lines)


@pytest.mark.parametrize("wrong", [{1: (3,)}, {0: (3,) * 5}, {0: (50,)}], ids=str)
def test_what_cannot_go_on_is_refused(wrong):
    it, _ = engine()
    with pytest.raises(RequestError) as caught:
        it.submit(request(range(20)), wrong)
    assert caught.value.param == "so_far" and it.num_requests == 0
