"""An incident, staged and explained: tenants share one engine, one of them gets into the others' way; who, and how?

    python examples/incident.py [memory | prompts | evictions] [DIR]

The engine is recorded while it serves the embedded model. The report is written from the recording alone: the schedule
is replayed, each long wait is laid to what filled the steps it lasted for, and what might have helped is simulated.
Prompts are not kept; who held which block and whose tokens came again is known all the same.
"""

import sys
import tempfile
from pathlib import Path
from random import Random

from openwork import SamplingParams
from openwork.build import wire
from openwork.cli.report import as_text
from openwork.core.request import Request
from openwork.core.settings import AdmissionSettings, LoadSettings, RecordSettings, ScheduleSettings
from openwork.core.terms import Tenants, Terms
from openwork.engine.loop import Loop
from openwork.engine.service import Engine
from openwork.trace.recording import Recording
from openwork.trace.report.incident import report
from openwork.wiring import make_recorder

BLOCK_BYTES = 48 << 10  # keys and values of 16 tokens
DRAW = Random(1)


def words(count):
    return tuple(DRAW.randrange(300, 2000) for _ in range(count))


def memory():
    """A tenant's long answers need more blocks than there are: (arrivals, blocks)."""
    chats = [(0.02 * i, "chat", words(20), 120) for i in range(6)]
    return chats + [(0.05 + 0.005 * i, "batch", words(150), 220) for i in range(12)], 96


def prompts():
    """Long prompts of one tenant come between the tokens of another."""
    chats = [(0.0, "chat", words(30), 400) for _ in range(4)]
    return chats + [(0.1 + 0.12 * i, "reports", words(500), 4) for i in range(6)], 512


def evictions():
    """A tenant sends long texts five at a time, and what the other's conversations had cached is gone each time."""
    told = [words(300) for _ in range(6)]
    chats = [(0.1 * i, "chat", (*told[i % 6], *words(10)), 2) for i in range(24)]
    return chats + [(0.65 + 0.6 * (i // 5), "crawler", words(440), 30) for i in range(15)], 150


INCIDENTS = {"memory": memory, "prompts": prompts, "evictions": evictions}


def serve(directory, arrivals, num_blocks):
    """Serve (seconds, tenant, prompt, tokens) when they come, and record it."""
    load = LoadSettings(context=512, kv_cache_bytes=num_blocks * BLOCK_BYTES)
    wired = wire(None, load, ScheduleSettings(), AdmissionSettings(), Tenants())
    recorder = make_recorder(RecordSettings(directory=str(directory)), wired, print)
    engine = Engine(Loop(wired.scheduler, wired.runner, wired.clock, recorder))
    began, left = wired.clock.now(), sorted(arrivals, reverse=True)
    while left or not engine.is_idle:
        while left and began + left[-1][0] <= wired.clock.now():
            _, tenant, prompt, count = left.pop()
            params = SamplingParams(max_tokens=count, ignore_eos=True)
            engine.submit(Request(prompt, params, wired.limits, Terms(tenant=tenant)))
        if engine.is_idle:
            wired.clock.wait(began + left[-1][0])
        else:
            engine.turn()
    engine.close()


def main(name="prompts", directory=None):
    with tempfile.TemporaryDirectory() as scratch:
        where = Path(directory or scratch)
        serve(where, *INCIDENTS[name]())
        print(as_text(report(Recording.open(where).entries())))


if __name__ == "__main__":
    main(*sys.argv[1:])
