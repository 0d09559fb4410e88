"""Speculation: what is guessed, what that may take, and what becomes of wrong guesses."""

import pytest

from openwork import OpenworkError, RequestError, SamplingParams
from openwork.core.event import Ended, Preempted, Token
from openwork.core.request import Limits, Request
from openwork.core.settings import CacheSettings, ScheduleSettings, SpeculationSettings
from openwork.decode.ngram import Ngram
from openwork.engine.loop import Loop
from openwork.kv.cache import KVCache
from openwork.schedule.pace import Pace
from openwork.schedule.scheduler import Scheduler
from openwork.testing.echo import EchoRunner, VirtualClock

VOCAB = 50


def counting(tokens, index):
    """0 1 2 .. 9 0 1 .. : what follows is known after one round."""
    return (tokens[-1] + 1) % 10


def contrary(tokens, index):
    """Never what is foretold, whatever is."""
    ngram = Ngram(0)
    ngram.follow(tokens, len(tokens))
    foretold = ngram.propose(1)[0] if ngram.odds(1) else 0
    return (foretold + 1 + len(tokens) % 3) % 5


class World:
    """An engine on virtual time whose steps take ``step_s`` + ``row_s`` a row, and that guesses."""

    def __init__(
        self, rule=counting, blocks=40, step_tokens=64, max_running=4, max_draft=7, row_s=1e-5, speculates=True, **more
    ):
        cache = CacheSettings(blocks)
        self.limits = Limits(VOCAB, cache.capacity, frozenset({49}))
        self.clock, self.cache = VirtualClock(), KVCache(cache)
        guessing = SpeculationSettings(max_draft=max_draft) if speculates else None
        settings = ScheduleSettings(step_tokens, max_running, speculation=guessing, **more)
        self.scheduler = Scheduler(settings, self.cache)
        self.runner = EchoRunner(cache, rule, self.clock, step_s=lambda step: 1e-3 + row_s * step.num_rows)
        self.loop = Loop(self.scheduler, self.runner, self.clock)
        self.events = []

    def add(self, number, prompt, **params):
        params = SamplingParams(**{"max_tokens": 40, "ignore_eos": True, **params})
        self.events += self.scheduler.add(number, Request(tuple(prompt), params, self.limits), self.clock.now())

    def turn(self):
        self.events += self.loop.turn()
        self.scheduler.check()

    def drain(self):
        for _ in range(5000):
            if self.loop.is_idle:
                return
            self.turn()
        raise AssertionError("it does not come to rest")

    def tokens(self, request, index=0):
        return [
            e.choice.token for e in self.events if isinstance(e, Token) and (e.request, e.index) == (request, index)
        ]

    def guessed(self, request):
        return next(e for e in self.events if isinstance(e, Ended) and e.request == request).account.guessed

    @property
    def drafted(self):
        return [work for step in self.runner.steps for work in step.works if work.drafts]


def test_a_text_that_repeats_takes_fewer_steps_and_says_the_same():
    steps = {}
    for speculates in (False, True):
        world = World(speculates=speculates)
        world.add(0, range(10))
        world.drain()
        steps[speculates] = len(world.runner.steps)
        assert world.tokens(0) == [i % 10 for i in range(40)]
    assert steps[False] == 40
    assert steps[True] < 20


def test_what_was_guessed_and_what_of_it_was_right_is_told():
    world = World()
    world.add(0, range(10))
    world.drain()
    guessed = world.guessed(0)
    assert guessed.drafted == sum(len(work.drafts) for work in world.drafted)
    assert guessed.verify_steps == len(world.drafted)
    assert 0 < guessed.accepted <= guessed.drafted
    assert len(world.tokens(0)) == len(world.runner.steps) + guessed.accepted


def test_guesses_that_are_never_right_are_soon_made_no_more():
    world = World(contrary)
    world.add(0, [1, 2, 5, 1, 2, 6], max_tokens=300)
    world.drain()
    assert world.guessed(0).drafted < 40
    late = [step for step in world.runner.steps if step.works[0].start > 150]
    assert all(work.is_pending for step in late for work in step.works), "and the steps overlap again"


def test_rows_that_cost_too_much_are_not_spent_on_guesses():
    world = World(row_s=1e-2)
    world.add(0, range(10), max_tokens=60)
    world.add(1, range(10), max_tokens=3)  # steps of two rows, too, are measured
    world.drain()
    tried = world.drafted
    assert len(tried) < 10, "until it was measured"


def test_nothing_is_guessed_beyond_the_last_token():
    world = World(max_draft=20)
    world.add(0, [*range(10), *range(10)], max_tokens=5)
    world.drain()
    assert world.tokens(0) == [0, 1, 2, 3, 4]
    assert max(len(work.drafts) for work in world.drafted) == 4


def test_a_prompt_can_be_guessed_from_in_the_step_that_ends_it():
    world = World()
    world.add(0, [*range(10), *range(10)], max_tokens=5)
    world.drain()
    assert world.runner.steps[0].works[0].drafts[:2] == (0, 1)


def test_guesses_take_rows_and_blocks_that_nobody_else_could_use():
    world = World(blocks=9, step_tokens=12, max_running=4, max_draft=30)
    for number in range(4):
        world.add(number, [number, *range(10), *range(10)], max_tokens=30)
    world.drain()
    assert all(step.num_rows <= 12 for step in world.runner.steps)
    plain = World(blocks=9, step_tokens=12, max_running=4, speculates=False)
    for number in range(4):
        plain.add(number, [number, *range(10), *range(10)], max_tokens=30)
    plain.drain()

    def preempted(world):
        return sum(isinstance(event, Preempted) for event in world.events)

    assert preempted(world) <= preempted(plain)
    assert all(world.tokens(n) == plain.tokens(n) for n in range(4))


def test_wrong_guesses_are_in_nobodys_cache():
    """The runner reads back what the cache holds, so a second request on the same tokens would show it."""
    world = World(contrary)
    world.add(0, [1, 2, 5, 1, 2, 6], max_tokens=60)
    world.drain()
    assert world.guessed(0).accepted < world.guessed(0).drafted
    said = world.tokens(0)
    world.add(1, [1, 2, 5, 1, 2, 6, *said[:50]], max_tokens=20)
    world.drain()
    assert next(e for e in world.events if isinstance(e, Ended) and e.request == 1).account.cached >= 48
    assert world.tokens(1)[: len(said) - 50] == said[50:]


def test_lines_that_may_split_are_guessed_for_once_they_have():
    world = World()
    world.add(0, [*range(10), *range(10)], n=3)
    world.drain()
    first = next(step for step in world.runner.steps if any(work.draws for work in step.works))
    assert not any(work.drafts for work in first.works)
    assert len({work.sequence for work in world.drafted}) == 3
    assert all(world.tokens(0, index) == [i % 10 for i in range(40)] for index in range(3))


def test_a_sequence_that_is_cancelled_with_guesses_in_flight_leaves_nothing_behind():
    world = World()
    world.add(0, [*range(10), *range(10)])
    world.turn()
    assert world.runner.steps[-1].works[0].drafts
    world.events += world.scheduler.cancel(0, world.clock.now())
    world.drain()
    assert world.tokens(0) == []
    assert world.cache.pool.num_held == len(world.cache.tree)


def test_a_stop_token_among_right_guesses_ends_the_text_there():
    world = World()
    world.add(0, [*range(10), *range(10)], stop_token_ids=(3,))
    world.drain()
    assert world.tokens(0) == [0, 1, 2, 3]
    assert world.guessed(0).accepted == 4


def test_a_step_with_guesses_is_waited_for_and_the_others_with_it():
    world = World()
    world.add(0, [*range(10), *range(10)])
    world.add(1, [11, 13, 12, 14])
    world.drain()
    both = [step for step in world.runner.steps if step.works[0].drafts]
    assert any(len(step.works) == 2 for step in both), "who does not guess goes along"


@pytest.mark.parametrize("bad", [{"guess": ""}, {"max_draft": 0}, {"max_draft": 64}, {"max_draft": True}])
def test_settings_are_checked(bad):
    with pytest.raises(OpenworkError):
        SpeculationSettings(**bad)


def test_a_wish_may_leave_out_what_it_likes():
    assert SpeculationSettings.wished(None, None) is None
    assert SpeculationSettings.wished("ngram", None) == SpeculationSettings()
    assert SpeculationSettings.wished("ngram", 4) == SpeculationSettings(max_draft=4)
    with pytest.raises(RequestError, match="max_draft"):
        SpeculationSettings.wished(None, 4)


def test_pace_believes_what_it_measured_often_and_guesses_the_rest():
    pace = Pace()
    assert pace.seconds(1, 3) == sorted(pace.seconds(1, 3))
    for rows, seconds in ((1, 1.0), (9, 3.0)):
        for _ in range(2):
            pace.learn(rows, seconds)
    assert pace.seconds(1, 1) == [1.0] and pace.seconds(9, 9)[0] < 3.0, "twice is not often"
    pace.learn(9, 3.0)
    assert pace.seconds(9, 9) == [3.0] and pace.seconds(1, 1)[0] < 3.0
    pace.learn(1, 1.0)
    pace.learn(1, 50.0)  # one slow moment
    assert pace.seconds(1, 1) == [1.0]
    assert pace.seconds(5, 5) == [2.0]
    assert pace.seconds(18, 18)[0] > 3.0
    pace.learn(2, 0.0)  # nobody measured
    assert 1.0 < pace.seconds(2, 2)[0] < 3.0
