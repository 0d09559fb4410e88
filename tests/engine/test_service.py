"""The face of the engine: every request has its stream, and each stream ends once."""

import pytest

from openwork import EngineError, RequestError, SamplingParams
from openwork.core.event import Ended, Finished, Token
from openwork.core.request import Limits, Request
from openwork.core.settings import CacheSettings, ScheduleSettings
from openwork.engine.loop import Loop
from openwork.engine.service import Engine
from openwork.kv.cache import KVCache
from openwork.schedule.scheduler import Scheduler
from openwork.testing.echo import EchoRunner, VirtualClock, successor

LIMITS = Limits(50, 160)


class Notes:
    """A recorder that remembers the order of things."""

    def __init__(self, runner=None):
        self.said = []
        self.runner = runner

    def planned(self, time, step, sequences, events):
        self.said.append(("planned", step.number, len(self.runner.steps)))

    def ran(self, time, step, result, events):
        self.said.append(("ran", step.number, result.step))

    def __getattr__(self, what):
        return lambda *told: self.said.append((what, *told))


def engine(recorder=None, fails=lambda step: False):
    cache, clock = CacheSettings(10), VirtualClock()
    runner = EchoRunner(cache, successor(50), clock, fails=fails)
    if recorder is not None:
        recorder.runner = runner
    loop = Loop(Scheduler(ScheduleSettings(32, 8), KVCache(cache)), runner, clock, recorder)
    return Engine(loop), runner


def request(*prompt, **params):
    return Request(prompt or (1, 2, 3), SamplingParams(**{"max_tokens": 5, **params}), LIMITS)


def test_events_go_to_their_own_stream():
    it, _ = engine()
    one, two = it.submit(request(1)), it.submit(request(2, max_tokens=9))
    it.drain()
    for stream, count in ((one, 5), (two, 9)):
        events = stream.take()
        assert {event.request for event in events} == {stream.request_id}
        assert sum(isinstance(event, Token) for event in events) == count
        assert isinstance(events[-1], Ended) and stream.has_ended
        assert stream.take() == []


def test_cancelling_ends_a_stream_at_once_and_twice_is_once():
    it, _ = engine()
    stream = it.submit(request(max_tokens=100))
    for _ in range(3):
        it.turn()
    it.cancel(stream)
    it.cancel(stream)
    it.drain()
    events = stream.take()
    assert [event.reason for event in events if isinstance(event, Finished)] == ["cancelled"]
    assert sum(isinstance(event, Ended) for event in events) == 1


def test_one_line_of_several_can_be_ended():
    it, _ = engine()
    stream = it.submit(request(n=3, max_tokens=6))
    events = []
    while not any(isinstance(event, Token) for event in events):
        it.turn()
        events += stream.take()
    it.cancel(stream, 1, "stop")
    it.drain()
    events += stream.take()
    assert {e.index: e.reason for e in events if isinstance(e, Finished)} == {0: "length", 1: "stop", 2: "length"}


def test_a_failed_step_is_told_to_its_requests_and_the_engine_goes_on():
    it, _ = engine(fails=lambda step: step.number == 1)
    stream = it.submit(request())
    it.drain()
    finished = [event for event in stream.take() if isinstance(event, Finished)]
    assert finished[0].reason == "error" and "step 1" in finished[0].message
    later = it.submit(request())
    it.drain()
    assert [e.reason for e in later.take() if isinstance(e, Finished)] == ["length"]


def test_landing_leaves_nothing_in_flight_and_submits_nothing():
    it, runner = engine()
    stream = it.submit(request(max_tokens=9))
    it.turn()
    assert runner.in_flight == 1
    it.land()
    it.land()
    assert runner.in_flight == 0 and len(runner.steps) == 1
    it.drain()
    assert sum(isinstance(event, Token) for event in stream.take()) == 9


def test_closing_cancels_waits_and_refuses():
    it, runner = engine()
    stream = it.submit(request(max_tokens=100))
    it.turn()
    it.close()
    it.close()
    assert stream.has_ended and runner.in_flight == 0
    with pytest.raises(EngineError, match="closed"):
        it.submit(request())


def test_the_recorder_hears_of_a_step_before_the_runner_does():
    notes = Notes()
    it, _ = engine(notes)
    it.submit(request())
    it.drain()
    planned = [entry for entry in notes.said if entry[0] == "planned"]
    assert planned and all(number == submitted for _, number, submitted in planned)
    assert [e[1] for e in notes.said if e[0] == "ran"] == [e[1] for e in planned]


def test_the_recorder_hears_of_everything_the_scheduler_is_told_in_order():
    notes = Notes()
    it, _ = engine(notes, fails=lambda step: step.number == 3)
    stream = it.submit(request(), name="cmpl-1")
    with pytest.raises(RequestError):
        it.submit(request(*range(40), *range(40), *range(40), *range(38)), so_far={5: (1,)})
    it.pin(stream.request.terms, (1, 2, 3), 9.0)
    it.turn()
    it.cancel(stream)
    it.cancel(stream)  # nothing is left to end, and nothing is written
    it.submit(request(7))
    it.drain()
    it.close()
    told = [each[0] for each in notes.said if each[0] not in ("attend", "planned", "ran", "waited")]
    assert told == ["submitted", "submitted", "pinned", "cancelled", "submitted", "failed", "closed"]
    first, refused = [each for each in notes.said if each[0] == "submitted"][:2]
    assert first[3] == "cmpl-1" and first[-1] == "" and refused[-1] != "" and refused[3] is None


def test_an_interrupt_while_waiting_loses_no_step():
    it, runner = engine()
    streams = [it.submit(request(n, max_tokens=9)) for n in (1, 2)]
    for _ in range(3):
        it.turn()
    collect, runner.collect = runner.collect, interrupted
    with pytest.raises(KeyboardInterrupt):
        it.turn()
    runner.collect = collect
    it.cancel(streams[0])
    it.drain()
    tokens = [event.choice.token for event in streams[1].take() if isinstance(event, Token)]
    undisturbed, _ = engine()
    stream = undisturbed.submit(request(2, max_tokens=9))
    undisturbed.drain()
    assert tokens == [event.choice.token for event in stream.take() if isinstance(event, Token)]


def interrupted(ticket):
    raise KeyboardInterrupt
