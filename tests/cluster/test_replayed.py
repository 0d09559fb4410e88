"""What was served by engine processes that were killed is derived again, bit for bit, from one recording."""

import asyncio
import os
import signal

from faulty_worker import faulty
from remotely import ask_named, remote, run, until

from openwork.build import examiner
from openwork.core.constraint import Constraint
from openwork.core.settings import LoadSettings, RecordSettings
from openwork.trace.entry import Began
from openwork.trace.recording import Recording
from openwork.trace.replay.bits import replay

WAYS = (
    {"temperature": 0.0},
    {"temperature": 0.9, "n": 2},
    {"temperature": 1.2, "frequency_penalty": 0.5, "repetition_penalty": 1.1},
    {"temperature": 0.8, "constraint": Constraint.regex("[a-z ]{300}")},
    {"temperature": 0.7, "logit_bias": {300: 4.0}, "top_p": 0.9},
)


def test_requests_that_outlive_two_processes_are_equal(tmp_path):
    async def ten(engine):
        asked = [
            ask_named(engine, f"cmpl-{i}", 1 + i, *range(30), seed=i, max_tokens=50, **WAYS[i % len(WAYS)])
            for i in range(10)
        ]
        return await asyncio.gather(*asked)

    async def test():
        record = RecordSettings(directory=str(tmp_path), keeps_prompts=True, layers=2)
        async with remote(command=faulty("slow=0.004"), record=record) as engine:
            following = asyncio.ensure_future(ten(engine))
            for death in (1, 2):
                begun = engine.status().steps
                await until(lambda begun=begun: engine.status().steps > begun + 10)
                os.kill(engine.pid, signal.SIGKILL)
                await until(lambda death=death: engine.status().restarts == death and engine.status().state == "ready")
            await following

    run(test)
    recording = Recording.open(tmp_path)
    assert recording.damage == ()
    began = {entry.run: entry for entry in recording.entries() if isinstance(entry, Began)}
    assert len(began) == 3 and len({each.weights for each in began.values()}) == 1
    stories = recording.requests()
    context = stories[0].request.limits.context
    examines = examiner(None, LoadSettings(threads=2, context=context), contract_id=began[0].contract_id)
    for story in stories:
        verdict = replay(examines, began[story.run], story)
        assert verdict.equal and verdict.unhashed == 0, verdict
        assert verdict.tokens == sum(len(line.tokens) for line in story.lines.values()) >= 50
        stamps = [stamp for line in story.lines.values() for stamp in line.stamps]
        assert 1 / 3 < stamps.count(None) / len(stamps) < 2 / 3  # of whichever process
    assert sum(story.lives for story in stories) == 30
