"""The engine's process is killed, crashes, hangs, fails: readers see a pause, and only the guilty an end."""

import asyncio
import os
import signal
from random import Random

import pytest
from faulty_worker import faulty
from remotely import answer, ask, failures, follow, remote, request, run, tokens, until

from openwork.core.constraint import Constraint
from openwork.core.errors import EngineUnavailable
from openwork.core.event import Admitted, Arrived, Ended, Finished, Preempted, Token

FATAL = 2046  # nobody's answer holds it


def mixed(i):
    """Parameters of stream i of sixteen: with seeds, some split in two, some with log-probabilities or a constraint."""
    return {
        "temperature": 0.9,
        "seed": i,
        "max_tokens": 150,
        "n": 2 if i % 5 == 1 else 1,
        "logprobs": 2 if i % 4 == 0 else None,
        "prompt_logprobs": 1 if i == 6 else None,
        "presence_penalty": 0.5 if i == 7 else 0.0,
        "constraint": Constraint.regex("[a-z ]{900}") if i % 5 == 1 or i == 8 else None,
    }


def prompt(i):
    return [1 + i, *range(10, 10 + 7 * i)]


async def sixteen(engine):
    return await asyncio.gather(*[ask(engine, *prompt(i), **mixed(i)) for i in range(16)])


def check_shape(events):
    """No reader notices more than a pause."""
    assert isinstance(events[0], Arrived) and isinstance(events[-1], Ended)
    assert sum(isinstance(event, Arrived | Ended) for event in events) == 2
    assert [event.time for event in events] == sorted(event.time for event in events)
    running = set()
    for event in events:
        if isinstance(event, Admitted):
            assert event.index not in running
            running.add(event.index)
        elif isinstance(event, Preempted):
            running.discard(event.index)


@pytest.fixture(scope="module")
def undisturbed():
    async def test():
        async with remote() as engine:
            return [answer(events) for events in await sixteen(engine)]

    found = run(test)
    assert all(choice.token != FATAL for lines, _, _ in found for line in lines.values() for _, choice in line)
    return found


def test_killed_at_random_moments_nothing_is_lost(undisturbed):
    run(lambda: killed(undisturbed, 0, 5))


def test_killed_fifty_times(undisturbed, is_long):
    if not is_long:
        pytest.skip("needs --long")
    for seed in range(10):
        run(lambda seed=seed: killed(undisturbed, 100 + seed, 5))


async def killed(undisturbed, seed, times):
    draw = Random(seed)
    async with remote(command=faulty("slow=0.002")) as engine:
        following = asyncio.ensure_future(sixteen(engine))
        for restart in range(times):
            steps = engine.status().steps + draw.randint(1, 30)
            await until(lambda steps=steps: engine.status().steps >= steps)
            os.kill(engine.pid, signal.SIGKILL)
            await until(lambda restart=restart: engine.status().restarts > restart)
            await until(lambda: engine.status().state == "ready")
        found = await following
        assert engine.status().restarts == times
        for events, whole in zip(found, undisturbed, strict=True):
            check_shape(events)
            assert answer(events) == whole
            assert "restart" in dict(events[-1].account.stalls)
        assert answer(await ask(engine, *prompt(3), **mixed(3))) == undisturbed[3]


def test_killed_while_requests_are_handed_over():
    """Those that were not accepted are handed over again, and their submit returns."""

    async def test():
        async with remote() as engine:
            whole = answer(await ask(engine, 1, 2))
            os.kill(engine.pid, signal.SIGSTOP)
            waiting = [asyncio.ensure_future(engine.submit(request(engine, 1, 2))) for _ in range(4)]
            await asyncio.sleep(0)
            waiting[0].cancel()
            os.kill(engine.pid, signal.SIGKILL)
            streams = await asyncio.gather(*waiting[1:])
            assert [answer(await follow(stream)) for stream in streams] == [whole] * 3
            with pytest.raises(asyncio.CancelledError):
                await waiting[0]

    run(test)


def test_cancelled_while_there_is_no_process():
    async def test():
        async with remote() as engine:
            one, two = [await engine.submit(request(engine, max_tokens=300, n=2)) for _ in range(2)]
            seen = [[], []]
            for stream, events in zip((one, two), seen, strict=True):
                while not any(isinstance(event, Token) for event in events):
                    events += await stream.take()
            os.kill(engine.pid, signal.SIGKILL)
            await until(lambda: engine.status().state == "restarting")
            one.cancel()
            two.cancel(1, "stop")
            first = seen[0] + await follow(one)
            assert [e.reason for e in first if isinstance(e, Finished)] == ["cancelled"] * 2
            second = seen[1] + await follow(two)
            assert {e.index: e.reason for e in second if isinstance(e, Finished)} == {0: "length", 1: "stop"}
            assert len(tokens(second)) == 300

    run(test)


# -- who is to blame -------------------------------------------------------------------------------------------------


async def among_neighbours(fault, undisturbed):
    """Sixteen streams, and one whose prompt holds the token that the fault is about. How the one ended."""
    async with remote(command=faulty(f"{fault}={FATAL}")) as engine:
        following = asyncio.ensure_future(sixteen(engine))
        await until(lambda: engine.status().steps > 5)
        events = await ask(engine, 5, FATAL, 6)
        for neighbour, whole in zip(await following, undisturbed, strict=True):
            check_shape(neighbour)
            assert answer(neighbour) == whole
        assert len(tokens(await ask(engine))) == 20
        return events, engine.status().restarts


def test_poison_is_quarantined_and_its_neighbours_are_not_touched(undisturbed):
    events, restarts = run(lambda: among_neighbours("abort", undisturbed))
    assert failures(events) == ["quarantined"] and isinstance(events[-1], Ended)
    assert [type(event) for event in events[:1]] == [Arrived] and not tokens(events)
    assert restarts == 2


def test_one_that_is_killed_wherever_it_runs_is_quarantined_too(undisturbed):
    events, restarts = run(lambda: among_neighbours("kill", undisturbed))
    assert failures(events) == ["quarantined"]
    assert restarts == 5  # twice among others, three times alone


def test_a_hang_is_ended_and_gone_on_from(undisturbed, tmp_path):
    async def test():
        async with remote(command=faulty(f"hang={FATAL}:{tmp_path / 'once'}"), hang_s=2.0) as engine:
            following = asyncio.ensure_future(asyncio.gather(*[ask(engine, *prompt(i), **mixed(i)) for i in range(4)]))
            await until(lambda: engine.status().steps > 5)
            events = await ask(engine, 5, FATAL, 6)
            assert len(tokens(events)) == 20
            assert [answer(each) for each in await following] == undisturbed[:4]
            assert engine.status().restarts == 1

    run(test)


def test_a_step_that_fails_ends_its_own_and_no_process(undisturbed):
    async def test():
        async with remote(command=faulty(f"fail={FATAL}")) as engine:
            assert failures(await ask(engine, 5, FATAL, 6)) == ["step"]
            assert answer(await ask(engine, *prompt(2), **mixed(2))) == undisturbed[2]
            assert engine.status().restarts == 0

    run(test)


def test_a_process_that_talks_nonsense_is_replaced():
    async def test():
        async with remote() as engine:
            whole = answer(await ask(engine, max_tokens=30))
        async with remote(command=faulty("garbage=8")) as engine:
            assert answer(await ask(engine, max_tokens=30)) == whole
            assert engine.status().restarts >= 2

    run(test)


def test_new_requests_wait_while_a_suspect_runs_alone():
    async def test():
        async with remote(command=faulty(f"abort={FATAL}")) as engine:
            poison = asyncio.ensure_future(ask(engine, 5, FATAL, 6))
            await until(lambda: engine.status().restarts >= 1 and engine.status().state == "ready")
            others = await asyncio.gather(*[ask_again(engine, i) for i in range(4)])
            assert [len(tokens(events)) for events in others] == [20] * 4
            assert failures(await poison) == ["quarantined"]

    run(test)


async def ask_again(engine, *prompt):
    """Ask until the engine takes it: the suspect may end it once more between any two looks at its state."""
    while True:
        try:
            return await ask(engine, *prompt)
        except EngineUnavailable:
            await asyncio.sleep(0.005)
