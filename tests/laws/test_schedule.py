"""Random arrivals, cancels, forks, pressure and failing steps: the answers never change and nothing is lost.

Every schedule runs under virtual time on EchoRunner, whose answer to a draw is a hash of all tokens before it, read
back through the block tables. So one wrong block, copy or position changes the text, and the text is known beforehand.
"""

from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from openwork import SamplingParams
from openwork.core.event import Arrived, Ended, Finished, Preempted, Token
from openwork.core.request import Limits, Request
from openwork.core.settings import CacheSettings, ScheduleSettings
from openwork.engine.loop import Loop
from openwork.kv.cache import KVCache
from openwork.schedule.scheduler import Scheduler
from openwork.testing.echo import EchoRunner, VirtualClock, successor

VOCAB = 50
EOS = 3
RULE = successor(VOCAB)


@dataclass
class World:
    """An engine on virtual time, and everything it has said."""

    blocks: int
    step_tokens: int
    max_running: int
    fails: object = lambda step: False
    events: list = field(default_factory=list)

    def __post_init__(self):
        cache = CacheSettings(self.blocks)
        self.limits = Limits(VOCAB, cache.capacity, frozenset({EOS}))
        self.clock = VirtualClock()
        self.cache = KVCache(cache)
        self.scheduler = Scheduler(ScheduleSettings(self.step_tokens, self.max_running), self.cache)
        self.runner = EchoRunner(cache, RULE, self.clock, fails=self.fails)
        self.loop = Loop(self.scheduler, self.runner, self.clock)

    def turn(self):
        self.events += self.loop.turn()
        self.scheduler.check()

    def drain(self, at_most=20_000):
        for _ in range(at_most):
            if self.loop.is_idle:
                break
            self.turn()
        assert self.loop.is_idle, "the engine does not come to rest"
        assert self.cache.pool.num_held == len(self.cache.tree), "blocks were lost"

    def tokens(self, request, index):
        return [
            e.choice.token for e in self.events if isinstance(e, Token) and (e.request, e.index) == (request, index)
        ]


def expected(request: Request, index: int) -> list[int]:
    """What the rule says, generated without any engine."""
    tokens = list(request.prompt)
    while len(tokens) - len(request.prompt) < request.max_tokens:
        tokens.append(RULE(tokens, index))
        if tokens[-1] in request.stop_ids and len(tokens) - len(request.prompt) > request.params.min_tokens:
            break
    return tokens[len(request.prompt) :]


def ends_once(world, requests):
    for number, request in requests.items():
        ended = [e for e in world.events if isinstance(e, Ended) and e.request == number]
        finished = [e for e in world.events if isinstance(e, Finished) and e.request == number]
        assert len(ended) == 1
        assert sorted(e.index for e in finished) == list(range(request.params.n))
        own = [e for e in world.events if e.request == number]
        assert isinstance(own[0], Arrived) and isinstance(own[-1], Ended)


prompts = st.lists(st.integers(0, VOCAB - 1), min_size=1, max_size=60)
params = st.builds(
    SamplingParams,
    n=st.sampled_from([1, 1, 1, 2, 5]),
    max_tokens=st.integers(0, 40),
    ignore_eos=st.booleans(),
)
plans = st.lists(
    st.tuples(prompts, params, st.integers(0, 12), st.one_of(st.none(), st.integers(0, 30))), min_size=1, max_size=9
)


@settings(max_examples=150, deadline=None)
@given(plans, st.integers(6, 40), st.integers(5, 64), st.integers(1, 4))
def test_any_schedule_gives_the_same_tokens_and_loses_nothing(plan, blocks, step_tokens, max_running):
    world = World(blocks, max(step_tokens, max_running + 1), max_running)
    requests, cancels = {}, {}
    for number, (prompt, how, gap, cancel_after) in enumerate(plan):
        for _ in range(gap):
            world.turn()
        request = Request(tuple(prompt), how, world.limits) if len(prompt) < world.limits.context else None
        if request is None:
            continue
        requests[number] = request
        world.events += world.scheduler.add(number, request, world.clock.now())
        cancels[number] = cancel_after
        for other, after in list(cancels.items()):
            if after is not None and len(world.tokens(other, 0)) >= after:
                world.events += world.scheduler.cancel(other, world.clock.now())
                world.scheduler.check()
    world.drain()
    ends_once(world, requests)
    cancelled = {e.request for e in world.events if isinstance(e, Finished) and e.reason == "cancelled"}
    for number, request in requests.items():
        for index in range(request.params.n):
            want, got = expected(request, index), world.tokens(number, index)
            assert got == want[: len(got)] if number in cancelled else got == want
    assert all(step.num_rows <= max(step_tokens, max_running + 1) for step in world.runner.steps)


@settings(max_examples=60, deadline=None)
@given(plans, st.integers(6, 30), st.sets(st.integers(0, 40), max_size=4))
def test_failing_steps_end_their_own_sequences_only(plan, blocks, bad_steps):
    world = World(blocks, 33, 4, fails=lambda step: step.number in bad_steps)
    requests = {}
    for number, (prompt, how, _, _) in enumerate(plan):
        if len(prompt) < world.limits.context:
            requests[number] = Request(tuple(prompt), how, world.limits)
            world.events += world.scheduler.add(number, requests[number], world.clock.now())
    world.drain()
    ends_once(world, requests)
    hit = {e.request for e in world.events if isinstance(e, Finished) and e.reason == "error"}
    for number in set(requests) - hit:
        for index in range(requests[number].params.n):
            assert world.tokens(number, index) == expected(requests[number], index)


def test_pressure_preempts_the_youngest_and_everybody_still_finishes():
    world = World(blocks=8, step_tokens=64, max_running=4)
    how = SamplingParams(max_tokens=40, ignore_eos=True)
    requests = {i: Request(tuple(range(1 + i, 31 + i)), how, world.limits) for i in range(4)}
    for number, request in requests.items():
        world.events += world.scheduler.add(number, request, 0.0)
    world.drain()
    preempted = [e.request for e in world.events if isinstance(e, Preempted)]
    assert preempted and 0 not in preempted, "the oldest is never preempted"
    assert all(world.tokens(i, 0) == expected(r, 0) for i, r in requests.items())


def test_a_long_prompt_does_not_stall_a_running_sequence():
    world = World(blocks=200, step_tokens=16, max_running=4)
    how = SamplingParams(max_tokens=60, ignore_eos=True)
    world.scheduler.add(0, Request((1, 2, 3), how, world.limits), 0.0)
    for _ in range(4):
        world.turn()
    world.scheduler.add(1, Request(tuple(i % VOCAB for i in range(400)), how, world.limits), 0.0)
    seen = len(world.runner.steps)
    world.drain()
    shared = [s for s in world.runner.steps[seen:] if any(w.sequence == 1 and w.count > 1 for w in s.works)]
    assert len(shared) >= 400 // 16
    assert all(any(w.sequence == 0 for w in step.works) for step in shared), "each of these steps serves both"


def test_one_step_is_in_flight_while_the_next_is_planned():
    world = World(blocks=20, step_tokens=16, max_running=2)
    world.scheduler.add(0, Request((1, 2, 3), SamplingParams(max_tokens=8, ignore_eos=True), world.limits), 0.0)
    depth = []
    while not world.loop.is_idle:
        world.turn()
        depth.append(world.runner.in_flight)
    assert max(depth) == 1
    pending = [work.is_pending for step in world.runner.steps for work in step.works]
    assert pending == [False] + [True] * 7, "decode rows are planned before their token is known, none in vain"
