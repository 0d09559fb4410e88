"""Laws of sharing: under saturation tenants get tokens by weight, and a flood delays a single request by little."""

import pytest

from openwork import SamplingParams
from openwork.core.event import Ended, Token
from openwork.core.request import Limits, Request
from openwork.core.settings import CacheSettings, ScheduleSettings
from openwork.core.terms import Tenant, Tenants, Terms
from openwork.engine.loop import Loop
from openwork.kv.cache import KVCache
from openwork.schedule.scheduler import Scheduler
from openwork.testing.echo import EchoRunner, VirtualClock, successor

STEP_S = 0.01


class Market:
    """Tenants that always have a few requests waiting."""

    def __init__(self, weights, shapes, blocks=200, step_tokens=64, max_running=8, **how):
        settings, self.clock = CacheSettings(blocks), VirtualClock()
        tenants = Tenants({name: Tenant(weight=weight) for name, weight in weights.items()})
        self.limits = Limits(50, settings.capacity)
        self.scheduler = Scheduler(ScheduleSettings(step_tokens, max_running, **how), KVCache(settings, tenants))
        self.runner = EchoRunner(settings, successor(50), self.clock, STEP_S)
        self.loop = Loop(self.scheduler, self.runner, self.clock)
        self.shapes = shapes  # tenant -> (prompt length, tokens to generate)
        self.owners, self.events = [], []

    def add(self, tenant, length, max_tokens):
        number = len(self.owners)
        prompt = tuple((number * 31 + i * i) % 50 for i in range(length))
        request = Request(
            prompt, SamplingParams(max_tokens=max_tokens, ignore_eos=True), self.limits, Terms(tenant=tenant)
        )
        self.owners.append(tenant)
        self.events += self.scheduler.add(number, request, self.clock.now())
        return number

    def run(self, turns, waiting=6):
        for _ in range(turns):
            for tenant, shape in self.shapes.items():
                while self.scheduler._roster.waiting.num_new.get(tenant, 0) < waiting:
                    self.add(tenant, *shape)
            self.events += self.loop.turn()
        return self

    def rows(self, after=0):
        """Rows computed for each tenant: prompts and decoding together."""
        owner = {}
        for step in self.runner.steps:
            for work in step.works:
                owner.setdefault(work.sequence, self.owners[work.sequence])  # one sequence a request: equal numbers
        found = dict.fromkeys(self.shapes, 0)
        for step in self.runner.steps[after:]:
            for work in step.works:
                found[owner[work.sequence]] += work.count
        return found


SHAPES = {
    "decoding": {"ann": (20, 40), "bob": (20, 40)},
    "prompts": {"ann": (150, 2), "bob": (150, 2)},
    "long beside short": {"ann": (300, 5), "bob": (10, 60)},
}


@pytest.mark.parametrize("first", ["decode", "prefill"])
@pytest.mark.parametrize("shapes", SHAPES.values(), ids=SHAPES)
def test_tokens_are_served_by_weight(shapes, first):
    market = Market({"ann": 1, "bob": 3}, shapes, is_fair=True, first=first).run(1500)
    rows = market.rows(after=300)
    assert 2.5 <= rows["bob"] / rows["ann"] <= 3.5, rows


def test_without_fairness_the_one_who_asks_for_more_gets_more():
    market = Market({"ann": 1, "bob": 3}, SHAPES["long beside short"]).run(800)
    rows = market.rows(after=300)
    assert rows["bob"] < rows["ann"], "so the law above is not an accident"


@pytest.mark.parametrize("flood", [(20, 200), (600, 4)], ids=["of long answers", "of long prompts"])
def test_a_flood_delays_a_single_request_of_another_by_little(flood):
    market = Market({}, {"ann": flood}, is_fair=True, max_running=8)
    market.run(100, waiting=50)
    waits = []
    for _ in range(5):
        asked = market.clock.now()
        number = market.add("bob", 20, 5)
        market.run(60, waiting=50)
        tokens = [e.time for e in market.events if isinstance(e, Token) and e.request == number]
        waits.append((tokens[0] - asked) / STEP_S)
        assert len(tokens) == 5 and (tokens[-1] - tokens[0]) / STEP_S <= 8, "and its tokens come steadily"
    assert max(waits) <= 5, f"steps until the first token: {waits}"


def test_memory_is_shared_too():
    market = Market({}, {"ann": (40, 120), "bob": (40, 120)}, blocks=40, max_running=16, is_fair=True).run(1500)
    rows = market.rows(after=300)
    assert 0.7 <= rows["bob"] / rows["ann"] <= 1.4, rows


def test_a_pause_is_neither_saved_up_nor_paid_for():
    market = Market({}, {"ann": (20, 40)}, is_fair=True).run(400)
    market.shapes["bob"] = (20, 40)
    start = len(market.runner.steps)
    market.run(400)
    rows = market.rows(after=start)
    assert 0.75 <= rows["bob"] / rows["ann"] <= 1.33, rows


def test_everybody_ends_in_the_end():
    market = Market({"ann": 1, "bob": 100}, {"ann": (50, 20), "bob": (50, 20)}, is_fair=True, patience_s=1.0).run(300)
    market.shapes = {}
    while not market.loop.is_idle:
        market.run(1)
    assert {e.request for e in market.events if isinstance(e, Ended)} == set(range(len(market.owners)))
