"""openwork serve: a model behind OpenAI's API, for as many as come.

Everything that can be wrong about the command, its keys and its address is found before a model is loaded. What it
does is in serve/ and cluster/; here is what may be asked for, and how it is wired together.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from openwork.cli import limits, options, terminal
from openwork.cli.options import Backend, Dtype, KVDtype
from openwork.cli.progress import Bars
from openwork.cli.quantity import in_bytes, parse_bytes
from openwork.core.errors import OpenworkError, RequestError
from openwork.core.settings import AdmissionSettings, LoadSettings, ScheduleSettings

if TYPE_CHECKING:
    from starlette.routing import BaseRoute

    from openwork.cluster.remote import RemoteEngine
    from openwork.cluster.service import Service
    from openwork.engine.face import AsyncEngine, Facts
    from openwork.serve.bounds import Bounds
    from openwork.serve.callers import Callers
    from openwork.serve.gate import App
    from openwork.serve.logs import Log
    from openwork.serve.settings import ServeSettings

app = typer.Typer(add_completion=False, rich_markup_mode="rich")


class Order(StrEnum):
    first_come = "first-come"
    priority = "priority"
    deadline = "deadline"


class First(StrEnum):
    decode = "decode"
    prefill = "prefill"


class LogFormat(StrEnum):
    auto = "auto"
    json = "json"
    human = "human"


_WHERE, _WHO, _WHEN, _LAST = "Where it listens", "Who may come", "Whose turn it is", "How long things may take"


def _option(help: str, panel: str, *names: str, **more: Any) -> Any:
    return typer.Option(*names, help=help, rich_help_panel=panel, **more)


Host = Annotated[str, _option("The address to listen on.", _WHERE)]
Port = Annotated[int, _option("The port; 0 takes any free one.", _WHERE)]
Name = Annotated[
    str | None,
    _option("The name of the model in requests. [dim]Default: as in --model.[/]", _WHERE, show_default=False),
]
AllowedHost = Annotated[
    list[str] | None,
    _option("A name under which it may be reached, beside this machine's own. May be given again.", _WHERE),
]
CorsOrigin = Annotated[
    list[str] | None,
    _option("A web origin whose pages may use it, such as https://app.example. May be given again.", _WHERE),
]
Logs = Annotated[LogFormat, _option("Lines on standard error. auto: JSON, unless somebody watches.", _WHERE)]
ApiKeys = Annotated[
    Path | None,
    _option("A TOML file of tenants and the hashes of their keys. SIGHUP reads it again.", _WHO, metavar="FILE"),
]
NewKey = Annotated[
    str | None, _option("Print a new key, and the lines for the file; then end.", _WHO, metavar="TENANT")
]
Anyone = Annotated[
    bool, _option("Without --api-keys, listen on addresses that other machines reach, all the same.", _WHO, "--anyone")
]
OrderOption = Annotated[Order, _option("Who is served first, among those who wait.", _WHEN, "--order")]
Fair = Annotated[
    bool | None,
    _option(
        "Tenants take turns by the tokens they were served. [dim]Default: with --api-keys.[/]",
        _WHEN,
        "--fair/--no-fair",
        show_default=False,
    ),
]
FirstOption = Annotated[First, _option("What a step is filled with first.", _WHEN, "--first")]
TargetItl = Annotated[
    float | None, _option("Seconds between two tokens of a stream that steps are cut to.", _WHEN, "--target-itl")
]
MaxRunning = Annotated[int, _option("Sequences that are computed together.", _WHEN)]
MaxStepTokens = Annotated[int, _option("Tokens in one step: longer prompts come in chunks.", _WHEN)]
MaxQueue = Annotated[int, _option("Requests that may wait; more are told 503.", _WHEN)]
MaxQueueTokens = Annotated[int, _option("Prompt tokens that may wait.", _WHEN)]
CacheDir = Annotated[
    Path | None,
    _option("Keep the prefix cache here over a restart.", "The model", metavar="DIR"),
]
RequestDeadline = Annotated[float, _option("Seconds for a whole request; then 504.", _LAST)]
Drain = Annotated[float, _option("Seconds that running requests have after SIGTERM.", _LAST)]
Hang = Annotated[float, _option("Seconds without a step after which the engine is started again.", _LAST)]
Limit = Annotated[
    list[str] | None,
    _option("NAME=VALUE, a bound of /v1/limits: body_bytes=1MiB. May be given again.", _LAST, "--limit"),
]


@app.command()
def serve(
    model: options.Model = None,
    host: Host = "127.0.0.1",
    port: Port = 8000,
    served_model_name: Name = None,
    allowed_host: AllowedHost = None,
    cors_origin: CorsOrigin = None,
    log_format: Logs = LogFormat.auto,
    api_keys: ApiKeys = None,
    new_key: NewKey = None,
    anyone: Anyone = False,
    dtype: options.WeightType = Dtype.auto,
    kv_dtype: options.KVType = KVDtype.auto,
    kv_cache_bytes: options.CacheSize = None,
    context: options.Context = None,
    threads: options.Threads = None,
    backend: options.Engine = Backend.auto,
    weight_cache: options.WeightCache = True,
    cache_dir: CacheDir = None,
    order: OrderOption = Order.first_come,
    fair: Fair = None,
    first: FirstOption = First.decode,
    target_itl: TargetItl = None,
    max_running: MaxRunning = 128,
    max_step_tokens: MaxStepTokens = 512,
    max_queue: MaxQueue = 512,
    max_queue_tokens: MaxQueueTokens = 1_000_000,
    request_deadline: RequestDeadline = 600.0,
    drain: Drain = 30.0,
    hang: Hang = 60.0,
    limit: Limit = None,
) -> int:
    """Serve a model to clients of OpenAI's API.

    It listens at once, says 503 while the model is loaded, and then serves until SIGTERM or Ctrl-C: running requests
    have --drain seconds to end, and a second signal ends them at once. docs/serving.md tells the rest.

    \b
    [bold]openwork serve[/]                                            the embedded model, for this machine only
    [bold]openwork serve --model ./checkpoint --dtype int8 --port 9000[/]
    [bold]openwork serve --new-key alice >> keys.toml[/]                the key itself goes to the terminal
    [bold]openwork serve --api-keys keys.toml --host 0.0.0.0[/]         for others, each with a key
    """
    if new_key is not None:
        _print_key(new_key)
        return 0
    load = LoadSettings(
        dtype=dtype.value,
        kv_dtype=kv_dtype.value,
        cache=weight_cache,
        kv_cache_bytes=None if kv_cache_bytes is None else parse_bytes(kv_cache_bytes, "kv_cache_bytes"),
        threads=threads,
        context=context,
        backend=backend.value,
    )
    is_fair = api_keys is not None if fair is None else fair
    schedule = ScheduleSettings(
        max_step_tokens=max_step_tokens,
        max_running=max_running,
        order=order.value,  # type: ignore[arg-type]
        is_fair=is_fair,
        first=first.value,  # type: ignore[arg-type]
        next_token_s=target_itl,
    )
    admission = AdmissionSettings(max_waiting=max_queue, max_waiting_tokens=max_queue_tokens)
    from openwork.cluster.service import Service
    from openwork.serve.settings import ServeSettings

    http, bounds = limits.parse_limits(limit or (), request_deadline)
    settings = ServeSettings(
        host=host,
        port=port,
        allowed_hosts=tuple(allowed_host or ()),
        cors_origins=tuple(cors_origin or ()),
        drain_s=drain,
        stall_s=hang,
        http=http,
    )
    if api_keys is None and not anyone and not settings.is_loopback:
        raise RequestError(
            f"{host} is reached from other machines, and without keys anybody there could use this server",
            "Give --api-keys FILE (--new-key NAME makes a key), or say --anyone.",
            param="host",
        )
    directory = None if cache_dir is None else str(cache_dir)
    service = Service(model, load, schedule, admission, served_model_name, directory, hang_s=hang)
    return _Wiring(settings, service, bounds, api_keys, cache_dir, log_format).run()


def _print_key(tenant: str) -> None:
    """The key for whoever will use it, on standard error if the file's lines go elsewhere."""
    from openwork.serve.keys import is_valid_name, new_key

    if not is_valid_name(tenant):
        raise RequestError(
            f"must be up to 64 of A-Z a-z 0-9 . _ - and begin plainly, not {tenant[:80]!r}", param="new_key"
        )
    key, entry = new_key()
    terminal.write(f"# the key of {tenant}, shown this once: {key}\n", sys.stderr)
    terminal.write(f'[tenants.{tenant}]\nkeys = ["{entry}"]\n')


class _Wiring:
    """Everything a server needs, put together; ``run`` serves until it ends and gives the exit code."""

    def __init__(
        self,
        settings: ServeSettings,
        service: Service,
        bounds: Bounds,
        keys_file: Path | None,
        cache_dir: Path | None,
        log_format: LogFormat,
    ) -> None:
        from openwork.serve.listening import bind

        self._settings = settings
        self._service = service
        self._bounds = bounds
        self._keys_file = keys_file
        self._is_watched = terminal.is_terminal(sys.stderr)
        self._is_human = log_format is LogFormat.human or (log_format is LogFormat.auto and self._is_watched)
        self._callers = _callers(keys_file, cache_dir)
        self._socket = bind(settings)
        self._address = self._socket.getsockname()[:2]
        self._closers: list[Callable[[], None]] = []

    def run(self) -> int:
        from openwork import __version__
        from openwork.load.source import EMBEDDED
        from openwork.serve.logs import Log
        from openwork.serve.metrics import Metrics
        from openwork.serve.server import Server

        log = Log(sys.stderr, self._is_human)
        self._warn(log)
        log.write("listening", host=self._address[0], port=self._address[1])
        name = self._service.name or str(self._service.model or EMBEDDED)

        async def live() -> int:
            server = Server(
                self._settings,
                self._callers,
                log,
                Metrics(name),
                open_engine=self._open_engine,
                make_app=self._make_app,
                version=__version__,
                bounds=asdict(self._bounds),
                keys_file=self._keys_file,
                on_ready=self._announce,
            )
            return await server.run(self._socket)

        try:
            return asyncio.run(live())
        finally:
            self._socket.close()
            for close in self._closers:
                close()
            log.close()

    async def _open_engine(self) -> RemoteEngine:
        from openwork.cluster.remote import RemoteEngine

        with Bars() as bars:
            engine = RemoteEngine(self._service, progress=bars)
            await engine.start()
        return engine

    def _make_app(self, engine: AsyncEngine, more: Sequence[BaseRoute]) -> App:
        from openwork.serve.app import Service, make_app

        service = Service(engine, self._bounds)
        self._closers.append(service.close)
        return make_app(service, more)

    def _warn(self, log: Log) -> None:
        if self._keys_file is not None:
            from openwork.serve.keys import is_readable_by_others

            if is_readable_by_others(self._keys_file):
                log.write("keys_file", "warning", said="others can read it", hint="chmod 600")
        elif not self._settings.is_loopback:
            log.write("open_to_anyone", "warning", said="whoever reaches this address may use it")

    def _announce(self, engine: AsyncEngine) -> None:
        if self._is_watched:
            has_keys = self._keys_file is not None
            terminal.write(startup_text(engine.facts, self._address, self._bounds, has_keys), sys.stderr)


def startup_text(facts: Facts, address: tuple[str, int], bounds: Bounds, has_keys: bool) -> str:
    """What is served, where, and a line to try it with."""
    host = f"[{address[0]}]" if ":" in address[0] else address[0]
    url = f"http://{host}:{address[1]}/v1"
    slots = facts.num_blocks * facts.block_size
    key = " -H 'Authorization: Bearer KEY'" if has_keys else ""
    body = f'{{"model": "{facts.model}", "prompt": "Once upon a time", "max_tokens": 50}}'
    return (
        f"\n  {facts.model} in {facts.dtype}, {facts.threads} threads\n"
        f"  {url}\n"
        f"  context {facts.limits.context} tokens; the cache holds {slots} in {facts.num_blocks} blocks "
        f"({facts.kv_dtype})\n"
        f"  bodies up to {in_bytes(int(bounds.body_bytes))}; all bounds: GET /v1/limits\n\n"
        f"  curl {url}/completions{key} -H 'Content-Type: application/json' \\\n    -d '{body}'\n\n"
    )


def _callers(keys_file: Path | None, cache_dir: Path | None) -> Callers:
    from openwork.serve.callers import Callers
    from openwork.serve.keys import read_keys
    from openwork.serve.secret import server_secret

    keys = None if keys_file is None else read_keys(keys_file)
    if keys_file is not None and not str(keys_file).strip():
        raise OpenworkError("--api-keys is empty")
    return Callers(keys, server_secret(cache_dir))
