"""The API over an engine in this process, for tests: a client that is sent to it, and one that can go away.

The gate is not there; what it does with an error is done here in the same way: a status, or the last event of a stream.
"""

import asyncio
import json
from contextlib import asynccontextmanager

import httpx

from openwork.build import build
from openwork.core.request import Limits, SamplingParams
from openwork.core.settings import AdmissionSettings, CacheSettings, LoadSettings, ScheduleSettings
from openwork.engine.face import Facts
from openwork.engine.loop import Loop
from openwork.engine.service import Engine
from openwork.kv.cache import KVCache
from openwork.schedule.scheduler import Scheduler
from openwork.serve.app import Service, make_app
from openwork.serve.bounds import Bounds
from openwork.serve.callers import Caller
from openwork.serve.errors import from_exception
from openwork.testing.byte_tokenizer import SPECIALS, VOCAB_SIZE
from openwork.testing.echo import EchoRunner, VirtualClock
from openwork.testing.local import LocalEngine

MODEL = "openwork/stories"
ECHO = "echo"
USER = [{"role": "user", "content": "once upon"}]


def stories_engine(directory=None):
    """The embedded model, or the one in a directory."""
    load = LoadSettings(kv_cache_bytes=32 << 20, threads=1, cache=False)
    built = build(None if directory is None else str(directory), load, ScheduleSettings())
    info = built.info
    facts = Facts(MODEL, built.limits, built.generation.as_params(), info.directory, info.contract_id)
    return LocalEngine(built.engine, facts)


def echo_engine(directory, says, context=4096, num_blocks=400, **runner):
    """An engine that answers every prompt with the text ``says``, byte by byte, and ends.

    How much was said already is how much of the text the tokens end with, so no prompt may end as it begins.
    """
    tokens = [len(SPECIALS) + byte for byte in says.encode()] + [2]

    def rule(known, index):
        for said in range(min(len(known), len(tokens) - 1), 0, -1):
            if list(known[-said:]) == tokens[:said]:
                return tokens[said]
        return tokens[0]

    cache, clock = CacheSettings(num_blocks), VirtualClock()
    scheduler = Scheduler(ScheduleSettings(512, 128), KVCache(cache), AdmissionSettings(**runner.pop("bounds", {})))
    engine = Engine(Loop(scheduler, EchoRunner(cache, rule, clock, **runner), clock))
    limits = Limits(VOCAB_SIZE, context, frozenset({2}))
    return LocalEngine(engine, Facts(ECHO, limits, SamplingParams(temperature=0.0), str(directory)))


class Gatekeeper:
    """Answers what a route raises, and says who calls."""

    def __init__(self, app, caller=None):
        self.app, self.caller = app, caller or Caller()

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http":
            return
        scope["state"] = {"caller": self.caller, "request_id": "req-1"}
        has_begun = False

        async def watched(message):
            nonlocal has_begun
            has_begun = True
            await send(message)

        try:
            await self.app(scope, receive, watched)
        except Exception as raised:
            error = from_exception(raised, "req-1")
            body = json.dumps(error.body()).encode()
            if has_begun:
                await send({"type": "http.response.body", "body": b"data: " + body + b"\n\n"})
                return
            names = {**error.all_headers(), "content-type": "application/json"}
            raw = [(name.encode(), value.encode()) for name, value in names.items()]
            await send({"type": "http.response.start", "status": error.status, "headers": raw})
            await send({"type": "http.response.body", "body": body})


class Api:
    """An engine, its application, and a loop to run both in."""

    def __init__(self, engine, bounds=None, caller=None, **options):
        self.engine = engine
        self.model = engine.facts.model
        self.service = Service(engine, bounds or Bounds(), **options)
        self.app = Gatekeeper(make_app(self.service), caller)
        self._runner = asyncio.Runner()

    def run(self, coroutine):
        return self._runner.run(coroutine)

    def close(self):
        self.run(self.engine.close())
        self.service.close()
        self._runner.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    async def send(self, path, body=None, method="POST", **fields):
        """A dictionary is completed with the model's name; bytes are sent as they are."""
        if not isinstance(body, bytes) and method == "POST":
            body = json.dumps({"model": self.model, **(body or {}), **fields}).encode()
        transport = httpx.ASGITransport(self.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test", timeout=60) as client:
            return await client.request(method, path, content=body, headers={"content-type": "application/json"})

    def post(self, path, body=None, **fields):
        return self.run(self.send(path, body, **fields))

    def complete(self, **fields):
        return self.post("/v1/completions", fields)

    def chat(self, **fields):
        return self.post("/v1/chat/completions", {"messages": USER, **fields})

    def get(self, path):
        return self.run(self.send(path, method="GET"))

    @property
    def is_at_rest(self):
        gauges, _ = self.engine.engine.gauges()
        return self.engine.engine.num_requests == 0 and gauges.private + gauges.shared == 0

    async def rest(self, seconds=10.0):
        """Until nothing is held any more."""
        async with asyncio.timeout(seconds):
            while not self.is_at_rest:
                await asyncio.sleep(0.001)


class Client:
    """One request as ASGI, by a client that can leave; ``async with`` ends it."""

    def __init__(self, api, path, body):
        self.sent, self.status = b"", None
        self._api, self._gone, self._has_body = api, asyncio.Event(), False
        self._news = asyncio.Event()
        self._content = json.dumps({"model": api.model, **body}).encode()
        self._scope = {
            "type": "http",
            "method": "POST",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "headers": [(b"content-type", b"application/json")],
        }

    async def __aenter__(self):
        self.task = asyncio.create_task(self._api.app(self._scope, self._receive, self._send))
        return self

    async def __aexit__(self, *_):
        self.leave()
        async with asyncio.timeout(10):
            await asyncio.gather(self.task, return_exceptions=True)

    def leave(self):
        self._gone.set()

    async def until(self, text):
        """Wait until this was sent."""
        async with asyncio.timeout(10):
            while text not in self.sent:
                self._news.clear()
                await self._news.wait()

    async def _receive(self):
        if not self._has_body:
            self._has_body = True
            return {"type": "http.request", "body": self._content, "more_body": False}
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message):
        if self._gone.is_set():
            raise ConnectionResetError
        self.status = message.get("status", self.status)
        self.sent += message.get("body", b"")
        self._news.set()


def events(text):
    """The data of the events of a stream; the end mark as it is."""
    blocks = [line.removeprefix("data: ") for line in text.split("\n") if line.startswith("data: ")]
    return [block if block == "[DONE]" else json.loads(block) for block in blocks]


@asynccontextmanager
async def paused(engine):
    engine.pause()
    try:
        yield
    finally:
        engine.resume()
