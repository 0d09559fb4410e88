"""The edge alone, on a real socket in a thread of this process, around a handful of routes; and ways to knock at it."""

import asyncio
import io
import json
import socket
import threading
import time
from contextlib import contextmanager, suppress

from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Route, Router

from openwork.core.errors import EngineUnavailable
from openwork.core.request import Limits, Request, SamplingParams
from openwork.core.settings import CacheSettings, ScheduleSettings
from openwork.core.terms import Tenants
from openwork.engine.face import Facts, Status
from openwork.engine.loop import Loop
from openwork.engine.service import Engine
from openwork.kv.cache import KVCache
from openwork.schedule.scheduler import Scheduler
from openwork.serve.callers import Callers
from openwork.serve.door import Door
from openwork.serve.gate import Gate
from openwork.serve.journal import Journal
from openwork.serve.listening import Listener, bind
from openwork.serve.logs import Log
from openwork.serve.metrics import Metrics
from openwork.serve.operations import operations
from openwork.serve.settings import HttpLimits, ServeSettings
from openwork.testing.echo import EchoRunner, VirtualClock, successor
from openwork.testing.local import LocalEngine

QUICK = HttpLimits(header_s=5, body_s=5, idle_s=5, write_s=5, linger_s=1)
LIMITS = Limits(vocab_size=64, context=4096)


def local_engine(num_blocks=512, tenants=None):
    cache, clock, tenants = CacheSettings(num_blocks), VirtualClock(), tenants or Tenants()
    runner = EchoRunner(cache, successor(LIMITS.vocab_size), clock)
    engine = Engine(Loop(Scheduler(ScheduleSettings(), KVCache(cache, tenants=tenants)), runner, clock))
    return LocalEngine(engine, Facts("echo", LIMITS, SamplingParams(), num_blocks=num_blocks), tenants)


class Desk:
    """What the operations ask for, to be set by a test."""

    def __init__(self, settings, metrics):
        self.settings = settings
        self.metrics = metrics
        self.said = Status("ready")

    def status(self):
        return self.said

    def facts(self):
        return None

    def metrics_page(self):
        return self.metrics.page()


class Edge:
    """A gate, a listener and what they wrote."""

    def __init__(self, http=QUICK, keys=None, routes=(), **settings):
        self.settings = ServeSettings(port=0, http=http, **settings)
        self.metrics = Metrics("echo")
        self.written = io.StringIO()
        self.log = Log(self.written, is_human=False)
        self.callers = Callers(keys, b"secret")
        self.desk = Desk(self.settings, self.metrics)
        self.operations = operations(self.desk, "1.2.3", {"n": 16})
        self.routes = [*self.operations, *routes]
        self.journal = Journal(self.log, self.metrics, self.routes)
        self.gate = Gate(Router(self.routes, redirect_slashes=False), Door(self.settings), self.callers, self.journal)
        self.socket = bind(self.settings)
        self.port = self.socket.getsockname()[1]
        self.listener = Listener(self.gate, self.settings, self.journal)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._started = threading.Event()

    def __enter__(self):
        self._thread.start()
        assert self._started.wait(20)
        return self

    def __exit__(self, *exc):
        self.listener.should_exit = True
        self._thread.join(20)
        assert not self._thread.is_alive()
        self.log.close()

    def _run(self):
        asyncio.run(self._serve())

    async def _serve(self):
        self.loop = asyncio.get_running_loop()
        self.loop.set_exception_handler(self.journal.loop_failed)
        self._started.set()
        await self.listener.serve([self.socket])

    def call(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(20)

    def dial(self, receive_bytes=None):
        client = socket.socket()
        client.settimeout(20)
        if receive_bytes is not None:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        client.connect(("127.0.0.1", self.port))
        return client

    def send(self, *parts):
        """Send bytes and read to the end: the answers, in order."""
        with self.dial() as client:
            for part in parts:
                with suppress(ConnectionError):  # it may refuse before all was sent
                    client.sendall(part)
            return Answers(read_all(client))

    def events(self, kind=None):
        """The lines of the log, all of them JSON; nothing is written afterwards."""
        self.log.close()
        return self._lines(kind)

    def wait_for(self, kind):
        """The lines of a kind, of which there will be one in a moment."""
        for _ in range(2000):
            if lines := self._lines(kind):
                return lines
            time.sleep(0.01)
        raise AssertionError(f"nothing was written of {kind}")

    def _lines(self, kind):
        lines = [json.loads(line) for line in self.written.getvalue().splitlines(keepends=True) if line.endswith("\n")]
        return [line for line in lines if kind is None or line["event"] == kind]


def read_all(client):
    got = bytearray()
    with suppress(ConnectionError):
        while data := client.recv(65536):
            got += data
    return bytes(got)


class Answers:
    """What came back on one connection, taken apart by hand."""

    def __init__(self, raw):
        self.raw = raw
        self.all = []
        while raw.startswith(b"HTTP/1.1 "):
            head, _, raw = raw.partition(b"\r\n\r\n")
            status = int(head[9:12])
            fields = [line.partition(b": ")[::2] for line in head.split(b"\r\n")[1:]]
            headers = {name.decode().lower(): value.decode("latin-1") for name, value in fields}
            assert len(headers) == len(fields), "a header twice"
            size = int(headers.get("content-length", 0))
            body, raw = raw[:size], raw[size:]
            self.all.append((status, headers, body))
        self.rest = raw

    @property
    def statuses(self):
        return [status for status, _, _ in self.all]

    def only(self):
        """The one answer there is."""
        assert len(self.all) == 1 and not self.rest, self.raw[:2000]
        return self.all[0]

    def error(self, status):
        """The error of the one answer, which is checked to be one in every respect."""
        got, headers, body = self.only()
        assert got == status, self.raw
        assert headers["content-type"] == "application/json"
        assert headers["x-request-id"].startswith("req-")
        error = json.loads(body)["error"]
        assert set(error) == {"message", "type", "param", "code"}
        assert error["message"] and "Traceback" not in error["message"] and "/" not in error["type"]
        return error, headers


def post(body=b'{"a": 1}', path=b"/v1/echo", *headers, kind=b"application/json", close=True):
    lines = [b"POST %s HTTP/1.1" % path, b"Host: localhost", *headers]
    lines += [b"Content-Type: " + kind] if kind else []
    lines += [b"Connection: close"] if close else []
    if not any(line.lower().startswith((b"content-length", b"transfer-encoding")) for line in headers):
        lines.append(b"Content-Length: %d" % len(body))
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def get(path=b"/health", *headers, host=b"localhost", close=True):
    lines = [b"GET %s HTTP/1.1" % path, b"Host: %s" % host, *headers]
    if close:
        lines.append(b"Connection: close")
    return b"\r\n".join(lines) + b"\r\n\r\n"


# -- routes


async def echo(request):
    body = await request.body()
    return JSONResponse({"size": len(body), "tenant": request.scope["state"]["caller"].tenant})


async def explode(request):
    raise ValueError("canary-7f3a: what a client said")


async def loading(request):
    raise EngineUnavailable("no /path/of/ours", state="loading")


class Slow:
    """An answer that waits until it is let go, and knows whether its client went."""

    def __init__(self):
        self.begun = threading.Event()
        self.gone = threading.Event()
        self.may_end = threading.Event()

    async def plain(self, scope, receive, send):
        while (await receive()).get("more_body"):
            pass
        self.begun.set()
        gone = asyncio.ensure_future(receive())
        while not self.may_end.is_set():
            if gone.done():
                assert gone.result()["type"] == "http.disconnect"
                self.gone.set()
                return
            await asyncio.sleep(0.01)
        gone.cancel()
        await JSONResponse({"ok": True})(scope, receive, send)

    async def stream(self, scope, receive, send):
        async def events():
            yield b"data: 1\n\n"
            self.begun.set()
            try:
                while not self.may_end.is_set():
                    await asyncio.sleep(0.01)
            except (asyncio.CancelledError, GeneratorExit):
                self.gone.set()
                raise
            yield b"data: [DONE]\n\n"

        while (await receive()).get("more_body"):
            pass
        await StreamingResponse(events(), media_type="text/event-stream")(scope, receive, send)

    async def flood(self, scope, receive, send):
        """More than any buffer holds."""
        await send({"type": "http.response.start", "status": 200, "headers": []})
        self.begun.set()
        try:
            while not self.may_end.is_set():
                await send({"type": "http.response.body", "body": b"x" * 20_000, "more_body": True})
                await asyncio.sleep(0)
        except OSError:
            self.gone.set()


class Raw:
    """An ASGI function as a route's endpoint."""

    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        await self.app(scope, receive, send)


def routes(slow=None):
    table = [
        Route("/v1/echo", echo, methods=["POST"]),
        Route("/v1/chat/completions", echo, methods=["POST"]),
        Route("/v1/explode", explode, methods=["GET", "POST"]),
        Route("/v1/loading", loading, methods=["GET"]),
    ]
    if slow is not None:
        for name in ("plain", "stream", "flood"):
            table.append(Route(f"/v1/{name}", Raw(getattr(slow, name)), methods=["POST"]))
    return table


@contextmanager
def edge(slow=None, **options):
    with Edge(routes=routes(slow), **options) as it:
        yield it


def request_of(tokens=3, prompt=(1, 2, 3), **terms):
    return Request(prompt, SamplingParams(temperature=0, max_tokens=tokens), LIMITS, **terms)
