"""Sequences of a search in the scheduler: forked without copying, let go before anybody is preempted, ended as one."""

import pytest
from searching import remembered, search_alone

from openwork import RequestError, SamplingParams
from openwork.core.budget import Budget
from openwork.core.event import Admitted, Ended, Finished, Preempted, Token
from openwork.core.request import Limits, Request
from openwork.core.search import Beam, BestFirst, Choose, Search
from openwork.core.settings import AdmissionSettings, CacheSettings, ScheduleSettings
from openwork.engine.loop import Loop
from openwork.kv.cache import KVCache
from openwork.schedule.scheduler import Scheduler
from openwork.schedule.searches import MOST_KEPT
from openwork.testing.echo import EchoRunner, VirtualClock, hashed, successor

VOCAB = 40
LIKELIHOOD = remembered(hashed(VOCAB, spread=3.0))
PROMPT = tuple(i % VOCAB for i in range(1, 21))


class World:
    def __init__(
        self,
        blocks=60,
        step_tokens=64,
        prefix=True,
        admission=None,
        poisons=None,
        step_s=0.001,
        fails=lambda step: False,
    ):
        settings, self.clock = CacheSettings(blocks, prefix=prefix), VirtualClock()
        self.limits = Limits(VOCAB, settings.capacity, frozenset({0}))
        self.cache = KVCache(settings)
        self.scheduler = Scheduler(ScheduleSettings(step_tokens, 8), self.cache, admission)
        bad = poisons or (lambda step, work: False)
        how = (self.clock, step_s, fails, bad, False, LIKELIHOOD)
        self.runner = EchoRunner(settings, successor(VOCAB), *how)
        self.loop = Loop(self.scheduler, self.runner, self.clock)
        self.events = []

    def request(self, search=None, prompt=PROMPT, **params):
        return Request(prompt, SamplingParams(**params), self.limits, search=search)

    def add(self, number, request, so_far=None):
        self.events += self.scheduler.add(number, request, self.clock.now(), so_far)
        return request

    def turn(self):
        self.events += self.loop.turn()
        self.scheduler.check()

    def drain(self):
        for _ in range(5_000):
            if self.loop.is_idle:
                break
            self.turn()
        assert self.loop.is_idle
        assert self.cache.pool.num_held == len(self.cache.tree), "blocks were lost"

    def of(self, kind, number=0):
        return [event for event in self.events if isinstance(event, kind) and event.request == number]


BEAM = Search(beam=Beam(width=4))
EXACT = Search(best_first=BestFirst(at_once=3, budget=Budget(nodes=60)))


def test_a_beam_copies_nothing_but_last_partial_blocks():
    world = World(prefix=False)
    world.add(0, world.request(BEAM, max_tokens=30, ignore_eos=True))
    world.drain()
    shared_wholes = len(PROMPT) // 16
    for step in world.runner.steps:
        for copy in step.copies:
            (work,) = [work for work in step.works if copy.target in work.blocks]
            place = work.blocks.index(copy.target)
            assert place == len(work.blocks) - 1 and place >= shared_wholes, "the block it is about to write to"
            assert work.start % 16, "and somebody else's tokens are in it"
    rows = [step.num_rows for step in world.runner.steps]
    assert rows == [len(PROMPT)] + [4] * 29, "every beam is one row of the same step"


def test_a_line_that_is_gone_on_with_alone_is_not_copied():
    world = World(prefix=False)
    world.add(0, world.request(Search(beam=Beam(width=1)), max_tokens=20, ignore_eos=True))
    world.drain()
    assert not any(step.copies for step in world.runner.steps)
    assert len({work.sequence for step in world.runner.steps for work in step.works}) == 1


def test_held_lines_are_let_go_before_anybody_is_preempted():
    world = World(blocks=14)
    world.add(0, world.request(EXACT, min_tokens=9, max_tokens=9))
    while len(world.scheduler._roster.held) < 3:
        world.turn()
    world.add(1, world.request(prompt=(7,) * 130, max_tokens=40, ignore_eos=True))
    world.drain()
    assert not world.of(Preempted, 1) and not world.of(Preempted, 0)
    alone, _ = search_alone(world.request(EXACT, min_tokens=9, max_tokens=9), LIKELIHOOD)
    assert world.of(Ended)[0].search == alone
    assert world.of(Admitted)[1:], "what was let go began again from the cache, or from nothing"


@pytest.mark.parametrize("blocks", [0, 2, None])
def test_kept_lines_stay_within_their_blocks(blocks):
    search = Search(best_first=BestFirst(budget=Budget(nodes=80, blocks=blocks)))
    world = World(blocks=100)
    world.add(0, world.request(search, min_tokens=5, max_tokens=5))
    most = 0
    while not world.loop.is_idle:
        world.turn()
        held = world.scheduler._roster.held
        assert blocks is None or len({block for line in held for block in line.blocks}) <= blocks
        most = max(most, len(held))
    assert most <= MOST_KEPT and (most > 5 or blocks is not None)
    assert world.of(Ended)[0].search == search_alone(world.request(search, min_tokens=5, max_tokens=5), LIKELIHOOD)[0]


@pytest.mark.parametrize("index", [None, 0, 3])
def test_cancelling_any_of_it_ends_all_of_it(index):
    world = World()
    world.add(0, world.request(BEAM, n=4, max_tokens=30))
    for _ in range(5):
        world.turn()
    world.events += world.scheduler.cancel(0, 0.0, index)
    world.drain()
    assert [event.reason for event in world.of(Finished)] == ["cancelled"] * 4
    assert world.of(Ended)[0].search is None
    assert world.scheduler.cancel(0, 0.0) == []


def test_a_sequence_that_there_is_not_cannot_be_cancelled():
    world = World()
    world.add(0, world.request(BEAM, n=2, max_tokens=5))
    assert world.scheduler.cancel(0, 0.0, 2) == []
    world.drain()
    assert world.of(Ended)[0].search is not None


@pytest.mark.parametrize("way", ["numbers", "step"])
def test_one_bad_row_ends_its_search_and_nobody_else(way):
    bad = {"numbers": {"poisons": lambda step, work: step.number == 2 and work is step.works[1]}}
    world = World(**bad.get(way, {"fails": lambda step: step.number == 2}))
    world.add(0, world.request(BEAM, max_tokens=30, ignore_eos=True))
    for _ in range(6):
        world.turn()
    world.add(1, world.request(max_tokens=5, ignore_eos=True))
    world.drain()
    (failed,) = world.of(Finished)
    assert (failed.reason, failed.failure) == ("error", way)
    assert len(world.of(Token, 1)) == 5 and not any(event.reason == "error" for event in world.of(Finished, 1))


def test_a_search_goes_on_in_another_engine_and_tells_nothing_twice():
    asked = {"max_tokens": 25, "min_tokens": 25, "n": 2}
    likely = Search(beam=Beam(width=2, length_penalty=0.0))
    whole = World()
    whole.add(0, whole.request(likely, **asked))
    whole.drain()
    told = [event.choice.token for event in whole.of(Token) if event.index == 0]
    for count in (0, 1, 20):
        again = World()
        again.add(0, again.request(likely, **asked), {0: told[:count], 1: []})
        again.drain()
        rest = [event for event in again.of(Token) if event.index == 0]
        assert [event.choice.token for event in rest] == told[count:]
        assert [event.position for event in rest] == [*range(len(PROMPT) + count, len(PROMPT) + 25)]
        assert again.of(Ended)[0].search == whole.of(Ended)[0].search


def test_the_door_prices_all_lines_of_a_search():
    world = World(blocks=60, admission=AdmissionSettings(max_blocks=12))
    world.add(0, world.request(BEAM, max_tokens=29))
    with pytest.raises(RequestError, match=r"4, which needs 17 blocks.*12") as caught:
        world.add(1, world.request(BEAM, max_tokens=30 + 16))
    assert caught.value.param == "width"
    world.add(2, world.request(Search(choose=Choose(options=((1,) * 40, (2,)), at_once=1))))
    world.drain()


def test_lone_rests_are_scored_through_chunks_and_preemption():
    options = tuple((first, *[first + i for i in range(30)]) for first in (1, 3, 5, 7))
    search = Search(choose=Choose(options=options, score_all=True))
    for blocks, step_tokens in ((60, 9), (5, 64), (4, 9)):
        world = World(blocks, step_tokens, prefix=blocks != 4)
        request = world.add(0, world.request(search))
        world.drain()
        assert world.of(Ended)[0].search == search_alone(request, LIKELIHOOD)[0]


@pytest.mark.parametrize(("step_s", "in_every_step"), [(0.05, True), (0.0005, False)])
def test_beside_others_a_search_moves_in_every_step_where_steps_are_long(step_s, in_every_step):
    world = World(blocks=60, step_s=step_s)
    world.add(0, world.request(max_tokens=40, ignore_eos=True))
    world.add(1, world.request(BEAM, prompt=(9, 8, 7), max_tokens=12, min_tokens=12))
    world.drain()
    searched = [any(work.expand is not None for work in step.works) for step in world.runner.steps]
    first, last = searched.index(True), len(searched) - searched[::-1].index(True)
    moved = searched[first:last]
    assert len(moved) > 8
    if in_every_step:
        assert sum(moved) >= len(moved) - 2, "the first step does not know yet how long steps are"
    else:
        assert sum(moved) <= len(moved) // 2 + 1, "every step is planned while another runs"


def test_nothing_is_copied_but_the_last_block_that_is_not_full():
    """Each line of a beam copies at most the block that it goes on in, and only where it shares that with another."""
    world = World(blocks=200)
    world.add(0, world.request(BEAM, prompt=tuple(range(1, 38)), max_tokens=30, min_tokens=30))
    world.drain()
    copied = 0
    for step in world.runner.steps:
        works = {work.blocks[-1]: work for work in step.works}
        for copy in step.copies:
            work = works[copy.target]
            assert work.start % 16 and work.count == 1, "the block that is copied has tokens, and room for one more"
            assert work.blocks[-1] == copy.target
        assert len(step.copies) < 4, "the last of those that go on from one line takes over its blocks"
        copied += len(step.copies)
    assert 0 < copied < 3 * 30
