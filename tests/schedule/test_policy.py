"""Whose turn it is, who gives way, and that nobody waits for ever."""

from openwork import SamplingParams
from openwork.core.event import Admitted, Ended, Preempted, Token
from openwork.core.request import Limits, Request
from openwork.core.settings import CacheSettings, ScheduleSettings
from openwork.core.terms import Tenant, Tenants, Terms
from openwork.engine.loop import Loop
from openwork.kv.cache import KVCache
from openwork.schedule.scheduler import Scheduler
from openwork.testing.echo import EchoRunner, VirtualClock, successor


class House:
    """An engine on virtual time. Prompts differ from the first token on, so that nothing is shared by chance."""

    def __init__(self, blocks=100, step_tokens=64, max_running=4, tenants=None, prefix=True, **how):
        settings, self.clock = CacheSettings(blocks, prefix=prefix), VirtualClock()
        self.limits = Limits(200, settings.capacity)
        self.cache = KVCache(settings, Tenants(tenants or {}))
        self.scheduler = Scheduler(ScheduleSettings(step_tokens, max_running, **how), self.cache)
        self.runner = EchoRunner(settings, successor(200), self.clock, 0.01)
        self.loop = Loop(self.scheduler, self.runner, self.clock)
        self.events, self.number = [], 0

    def add(self, length, max_tokens=10, prompt=None, **terms):
        prompt = prompt or (self.number % 200, *((self.number * 7 + i) % 200 for i in range(length - 1)))
        params = SamplingParams(max_tokens=max_tokens, ignore_eos=True)
        request = Request(prompt, params, self.limits, Terms(**terms))
        self.events += self.scheduler.add(self.number, request, self.clock.now())
        self.number += 1
        return self.number - 1

    def turn(self, times=1):
        for _ in range(times):
            self.events += self.loop.turn()
            self.scheduler.check()

    def drain(self):
        while not self.loop.is_idle:
            self.turn()
        return self

    def of(self, kind):
        return [event for event in self.events if isinstance(event, kind)]

    def begun(self):
        return [event.request for event in self.of(Admitted)]


def test_priority_goes_before_arrival_and_takes_the_place_of_less():
    house = House(max_running=1, order="priority")
    low = house.add(20, 40, priority=5)
    house.turn(4)
    other, high = house.add(20, priority=1), house.add(20, priority=-3)
    house.turn(2)
    assert house.begun() == [low, high]
    (event,) = house.of(Preempted)
    assert (event.request, event.cause, event.by) == (low, "places", high) and event.kept > 0
    house.drain()
    assert [event.request for event in house.of(Ended)] == [high, other, low]


def test_equal_priority_is_first_come():
    house = House(max_running=1, order="priority")
    numbers = [house.add(20, 3) for _ in range(4)]
    assert house.drain().begun() == numbers and not house.of(Preempted)


def test_patience_is_worth_a_level_of_priority():
    house = House(max_running=1, order="priority", patience_s=1.0)
    house.add(20, 2)
    low = house.add(20, 2, priority=2)
    house.clock.advance(2.5)
    high = house.add(20, 2, priority=0)
    house.drain()
    assert house.begun()[1:] == [low, high], "it has waited for more than two levels"


def test_deadlines_decide_who_begins():
    house = House(max_running=1, order="deadline")
    house.add(20, 5, first_token_s=0.01)
    late, none, soon = (house.add(20, 2, first_token_s=seconds) for seconds in (9.0, None, 0.5))
    house.drain()
    assert house.begun()[1:] == [soon, late, none]


def test_prefill_first_gives_a_prompt_the_rows_and_decode_first_does_not():
    for first, wanted in (("prefill", 64), ("decode", 62)):
        house = House(max_running=3, first=first)
        house.add(2, 40), house.add(2, 40)
        house.turn(4)
        long = house.add(150, 2)
        house.turn()
        rows = [w.count for w in house.runner.steps[-1].works if w.sequence == long]
        assert rows == [wanted]
        assert house.drain().runner.steps[0].why.order.endswith("prefill first") == (first == "prefill")


def test_a_request_that_shares_a_prompt_being_computed_waits_for_it():
    house = House(step_tokens=32)
    prompt = tuple(range(100))
    for last in range(4):
        house.add(0, 3, prompt=(*prompt, 150 + last))
    house.drain()
    assert [event.cached for event in house.of(Admitted)] == [0, 96, 96, 96]
    assert any(cause == "prefix" for step in house.runner.steps for _, cause in step.why.left_out)
    assert sum(work.count for step in house.runner.steps for work in step.works) == 101 + 3 * 5 + 4 * 2


def test_the_next_turn_of_a_chat_finds_prompt_and_answer():
    house = House()
    prompt = tuple(range(30))
    house.add(0, 12, prompt=prompt)
    house.drain()
    answer = tuple(event.choice.token for event in house.of(Token))
    house.add(0, 3, prompt=(*prompt, *answer, 190, 191))
    house.drain()
    account = house.of(Ended)[-1].account
    assert account.cached == 30 + 12 - 1, "the last token was never computed"
    assert account.miss is None or account.miss.cause == "partial"
    assert account.rows == 3 + 2 and account.chunks == 1


def test_an_account_says_where_the_time_went():
    house = House(max_running=1, step_tokens=16)
    house.add(40, 5)
    second = house.add(40, 5)
    house.drain()
    account = next(event.account for event in house.of(Ended) if event.request == second)
    assert abs(account.queued_s - 0.07) < 0.021 and account.chunks == 3 and account.rows == 44


def test_what_was_pressed_out_is_told_with_owner_reason_and_cost():
    house = House(blocks=6, prefix=False)
    house.add(31, 30, tenant="ann"), house.add(31, 30, tenant="bob")
    house.drain()
    assert all((e.tenant, e.cause, e.by, e.kept) == ("bob", "blocks", 0, 0) for e in house.of(Preempted))
    assert house.of(Preempted) and house.of(Preempted)[0].forgotten >= 31
    account = house.of(Ended)[-1].account
    assert account.preemptions == len(house.of(Preempted)) and dict(account.stalls)["preempted"] > 0


def test_the_tenant_that_holds_most_gives_way_first():
    house = House(blocks=12, is_fair=True, prefix=False, max_running=8)
    house.add(30, 60, tenant="bob")
    for _ in range(3):
        house.add(30, 60, tenant="ann")
    house.drain()
    assert house.of(Preempted)[0].tenant == "ann"
    assert next(e.request for e in house.of(Ended)) == 0


def test_a_tenants_own_bounds_press_on_nobody_else():
    house = House(blocks=40, tenants={"ann": Tenant(max_blocks=5, max_running=3)}, max_running=8)
    for _ in range(6):
        house.add(20, 40, tenant="ann"), house.add(20, 40, tenant="bob")
    while not house.loop.is_idle:
        house.turn()
        assert house.cache.pool.charged.get("ann", 0) <= 5
        assert house.scheduler._roster.running_of.get("ann", 0) <= 3
    assert {event.tenant for event in house.of(Preempted)} == {"ann"}
    assert {event.cause for event in house.of(Preempted)} == {"tenant"}


def test_pins_and_reserves_yield_to_the_one_without_which_all_would_stand_still():
    house = House(blocks=8, tenants={"bob": Tenant(reserved_blocks=4)})
    house.add(60, 2, tenant="bob")
    house.drain()
    assert house.scheduler.pin(Terms(tenant="bob"), [0, *range(59)], 0.0, 1e9) > 0
    house.add(100, 28, tenant="ann")
    house.drain()
    assert [event.request for event in house.of(Ended)] == [0, 1]


def test_whoever_waited_too_long_is_not_passed_again():
    house = House(blocks=10, is_fair=True, patience_s=0.5, max_running=8)
    for _ in range(4):
        house.add(20, 30, tenant="ann")
    house.turn(2)
    huge = house.add(150, 4, tenant="bob")
    for _ in range(400):
        if len(house.scheduler._roster.entries) < 6:
            house.add(20, 30, tenant="ann" if house.number % 2 else "cyd")
        house.turn()
        if any(event.request == huge for event in house.of(Ended)):
            break
    ended = next(event for event in house.of(Ended) if event.request == huge)
    assert ended.account.queued_s <= 1.0
    assert ended.time < 2.0, "others kept arriving, and it still came to its end"
