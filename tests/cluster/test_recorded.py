"""A served engine is recorded in its own process: over kills one recording, and each request once."""

import asyncio
import os
import signal

import pytest
from faulty_worker import faulty
from remotely import ask_named, remote, run, tokens, until

from openwork.core.errors import TraceError
from openwork.core.settings import RecordSettings
from openwork.core.terms import Tenant, Terms
from openwork.trace.entry import Began, Replaced
from openwork.trace.recording import Recording
from openwork.trace.replay.schedule import check


async def eight(engine, count=60):
    asked = [ask_named(engine, f"cmpl-{i}", 1 + i, *range(20), n=1 + (i == 3), max_tokens=count) for i in range(8)]
    return await asyncio.gather(*asked)


@pytest.mark.parametrize("keeps_prompts", [True, False])
def test_requests_that_outlive_their_process_are_one_in_the_recording(keeps_prompts, tmp_path):
    async def test():
        record = RecordSettings(directory=str(tmp_path), keeps_prompts=keeps_prompts)
        async with remote(command=faulty("slow=0.002"), record=record) as engine:
            following = asyncio.ensure_future(eight(engine))
            await until(lambda: engine.status().steps > 10)
            os.kill(engine.pid, signal.SIGKILL)
            answers = await following
            await until(lambda: (engine.status().recorded or record) and engine.status().recorded is not None)
            assert engine.status().recorded.is_on and engine.status().restarts == 1
            return answers

    answers = run(test)
    recording = Recording.open(tmp_path)
    stories = {story.id: story for story in recording.requests()}
    assert recording.damage == () and len(stories) == 8
    for i, events in enumerate(answers):
        story = stories[f"cmpl-{i}"]
        assert story.is_whole and story.is_over and story.lives == 2 and story.has_tokens == keeps_prompts
        for index, line in story.lines.items():
            given = tokens(events, index)
            assert len(line.tokens) == len(given) == 60 and line.finish_reason == "length"
            assert not keeps_prompts or (line.tokens == given and None not in line.row_hashes)
    assert check(recording.entries()).is_equal


def test_new_tenants_are_recorded(tmp_path):
    async def test():
        async with remote(record=RecordSettings(directory=str(tmp_path))) as engine:
            engine.replace_tenants({"ann": Tenant(weight=2.0)})
            await ask_named(engine, "resp_1", 1, 2, terms=Terms(tenant="ann"))

    run(test)
    entries = list(Recording.open(tmp_path).entries())
    assert [each.tenants for each in entries if isinstance(each, Replaced)] == [{"ann": Tenant(weight=2.0)}]
    assert [each.tenants for each in entries if isinstance(each, Began)] == [{}]


def test_a_cache_that_was_brought_back_is_a_part_of_the_recording(tmp_path):
    async def test():
        record = RecordSettings(directory=str(tmp_path / "record"), keeps_prompts=True)
        async with remote(record=record, cache_dir=str(tmp_path / "cache")) as engine:
            await ask_named(engine, f"cmpl-{engine.restored}", *range(1, 60))

    run(test)
    run(test)
    recording = Recording.open(tmp_path / "record")
    first, second = recording.requests()
    assert first.cached == 0 < second.cached and first.lines[0].tokens == second.lines[0].tokens
    assert check(recording.entries()).is_equal


def test_nowhere_to_record_is_said_before_anything_is_served(tmp_path):
    (tmp_path / "file").write_text("")

    async def test():
        async with remote(record=RecordSettings(directory=str(tmp_path / "file" / "below"))):
            pass

    with pytest.raises(TraceError, match="nothing can be recorded"):
        run(test)


def test_a_later_process_that_cannot_record_serves_all_the_same(tmp_path):
    place = tmp_path / "here"

    async def test():
        async with remote(record=RecordSettings(directory=str(place), keeps_prompts=True)) as engine:
            await ask_named(engine, "a", 1, 2)
            for path in place.iterdir():
                path.unlink()
            place.rmdir()
            place.write_text("")
            os.kill(engine.pid, signal.SIGKILL)
            await until(lambda: engine.status().restarts == 1 and engine.status().state == "ready")
            events = await ask_named(engine, "b", 1, 2)
            await until(lambda: engine.status().recorded is not None and not engine.status().recorded.is_on)
            return tokens(events, 0), engine.status().recorded

    given, recorded = run(test)
    assert len(given) == 20 and recorded.num_failures == 1 and "recording stopped" in recorded.why_off
