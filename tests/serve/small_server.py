"""A server process around an echo that is held still, for tests of signals: python small_server.py JSON.

{"load": "quick" | "never" | "fails", "drain": seconds, "keys": a file, "saving": seconds that the engine takes to go}.
It takes no step before SIGUSR1, and gives up at SIGUSR2.
"""

import asyncio
import json
import signal
import sys
from dataclasses import replace
from pathlib import Path

from starlette.routing import Route, Router

from openwork.core.errors import EngineError, ModelError
from openwork.core.event import Finished, Token
from openwork.core.request import Limits, Request, SamplingParams
from openwork.core.settings import CacheSettings, ScheduleSettings
from openwork.core.terms import Tenants
from openwork.engine.face import Facts
from openwork.engine.loop import Loop
from openwork.engine.service import Engine
from openwork.kv.cache import KVCache
from openwork.schedule.scheduler import Scheduler
from openwork.serve.callers import Callers
from openwork.serve.errors import from_failure
from openwork.serve.keys import read_keys
from openwork.serve.listening import bind
from openwork.serve.logs import Log
from openwork.serve.metrics import Metrics
from openwork.serve.server import Server
from openwork.serve.settings import ServeSettings
from openwork.testing.echo import EchoRunner, VirtualClock, successor
from openwork.testing.local import LocalEngine

LIMITS = Limits(vocab_size=64, context=4096)


class Saving(LocalEngine):
    saving_s = 0.0
    why = ""

    def give_up(self):
        self.why = "it has had enough"
        self._state = "closed"
        self.engine.close()
        self.resume()
        self.wake()

    def status(self):
        return replace(super().status(), why=self.why)

    async def close(self):
        await super().close()
        await asyncio.sleep(self.saving_s)
        print("saved", flush=True)


async def open_engine(wish):
    if wish["load"] == "never":
        try:
            await asyncio.sleep(3600)
        finally:
            print("not loaded", flush=True)
    if wish["load"] == "fails":
        raise ModelError("cannot be used")
    cache, clock, tenants = CacheSettings(512), VirtualClock(), Tenants()
    runner = EchoRunner(cache, successor(LIMITS.vocab_size), clock)
    engine = Engine(Loop(Scheduler(ScheduleSettings(), KVCache(cache, tenants=tenants)), runner, clock))
    local = Saving(engine, Facts("echo", LIMITS, SamplingParams(), num_blocks=512), tenants)
    local.saving_s = wish["saving"]
    local.pause()
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, local.resume)
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR2, local.give_up)
    return local


def make_app(engine, more):
    async def stream(scope, receive, send):
        """Tokens as events, by the rules that every route follows."""
        params = SamplingParams(temperature=0, max_tokens=3)
        while (await receive()).get("more_body"):
            pass
        answer = await engine.submit(Request((1, 2), params, LIMITS, scope["state"]["caller"].terms()))
        gone = asyncio.create_task(receive())
        gone.add_done_callback(lambda _: answer.cancel())
        try:
            kind = [(b"content-type", b"text/event-stream")]
            await send({"type": "http.response.start", "status": 200, "headers": kind})
            await send({"type": "http.response.body", "body": b": begun\n\n", "more_body": True})
            while True:
                for event in await answer.take():
                    if isinstance(event, Token):
                        await send({"type": "http.response.body", "body": b"data: token\n\n", "more_body": True})
                    elif isinstance(event, Finished):
                        if event.reason != "length":
                            raise from_failure("closed")
                        return await send({"type": "http.response.body", "body": b"data: [DONE]\n\n"})
        finally:
            gone.cancel()

    class Endpoint:
        async def __call__(self, scope, receive, send):
            await stream(scope, receive, send)

    return Router([*more, Route("/v1/stream", Endpoint(), methods=["POST"])], redirect_slashes=False)


async def main(wish):
    settings = ServeSettings(port=0, drain_s=wish["drain"])
    keys_file = None if wish["keys"] is None else Path(wish["keys"])
    log = Log(sys.stderr, is_human=False)
    listener = bind(settings)
    log.write("listening", port=listener.getsockname()[1])
    server = Server(
        settings,
        Callers(None if keys_file is None else read_keys(keys_file), b"secret"),
        log,
        Metrics("echo"),
        open_engine=lambda: open_engine(wish),
        make_app=make_app,
        version="0",
        bounds={},
        keys_file=keys_file,
    )
    try:
        return await server.run(listener)
    except (ModelError, EngineError) as error:
        print(error, flush=True)
        return 1
    finally:
        listener.close()
        log.close()


if __name__ == "__main__":
    sys.exit(asyncio.run(main(json.loads(sys.argv[1]))))
