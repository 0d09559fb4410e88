"""Golden logs: the steps of fixed workloads, written down. A change that calls itself a refactor reproduces them.

One line a step:  number  copies source>target  works sequence:start+count, with ? for a pending token, @blocks, *draws
Where the schedule is meant to change, ``pytest tests/laws --write-golden`` writes them anew; the diff is for review.
"""

from pathlib import Path

import pytest

from openwork import SamplingParams
from openwork.core.request import Limits, Request
from openwork.core.settings import CacheSettings, ScheduleSettings
from openwork.engine.loop import Loop
from openwork.kv.cache import KVCache
from openwork.schedule.scheduler import Scheduler
from openwork.testing.echo import EchoRunner, VirtualClock, successor

GOLDEN = Path(__file__).parent / "golden"

# name -> (blocks, step tokens, max running, [(turn of arrival, prompt length, parameters, turn of cancelling)])
WORKLOADS = {
    "one": (8, 64, 4, [(0, 5, {"max_tokens": 20}, None)]),
    "chunks": (40, 16, 4, [(0, 3, {"max_tokens": 20}, None), (2, 100, {"max_tokens": 5}, None)]),
    "forks": (24, 32, 8, [(0, 21, {"max_tokens": 12, "n": 4}, None), (3, 16, {"max_tokens": 6, "n": 2}, None)]),
    "pressure": (8, 64, 4, [(i, 30, {"max_tokens": 30}, None) for i in range(4)]),
    "cancels": (20, 32, 4, [(0, 40, {"max_tokens": 30}, 4), (1, 12, {"max_tokens": 9}, None), (2, 33, {"n": 3}, 9)]),
}


def steps_of(blocks, step_tokens, max_running, arrivals):
    settings = CacheSettings(blocks, prefix=False)
    runner = EchoRunner(settings, successor(50))
    scheduler = Scheduler(ScheduleSettings(step_tokens, max_running), KVCache(settings))
    loop = Loop(scheduler, runner, VirtualClock())
    limits, turn = Limits(50, settings.capacity), 0
    while turn < 12 or not loop.is_idle:
        for number, (arrival, length, params, leaving) in enumerate(arrivals):
            if arrival == turn:
                prompt = tuple((number * 7 + i) % 50 for i in range(length))
                scheduler.add(number, Request(prompt, SamplingParams(**params), limits), 0.0)
            if leaving == turn:
                scheduler.cancel(number, 0.0)
        loop.turn()
        turn += 1
    return "".join(line(step) + "\n" for step in runner.steps)


def line(step):
    copies = " ".join(f"{copy.source}>{copy.target}" for copy in step.copies)
    works = " ".join(
        f"{w.sequence}:{w.start}+{w.count}{'?' if w.is_pending else ''}@{','.join(map(str, w.blocks))}*{len(w.draws)}"
        for w in step.works
    )
    return f"{step.number} [{copies}] {works}"


@pytest.mark.parametrize("name", WORKLOADS)
def test_the_schedule_is_the_one_written_down(name, request):
    path = GOLDEN / f"{name}.txt"
    found = steps_of(*WORKLOADS[name])
    if request.config.getoption("--write-golden"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(found)
    assert found == path.read_text()
