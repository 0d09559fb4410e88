"""The engine in its own process, over the real model: the same answers, true words on its health, nothing left."""

import asyncio
import gc
import os
import shutil
import signal
import subprocess
import sys
import threading
import time

import pytest
from faulty_worker import faulty
from remotely import answer, ask, descriptors, failures, follow, is_alive, remote, request, run, tokens, until

import openwork
from openwork import LLM, SamplingParams
from openwork.cluster.remote import RemoteEngine, Service
from openwork.core.errors import EngineError, EngineUnavailable, MemoryTooSmall, ModelError, Overloaded, RequestError
from openwork.core.event import Admitted, Arrived, Ended, Finished, Prefilled, Token
from openwork.core.settings import AdmissionSettings, LoadSettings, ScheduleSettings
from openwork.core.terms import Tenant, Terms

PROMPTS = [(1, 2, 3), (7,) * 40, tuple(range(100)), (5, 6)]


def test_the_same_tokens_as_in_this_process():
    params = [
        SamplingParams(temperature=0, max_tokens=30),
        SamplingParams(temperature=0.9, seed=3, max_tokens=30, n=3, logprobs=4),
        SamplingParams(temperature=1.0, seed=5, top_p=0.9, max_tokens=10, prompt_logprobs=2),
        SamplingParams(max_tokens=0, prompt_logprobs=0),
    ]
    with LLM() as llm:
        local = llm.generate(PROMPTS, params)

    async def test():
        async with remote() as engine:
            from openwork.core.request import Request

            wanted = [Request(p, how, engine.facts.limits) for p, how in zip(PROMPTS, params, strict=True)]
            streams = [await engine.submit(each) for each in wanted]
            return [answer(await follow(stream)) for stream in streams]

    for output, (lines, ends, prompt_logprobs) in zip(local, run(test), strict=True):
        for completion in output.completions:
            choices = [choice for _, choice in lines.get(completion.index, [])]
            assert completion.token_ids == tuple(choice.token for choice in choices)
            assert ends[completion.index][0] == completion.finish_reason
            if completion.logprobs is not None:
                assert completion.logprobs == tuple(choice.logprob for choice in choices)
        assert output.prompt_logprobs == prompt_logprobs


def test_events_are_those_of_one_engine_and_status_counts_them():
    async def test():
        async with remote() as engine:
            assert engine.status().state == "ready" and engine.status().last_step_age_s is None
            events = await ask(engine, *range(40), max_tokens=5)
            assert [type(event) for event in events] == [
                Arrived,
                Admitted,
                Prefilled,
                *[Token] * 5,
                Finished,
                Ended,
            ]
            assert [e.time for e in events] == sorted(e.time for e in events)
            await until(lambda: engine.status().running == 0)
            status = engine.status()
            assert (status.steps, status.rows, status.prefix_queries, status.prefix_hits) == (5, 44, 40, 0)
            again = await ask(engine, *range(40), max_tokens=5)
            assert tokens(again) == tokens(events)
            assert engine.status().prefix_hits == again[-1].account.cached > 0

    run(test)


def test_what_is_wrong_is_refused_with_the_engines_own_words():
    async def test():
        options = {"admission": AdmissionSettings(max_blocks=4, max_waiting=1), "schedule": ScheduleSettings(64, 1)}
        async with remote(command=faulty("slow=0.01"), **options) as engine:
            with pytest.raises(RequestError) as wrong:
                await engine.submit(request(engine, *range(100)))
            assert wrong.value.hint
            running = await engine.submit(request(engine, max_tokens=50))
            await running.take()
            while not isinstance((await running.take())[-1], Token):
                pass
            waiting = await engine.submit(request(engine, 9))
            with pytest.raises(Overloaded) as full:
                await engine.submit(request(engine, 9))
            assert not full.value.is_own
            running.cancel()
            assert len(tokens(await follow(waiting))) == 20

    run(test)


def test_a_cancel_ends_a_stream_within_a_step_and_twice_is_once():
    async def test():
        async with remote() as engine:
            stream = await engine.submit(request(engine, max_tokens=400, n=2))
            while not any(isinstance(event, Token) for event in await stream.take()):
                pass
            stream.cancel(1, "stop")
            stream.cancel(1)
            events = await follow(stream)
            reasons = {e.index: e.reason for e in events if isinstance(e, Finished)}
            assert reasons == {0: "length", 1: "stop"}

    run(test)


def test_a_storm_of_cancels_leaves_nothing_behind():
    async def test():
        async with remote(schedule=ScheduleSettings(64, 8)) as engine:

            async def one(i):
                task = asyncio.ensure_future(engine.submit(request(engine, i % 50, max_tokens=100, n=1 + i % 3)))
                if i % 5 == 0:
                    await asyncio.sleep(0)
                    task.cancel()
                    with pytest.raises(asyncio.CancelledError):
                        await task
                    return None
                stream = await task
                if i % 5 < 3:
                    await asyncio.sleep(0.001 * (i % 7))
                    stream.cancel(*([0] if i % 2 else []))
                return await follow(stream)

            found = await asyncio.gather(*[one(i) for i in range(200)])
            assert all(isinstance(events[-1], Ended) for events in found if events)
            await until(lambda: engine.status().running == engine.status().waiting == 0)
            await until(lambda: engine.status().gauges.private == engine.status().gauges.shared == 0)
            assert engine.status().last_step_age_s is None
            assert engine.status().restarts == 0

    run(test)


def test_tokens_are_not_kept_from_others_by_a_reader_that_does_not_read():
    async def test():
        async with remote() as engine:
            slow = await engine.submit(request(engine, max_tokens=300))
            quick = await ask(engine, 5, max_tokens=300)
            assert len(tokens(quick)) == 300
            assert len(tokens(await follow(slow))) == 300

    run(test)


def test_tenants_are_replaced_and_stay_so_over_a_restart():
    async def test():
        mine = Terms(tenant="mine")
        async with remote({"mine": Tenant(max_running=1)}, command=faulty("slow=0.01")) as engine:

            async def refused():
                streams = [await engine.submit(request(engine, max_tokens=100, terms=mine)) for _ in range(2)]
                try:
                    await streams[0].take()
                    streams.append(await engine.submit(request(engine, max_tokens=100, terms=mine)))
                except Overloaded as error:
                    return error.is_own
                finally:
                    for stream in streams:
                        stream.cancel()
                        await follow(stream)
                return False

            assert not await refused()
            engine.replace_tenants({"mine": Tenant(max_running=1, max_waiting=1)})
            assert await refused()
            os.kill(engine.pid, signal.SIGKILL)
            await until(lambda: engine.status().restarts == 1 and engine.status().state == "ready")
            assert await refused()

    run(test)


def test_a_pin_keeps_what_is_cached():
    async def test():
        async with remote() as engine:
            wanted = request(engine, *range(50), max_tokens=2)
            await follow(await engine.submit(wanted))
            assert await engine.pin(wanted, range(50), 60) == 48
            await ask(engine, 9, max_tokens=1)
            await until(lambda: engine.status().gauges.pinned == 3)

    run(test)


# -- health ----------------------------------------------------------------------------------------------------------


def test_the_age_of_the_last_step_is_true_while_the_process_is_stopped():
    async def test():
        async with remote() as engine:
            stream = await engine.submit(request(engine, max_tokens=400))
            await stream.take()
            os.kill(engine.pid, signal.SIGSTOP)
            await until(lambda: engine.status().last_step_age_s > 0.5)
            os.kill(engine.pid, signal.SIGCONT)
            await follow(stream)
            assert engine.status().last_step_age_s is None
            assert engine.status().restarts == 0

    run(test)


def test_an_idle_engine_that_gets_work_is_not_taken_for_stuck():
    async def test():
        async with remote(hang_s=1.0) as engine:
            await ask(engine)
            await asyncio.sleep(1.6)
            assert len(tokens(await ask(engine))) == 20
            assert engine.status().restarts == 0

    run(test)


def test_there_is_no_engine_while_it_loads_restarts_drains_or_has_ended():
    async def test():
        engine = RemoteEngine(Service())
        with pytest.raises(EngineUnavailable):
            _ = engine.facts
        start = asyncio.ensure_future(engine.start())
        await asyncio.sleep(0)
        assert engine.status().state == "loading"
        await start
        wanted = request(engine)
        states = []

        async def refused():
            with pytest.raises(EngineUnavailable) as error:
                await engine.submit(wanted)
            states.append((error.value.state, engine.status().state, error.value.retry_after_s is not None))

        os.kill(engine.pid, signal.SIGKILL)
        await until(lambda: engine.status().state != "ready")
        await refused()
        await until(lambda: engine.status().state == "ready")
        assert await engine.drain(1)
        await refused()
        await engine.close()
        await refused()
        assert states == [("restarting",) * 2 + (True,), ("draining",) * 2 + (False,), ("closed",) * 2 + (False,)]

    run(test)


# -- loading ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({"model": "/nowhere/at/all"}, ModelError),
        ({"load": LoadSettings(kv_cache_bytes=1)}, MemoryTooSmall),
        ({"command": faulty("refuse")}, MemoryTooSmall),
    ],
)
def test_what_keeps_a_model_from_loading_is_told(options, kind):
    async def test():
        command = {"command": options["command"]} if "command" in options else {}
        engine = RemoteEngine(Service(**{k: v for k, v in options.items() if k != "command"}), **command)
        with pytest.raises(kind):
            await engine.start()
        assert engine.status().state == "closed" and engine.pid is None

    run(test)


def test_a_process_that_dies_of_loading_is_given_up():
    async def test():
        engine = RemoteEngine(Service(), command=faulty("stillborn"))
        with pytest.raises(EngineError, match="in a row"):
            await engine.start()
        assert engine.status().state == "closed"

    run(test)


def test_an_engine_that_cannot_come_back_ends_every_stream(tmp_path):
    async def test():
        async with remote(command=faulty(f"refuse={tmp_path / 'now'}", "slow=0.01")) as engine:
            streams = [await engine.submit(request(engine, max_tokens=300)) for _ in range(3)]
            await streams[0].take()
            (tmp_path / "now").touch()
            os.kill(engine.pid, signal.SIGKILL)
            for stream in streams:
                assert failures(await follow(stream)) == ["closed"]
            assert engine.status().state == "closed"
            with pytest.raises(EngineUnavailable):
                await engine.submit(request(engine))

    run(test)


def test_a_model_whose_files_changed_is_not_gone_on_with(tmp_path):
    stories = os.path.join(os.path.dirname(openwork.__file__), "stories")
    model = shutil.copytree(stories, tmp_path / "stories")

    async def test():
        async with remote(model=str(model), command=faulty("slow=0.01")) as engine:
            stream = await engine.submit(request(engine, max_tokens=300))
            await stream.take()
            weights = bytearray((model / "model.safetensors").read_bytes())
            weights[-2] ^= 1
            (model / "model.safetensors").write_bytes(weights)
            os.kill(engine.pid, signal.SIGKILL)
            events = await follow(stream)
            assert failures(events) == ["closed"] and "files changed" in events[-2].message

    run(test)


def test_progress_is_heard():
    heard = []

    async def test():
        engine = RemoteEngine(Service(), progress=lambda *said: heard.append(said))
        await engine.start()
        await engine.close()

    run(test)
    assert heard and all(0 <= done <= total for _, done, total in heard)


# -- ends ------------------------------------------------------------------------------------------------------------


def test_draining_waits_for_what_runs_and_takes_nothing_new():
    async def test():
        async with remote(command=faulty("slow=0.005")) as engine:
            stream = await engine.submit(request(engine, max_tokens=30))
            assert not await engine.drain(0.01)
            with pytest.raises(EngineUnavailable):
                await engine.submit(request(engine))
            assert await engine.drain(30)
            assert len(tokens(await follow(stream))) == 30

    run(test)


def test_closing_ends_every_stream_once_and_leaves_nothing():
    async def test():
        before = descriptors(), threading.active_count(), len(asyncio.all_tasks())
        for _ in range(3):
            async with remote(command=faulty("slow=0.01")) as engine:
                streams = [await engine.submit(request(engine, max_tokens=200, n=1 + i % 2)) for i in range(6)]
                await streams[0].take()
                pid = engine.pid
                await engine.close()
                for i, stream in enumerate(streams):
                    assert failures(await follow(stream)) == ["closed"] * (1 + i % 2)
            assert not is_alive(pid) and engine.pid is None
        gc.collect()
        assert (descriptors(), threading.active_count(), len(asyncio.all_tasks())) == before
        with pytest.raises(ChildProcessError):
            os.waitpid(-1, os.WNOHANG)

    run(test)


@pytest.mark.parametrize("moment", [0.0, 0.05, 0.3])
def test_closing_while_it_loads(moment):
    async def test():
        engine = RemoteEngine(Service())
        start = asyncio.ensure_future(engine.start())
        await asyncio.sleep(moment)
        pid = engine.pid
        await engine.close()
        await asyncio.wait([start])
        assert start.done() and (pid is None or not is_alive(pid))
        _ = start.exception()

    run(test)


def test_closing_while_it_restarts_and_twice_at_once():
    async def test():
        async with remote() as engine:
            stream = await engine.submit(request(engine, max_tokens=400))
            await stream.take()
            os.kill(engine.pid, signal.SIGKILL)
            await until(lambda: engine.status().state == "restarting")
            await asyncio.gather(engine.close(), engine.close())
            assert failures(await follow(stream)) == ["closed"]
            assert engine.pid is None

    run(test)


def test_signals_for_the_group_are_left_to_the_parent():
    async def test():
        async with remote() as engine:
            pid = engine.pid
            for number in (signal.SIGTERM, signal.SIGINT):
                os.kill(pid, number)
            assert len(tokens(await ask(engine))) == 20
            assert engine.pid == pid

    run(test)


PARENT = """
import asyncio, sys
from openwork.cluster.remote import RemoteEngine, Service
from faulty_worker import faulty
from remotely import request
async def main():
    engine = RemoteEngine(Service(), command=faulty(sys.argv[1]))
    await engine.start()
    stream = await engine.submit(request(engine, max_tokens=400))
    await stream.take()
    print(engine.pid, flush=True)
    await asyncio.sleep(3600)
asyncio.run(main())
"""


@pytest.mark.parametrize("fault", ["slow=0.01", "deaf=3"])
def test_the_process_ends_with_its_parent(fault):
    here = os.path.dirname(os.path.dirname(__file__))
    paths = os.pathsep.join([here, *filter(None, sys.path)])
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, fault],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": paths},
    )
    try:
        pid = int(parent.stdout.readline())
        assert is_alive(pid)
    finally:
        parent.kill()
        parent.wait()
        parent.stdout.close()
    deadline = time.monotonic() + 30
    while is_alive(pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not is_alive(pid)
