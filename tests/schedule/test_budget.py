"""The rows of a step follow the time that is wanted between tokens."""

from openwork import SamplingParams
from openwork.core.request import Limits, Request
from openwork.core.settings import CacheSettings, ScheduleSettings
from openwork.core.terms import Terms
from openwork.engine.loop import Loop
from openwork.kv.cache import KVCache
from openwork.schedule.budget import StepBudget
from openwork.schedule.scheduler import Scheduler
from openwork.testing.echo import EchoRunner, VirtualClock, successor


def taught(cost, rows=(1, 40, 300, 8, 512, 60), target=0.03):
    budget = StepBudget(ScheduleSettings(next_token_s=target))
    for number in rows:
        budget.learn(number, cost(number))
    return budget


def test_it_finds_the_rows_that_fit():
    budget = taught(lambda rows: 0.005 + 0.0001 * rows)
    assert abs(budget.within(0.03) - 250) <= 1
    assert budget.within(0.004) == 0 and budget.within(1.0) == 512


def test_it_follows_when_steps_become_slower():
    budget = taught(lambda rows: 0.005 + 0.0001 * rows)
    for rows in (16, 200) * 60:
        budget.learn(rows, 0.005 + 0.0005 * rows)
    assert 45 <= budget.within(0.03) <= 55


def test_nothing_measured_or_nothing_known_is_no_bound():
    assert StepBudget(ScheduleSettings(next_token_s=0.01)).within(0.01) == 512
    assert taught(lambda rows: 0.0).within(0.01) == 512
    assert taught(lambda rows: 0.02, rows=(8, 8, 8)).within(0.04) == 16


def test_one_noisy_time_does_not_make_a_step_of_everything():
    budget = taught(lambda rows: 0.03, rows=(8,) * 20)
    budget.learn(9, 0.03 + 1e-6)
    assert budget.within(0.06) <= 4 * 9 + 16


def gaps(target_in_settings, target_of_request, stretch=None):
    """Steps that a decoding sequence shares with a long prompt: (rows, seconds, what bound them)."""
    cache, clock = CacheSettings(400), VirtualClock()
    runner = EchoRunner(cache, successor(50), clock, lambda step: 0.004 + 0.0001 * step.num_rows)
    settings = ScheduleSettings(512, 4, next_token_s=target_in_settings, stretch=stretch)
    loop = Loop(Scheduler(settings, KVCache(cache)), runner, clock)
    limits, how = Limits(50, 6000), SamplingParams(max_tokens=300, ignore_eos=True)
    loop.scheduler.add(0, Request((1, 2), how, limits, Terms(next_token_s=target_of_request)), 0.0)
    for _ in range(8):
        loop.turn()
    first = len(runner.steps)
    loop.scheduler.add(1, Request((5,) * 4096, SamplingParams(max_tokens=1), limits), clock.now())
    while not loop.is_idle:
        loop.turn()
    chunks = [step for step in runner.steps[first:] if any(w.sequence == 1 for w in step.works)]
    return [(step.num_rows, 0.004 + 0.0001 * step.num_rows, step.why.bound) for step in chunks]


def test_a_long_prompt_is_cut_so_that_a_stream_keeps_its_pace():
    for found in (gaps(0.02, None), gaps(None, 0.02), gaps(1.0, 0.02)):
        assert all(seconds <= 0.021 for _, seconds, _ in found[2:-1]), "two steps are planned before one is measured"
        assert all(rows > 140 for rows, _, _ in found[6:-1]), "and no more than that, once larger steps were seen"
        assert all(bound == "latency" for _, _, bound in found[2:-1])
    assert {rows for rows, _, _ in gaps(None, None)[:-1]} == {512}


def test_a_target_that_cannot_be_met_still_lets_prompts_end():
    found = gaps(0.001, None)
    assert {rows for rows, _, _ in found[2:-1]} <= {16, 17} and sum(rows for rows, _, _ in found) >= 4096


def test_a_prompt_stretches_the_steps_of_others_by_a_factor():
    found = gaps(None, None, stretch=2.0)
    alone = 0.004 + 0.0001
    assert all(seconds <= 2.02 * alone for _, seconds, _ in found[2:-1])
    assert all(rows > 35 for rows, _, _ in found[4:-1]), "and no less than that allows, once it is known"
    assert all(bound == "latency" for _, _, bound in found[2:-1])
    assert max(seconds for _, seconds, _ in gaps(0.006, None, stretch=2.0)[2:-1]) <= 0.00605, "the shorter time holds"


def test_nobody_waiting_is_nobody_stretched():
    cache, clock = CacheSettings(400), VirtualClock()
    runner = EchoRunner(cache, successor(50), clock)
    loop = Loop(Scheduler(ScheduleSettings(512, 4, stretch=1.5), KVCache(cache)), runner, clock)
    loop.scheduler.add(0, Request((5,) * 2048, SamplingParams(max_tokens=1), Limits(50, 6000)), 0.0)
    while not loop.is_idle:
        loop.turn()
    assert {step.num_rows for step in runner.steps} == {512}


def test_many_that_wait_do_not_stand_in_line_for_the_pace_of_one():
    cache, clock = CacheSettings(400, prefix=False), VirtualClock()
    runner = EchoRunner(cache, successor(50), clock, lambda step: 0.004 + 0.0001 * step.num_rows)
    loop = Loop(Scheduler(ScheduleSettings(512, 16, stretch=1.5), KVCache(cache)), runner, clock)
    limits = Limits(50, 6000)
    loop.scheduler.add(0, Request((1, 2), SamplingParams(max_tokens=300, ignore_eos=True), limits), 0.0)
    for _ in range(8):
        loop.turn()
    first = len(runner.steps)
    for number in range(1, 11):
        loop.scheduler.add(number, Request((5,) * 200, SamplingParams(max_tokens=1), limits), clock.now())
    while any(work.sequence for work in runner.steps[-1].works) or len(runner.steps) < first + 3:
        loop.turn()
    rows = [step.num_rows for step in runner.steps[first:]]
    assert max(rows) > 150, "ten wait for their first token, one for its next"
    assert rows[-2] < 60, "and the last of them alone is no reason to stall the one"
