"""The microscope's process: it answers as a desk here does, it may die of what it is asked, and nobody else notices."""

import asyncio
import os
import signal
import sys

import looked_into
import pytest
from looked_into import ALONE
from remotely import is_alive, run

from openwork.cli.lighting import LOOKER, light
from openwork.cluster import glass
from openwork.cluster.glass import Glass
from openwork.cluster.looking import Open
from openwork.core.errors import EngineUnavailable, Overloaded, RequestError
from openwork.core.request import Limits
from openwork.core.settings import LoadSettings
from openwork.trace.recording import Recording
from openwork.trace.view.desk import Desk, Question

LOAD = LoadSettings(threads=1)
SLOW = """
import sys, time
from openwork.cli import looker
from openwork.trace.view.desk import Desk
answer = Desk.answer
def slowly(self, question):
    if question.path == "slow":
        self._told("prefill", 3, 10)
        time.sleep(100)
    return answer(self, question)
Desk.answer = slowly
sys.exit(looker.main(sys.argv[1:]))
"""
TAKES_LONG = Question(kind="document", id=ALONE, path="slow", tenant="alice")
IS_QUICK = Question(kind="whose", id=ALONE)


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return looked_into.record(tmp_path_factory.mktemp("recording"))


@pytest.fixture
def opened(directory):
    """Makes glasses, and closes them."""
    made = []

    def make(command=(sys.executable, "-c", SLOW), **how):
        made.append(Glass(command, lambda: Open(str(directory), None, LOAD, "", 1 << 28), **how))
        return made[-1]

    yield make
    for each in made:
        each.close()
        assert each.pid is None


async def until(is_so):
    while not is_so():
        await asyncio.sleep(0.01)


def test_it_answers_as_a_desk_in_this_process_does(directory, opened):
    desk = Desk(lambda: Recording.open(directory), lambda: light(None, LOAD, "", 1 << 28))
    asked = [
        IS_QUICK,
        Question(kind="whose", id="nobody"),
        Question(kind="requests"),
        Question(kind="requests", tenant="alice"),
        *(Question(kind="document", id=ALONE, path=path) for path in ("request", "row/0/30", "layer/0/30/2")),
        Question(kind="fork", id=ALONE, position=31, token=5, limits=Limits(2048, 512)),
        Question(kind="texts", tokens=(5, 600)),
    ]

    async def test():
        it = opened(LOOKER)
        for question in asked:
            assert await it.ask(question) == desk.answer(question), question
        with pytest.raises(RequestError) as failure:
            await it.ask(Question(kind="document", id=ALONE, tenant="alice", path="request"))
        assert failure.value.param == "id"
        assert os.getpriority(os.PRIO_PROCESS, it.pid) > os.getpriority(os.PRIO_PROCESS, 0)

    run(test)


def test_killed_while_it_computes_it_is_started_anew_for_the_next(opened):
    async def test():
        it = opened()
        asking = asyncio.create_task(it.ask(TAKES_LONG))
        await until(lambda: it.far("alice", ALONE) == ("prefill", 3, 10))
        assert it.far("bob", ALONE) == it.far("alice", "other") == ("", 0, 0)
        first = it.pid
        os.kill(first, signal.SIGKILL)
        with pytest.raises(EngineUnavailable):
            await asking
        assert (await it.ask(IS_QUICK)).tenant == "" and it.pid != first
        assert it.far("alice", ALONE) == ("", 0, 0)

    run(test)


def test_what_takes_too_long_is_ended_and_the_rest_is_answered(opened):
    async def test():
        it = opened()
        await it.ask(IS_QUICK)
        first, it._deadline_s = it.pid, 0.1
        with pytest.raises(EngineUnavailable):
            await it.ask(TAKES_LONG)
        assert not is_alive(first)
        it._deadline_s = 60.0
        assert (await it.ask(IS_QUICK)).tenant == ""

    run(test)


def test_it_ends_when_nobody_asks_and_at_once_when_it_is_closed(opened):
    async def test():
        it = opened(idle_s=0.05)
        await it.ask(IS_QUICK)
        await until(lambda: it.pid is None)
        asking = asyncio.create_task(it.ask(TAKES_LONG))
        await until(lambda: it.far("alice", ALONE)[2])
        busy = it.pid
        it.close()
        assert not is_alive(busy)
        with pytest.raises(EngineUnavailable):
            await asking
        with pytest.raises(EngineUnavailable):
            await it.ask(IS_QUICK)

    run(test)


def test_who_leaves_is_not_answered_and_only_so_many_wait(opened, monkeypatch):
    monkeypatch.setattr(glass, "MOST_WAITING", 3)

    async def test():
        it = opened()
        await it.ask(IS_QUICK)
        it._deadline_s = 0.5
        asking = [asyncio.create_task(it.ask(TAKES_LONG)) for _ in range(3)]
        await until(lambda: it.far("alice", ALONE)[2])
        with pytest.raises(Overloaded):
            await it.ask(IS_QUICK)
        for task in asking:
            task.cancel()
        await asyncio.wait(asking)
        await until(lambda: not it._asking)  # the first was given up at its time; the others were never asked
        assert it._num_asked == 2
        it._deadline_s = 60.0
        assert (await it.ask(IS_QUICK)).tenant == ""

    run(test)


def test_a_program_that_cannot_be_started_is_no_answer(opened):
    async def test():
        for command in (("/nowhere/at/all",), (sys.executable, "-c", "raise SystemExit(3)")):
            with pytest.raises(EngineUnavailable):
                await opened(command).ask(IS_QUICK)

    run(test)
