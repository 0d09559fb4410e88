"""What goes into a step: who, how much, in which order; and what happens when rows or blocks run out."""

import pytest

from openwork import OpenworkError, SamplingParams
from openwork.core.event import Admitted, Ended, Finished, Preempted
from openwork.core.request import Limits, Request
from openwork.core.settings import CacheSettings, ScheduleSettings
from openwork.core.step import Choice, Outcome, Result
from openwork.kv.cache import KVCache
from openwork.schedule.scheduler import Scheduler


class Desk:
    """A scheduler, and a runner that always chooses token 9."""

    def __init__(self, blocks=40, step_tokens=32, max_running=4, prefix=False):
        self.limits = Limits(50, blocks * 16)
        self.cache = KVCache(CacheSettings(blocks, prefix=prefix))
        self.scheduler = Scheduler(ScheduleSettings(step_tokens, max_running), self.cache)
        self.now = 0.0

    def add(self, number, length, **params):
        request = Request((1,) * length, SamplingParams(**{"max_tokens": 50, **params}), self.limits)
        return self.scheduler.add(number, request, self.now)

    def plan(self):
        step, self.events = self.scheduler.plan(self.now)
        self.scheduler.check()
        return step

    def commit(self, step):
        outcomes = tuple(Outcome(tuple(Choice(9) for _ in work.draws)) for work in step.works)
        events = self.scheduler.commit(step, Result(step.number, outcomes), self.now)
        self.scheduler.check()
        return events

    def turn(self):
        step = self.plan()
        self.commit(step)
        return shape(step)


def shape(step):
    return [(work.sequence, work.start, work.count) for work in step.works]


def test_a_prompt_is_cut_into_chunks_and_the_last_one_is_drawn_from():
    desk = Desk()
    desk.add(0, 70)
    steps = [desk.plan() for _ in range(3)]
    assert [shape(step) for step in steps] == [[(0, 0, 32)], [(0, 32, 32)], [(0, 64, 6)]]
    assert [len(step.works[0].draws) for step in steps] == [0, 0, 1]


def test_one_row_sequences_come_before_the_rest_of_a_prompt():
    desk = Desk()
    desk.add(0, 3)
    desk.turn()
    desk.add(1, 100)
    assert desk.turn() == [(0, 3, 1), (1, 0, 31)]
    desk.add(2, 2)
    assert desk.turn() == [(0, 4, 1), (1, 31, 31)], "rows are used up: the third waits"


def test_a_full_house_admits_nobody():
    desk = Desk(max_running=2)
    for number in range(3):
        desk.add(number, 2, max_tokens=2)
    assert desk.turn() == [(0, 0, 2), (1, 0, 2)]
    assert desk.scheduler.num_waiting == 1
    desk.turn()
    assert desk.turn() == [(2, 0, 2)]


def test_admission_waits_until_all_that_is_known_fits():
    desk = Desk(blocks=4)
    desk.add(0, 33, max_tokens=10)
    desk.turn()
    desk.add(1, 20)
    desk.turn()
    assert desk.scheduler.num_waiting == 1, "two blocks would be needed, one is free"


def test_the_youngest_is_preempted_and_comes_back_with_all_it_knew():
    desk = Desk(blocks=4, step_tokens=64)
    desk.add(0, 31)
    desk.add(1, 31)
    while not any(isinstance(event, Preempted) for event in getattr(desk, "events", [])):
        desk.turn()
    (preempted,) = [event for event in desk.events if isinstance(event, Preempted)]
    assert preempted.request == 1 and preempted.forgotten >= 31
    desk.scheduler.cancel(0, desk.now)
    step = desk.plan()
    assert shape(step)[0][1] == 0 and step.works[0].count > 31, "prompt and output are computed again"
    assert any(isinstance(event, Admitted) and event.request == 1 for event in desk.events)


def test_nothing_is_planned_for_a_token_that_is_certainly_the_last():
    desk = Desk()
    desk.add(0, 4, max_tokens=2)
    one, two = desk.plan(), desk.plan()
    assert desk.plan() is None
    desk.commit(one)
    assert desk.plan() is None
    assert [type(event) for event in desk.commit(two)][-2:] == [Finished, Ended]


def test_a_line_that_may_split_is_waited_for():
    desk = Desk()
    desk.add(0, 4, n=2)
    step = desk.plan()
    assert desk.plan() is None
    desk.commit(step)
    assert shape(desk.plan()) == [(0, 4, 1), (1, 4, 1)]


def test_a_fork_orders_a_copy_of_the_partial_block_only():
    desk = Desk()
    desk.add(0, 20, n=3)
    desk.turn()
    step = desk.plan()
    assert len(step.copies) == 2 and {copy.source for copy in step.copies} == {step.works[2].blocks[1]}
    assert len({work.blocks[0] for work in step.works}) == 1
    assert len({work.blocks[1] for work in step.works}) == 3


def test_cancelling_while_waiting_or_running_or_never_heard_of():
    desk = Desk(max_running=1)
    desk.add(0, 4)
    desk.add(1, 4)
    desk.turn()
    for number in (1, 0):
        events = desk.scheduler.cancel(number, desk.now)
        assert [type(event) for event in events] == [Finished, Ended]
    assert desk.scheduler.cancel(0, desk.now) == desk.scheduler.cancel(99, desk.now) == []
    assert desk.scheduler.is_idle and desk.cache.pool.num_held == 0


def test_scoring_targets_follow_their_rows_through_chunks():
    desk = Desk(step_tokens=8, max_running=2)
    prompt = tuple(range(1, 21))
    desk.scheduler.add(0, Request(prompt, SamplingParams(max_tokens=0, prompt_logprobs=1), desk.limits), 0.0)
    targets = []
    for _ in range(3):
        step = desk.plan()
        targets += step.works[0].score.targets
        assert not step.works[0].draws
    assert tuple(targets) == prompt[1:]


BAD = [(ScheduleSettings, (8, 8)), (ScheduleSettings, (8, 0)), (CacheSettings, (0,)), (CacheSettings, (4, 20))]


@pytest.mark.parametrize(("kind", "numbers"), BAD)
def test_settings_that_cannot_work_are_refused(kind, numbers):
    with pytest.raises(OpenworkError):
        kind(*numbers)
