"""An engine in another process, under test: started and closed around a test, its streams followed to their ends."""

import asyncio
import os
from contextlib import asynccontextmanager

from openwork.cluster.remote import RemoteEngine, Service
from openwork.core.event import Ended, Finished, Token
from openwork.core.request import Request, SamplingParams

PATIENCE_S = 60.0  # after which a test that waits has failed; nothing here takes a tenth of it


def run(test):
    """Run a coroutine function to its end, or fail when it hangs."""

    async def bounded():
        async with asyncio.timeout(PATIENCE_S):
            return await test()

    return asyncio.run(bounded())


@asynccontextmanager
async def remote(tenants=None, **options):
    command = {"command": options.pop("command")} if "command" in options else {}
    engine = RemoteEngine(Service(**options), tenants, **command)
    await engine.start()
    try:
        yield engine
    finally:
        await engine.close()


def request(engine, *prompt, terms=None, **params):
    how = SamplingParams(**{"temperature": 0.0, "max_tokens": 20, "ignore_eos": True, **params})
    more = {} if terms is None else {"terms": terms}
    return Request(prompt or (1, 2, 3), how, engine.facts.limits, **more)


async def follow(stream):
    """Every event of a stream."""
    events = []
    while not (events and isinstance(events[-1], Ended)):
        events += await stream.take()
    return events


async def ask(engine, *prompt, **params):
    return await follow(await engine.submit(request(engine, *prompt, **params)))


async def ask_named(engine, name, *prompt, **params):
    return await follow(await engine.submit(request(engine, *prompt, **params), name))


def answer(events):
    """What a reader gets of it: by sequence the choices and why they ended, and the log-probabilities of the prompt."""
    lines = {}
    for event in events:
        if isinstance(event, Token):
            lines.setdefault(event.index, []).append((event.position, event.choice))
    ends = {event.index: (event.reason, event.stop_id) for event in events if isinstance(event, Finished)}
    assert sum(isinstance(event, Ended) for event in events) == 1
    return lines, ends, events[-1].prompt_logprobs


def tokens(events, index=0):
    return [event.choice.token for event in events if isinstance(event, Token) and event.index == index]


def failures(events):
    return [event.failure for event in events if isinstance(event, Finished)]


async def until(condition):
    """Wait until something is so."""
    while not condition():
        await asyncio.sleep(0.005)


def is_alive(pid):
    """Whether a process runs; one that has ended and is not yet reaped does not."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def descriptors():
    return sorted(os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd") if _exists(fd))


def _exists(fd):
    return os.path.lexists(f"/proc/self/fd/{fd}")
