"""openwork serve: a model behind OpenAI's API, for as many as come.

Everything that can be wrong about the command, its keys and its address is found before a model is loaded. What it
does is in serve/ and cluster/; here is what may be asked for, and how it is wired together.
"""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from openwork.cli import limits, options, terminal
from openwork.cli.options import Backend, Dtype, KVDtype
from openwork.cli.quantity import parse_bytes
from openwork.core.errors import RequestError
from openwork.core.settings import (
    RECORD_BYTES,
    AdmissionSettings,
    LoadSettings,
    RecordSettings,
    ScheduleSettings,
    SpeculationSettings,
)

app = typer.Typer(add_completion=False, rich_markup_mode="rich")
MAX_LOGPROBS_OF_A_REQUEST = 1_000_000  # each becomes some fifty bytes of JSON, and passes through two processes


class LogFormat(StrEnum):
    auto = "auto"
    json = "json"
    human = "human"


_WHERE, _WHO, _WHEN, _LAST = "Where it listens", "Who may come", "Whose turn it is", "How long things may take"
_REPLIES = "How replies are read"


def _option(help: str, panel: str, *names: str, **more: Any) -> Any:
    return typer.Option(*names, help=help, rich_help_panel=panel, **more)


class ToolFormat(StrEnum):
    auto = "auto"
    none = "none"
    hermes = "hermes"
    llama = "llama"
    mistral = "mistral"
    pythonic = "pythonic"


class ReasoningFormat(StrEnum):
    auto = "auto"
    none = "none"
    think = "think"
    bracket_think = "bracket-think"


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
OrderOption = Annotated[options.Order, _option("Who is served first, among those who wait.", _WHEN, "--order")]
Fair = Annotated[
    bool | None,
    _option(
        "Tenants take turns by the tokens they were served. [dim]Default: with --api-keys.[/]",
        _WHEN,
        "--fair/--no-fair",
        show_default=False,
    ),
]
FirstOption = Annotated[options.First, _option("What a step is filled with first.", _WHEN, "--first")]
TargetItl = Annotated[
    float | None, _option("Seconds between two tokens of a stream that steps are cut to.", _WHEN, "--target-itl")
]
Stretch = Annotated[
    float,
    _option(
        "How many times as long a step may take because of a prompt, while others wait for a token; 0: no bound.", _WHEN
    ),
]
ToolForm = Annotated[
    ToolFormat, _option("How the model writes tool calls. [dim]auto: as its chat template shows.[/]", _REPLIES)
]
ReasoningForm = Annotated[
    ReasoningFormat, _option("How it marks reasoning. [dim]auto: as its chat template shows.[/]", _REPLIES)
]
MaxRunning = Annotated[int, _option("Sequences that are computed together.", _WHEN)]
MaxStepTokens = Annotated[int, _option("Tokens in one step: longer prompts come in chunks.", _WHEN)]
MaxQueue = Annotated[int, _option("Requests that may wait; more are told 503.", _WHEN)]
MaxQueueTokens = Annotated[int, _option("Prompt tokens that may wait.", _WHEN)]
CacheDir = Annotated[
    Path | None,
    _option("Keep the prefix cache here over a restart.", "The model", metavar="DIR"),
]
AllowSee = Annotated[
    bool,
    _option(
        "Serve the microscope at /see: each tenant looks into its own requests. Needs --record and --record-prompts.",
        "Recording",
        "--allow-see",
    ),
]
RecordPrompts = Annotated[
    bool,
    _option(
        "Keep prompts and answers in the recording: without it nothing there says what was written, and a request's "
        "bits cannot be replayed.",
        "Recording",
        "--record-prompts",
    ),
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
    speculate: options.Speculate = None,
    max_draft: options.MaxDraft = None,
    cache_dir: CacheDir = None,
    record: options.Record = None,
    record_prompts: RecordPrompts = False,
    record_bytes: options.RecordBytes = None,
    record_layers: options.RecordLayers = None,
    allow_see: AllowSee = False,
    tool_format: ToolForm = ToolFormat.auto,
    reasoning_format: ReasoningForm = ReasoningFormat.auto,
    order: OrderOption = options.Order.first_come,
    fair: Fair = None,
    first: FirstOption = options.First.decode,
    target_itl: TargetItl = None,
    stretch: Stretch = 1.7,
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
        order=order.value,
        is_fair=is_fair,
        first=first.value,
        next_token_s=target_itl,
        stretch=stretch or None,
        speculation=SpeculationSettings.wished(speculate, max_draft),
    )
    admission = AdmissionSettings(
        max_waiting=max_queue, max_waiting_tokens=max_queue_tokens, max_logprobs=MAX_LOGPROBS_OF_A_REQUEST
    )
    from openwork.cli.serving import Serving
    from openwork.cluster.supervisor import Service
    from openwork.serve.settings import ServeSettings

    http, bounds = limits.parse_limits(limit or (), request_deadline)
    settings = ServeSettings(
        host=host,
        port=port,
        allowed_hosts=tuple(allowed_host or ()),
        cors_origins=tuple(cors_origin or ()),
        drain_s=drain,
        stall_s=hang,
        allow_see=allow_see,
        http=http,
    )
    if api_keys is None and not anyone and not settings.is_loopback:
        raise RequestError(
            f"{host} is reached from other machines, and without keys anybody there could use this server",
            "Give --api-keys FILE (--new-key NAME makes a key), or say --anyone.",
            param="host",
        )
    directory = None if cache_dir is None else str(cache_dir)
    if allow_see and not (record is not None and record_prompts):
        raise RequestError(
            "looks into a recording that keeps prompts",
            "Give --record DIR and --record-prompts too.",
            param="allow_see",
        )
    recording = None
    if record is not None:
        room = RECORD_BYTES if record_bytes is None else parse_bytes(record_bytes, "record_bytes")
        recording = RecordSettings(
            directory=str(record), keeps_prompts=record_prompts, max_bytes=room, layers=record_layers
        )
    service = Service(
        model=model,
        load=load,
        schedule=schedule,
        admission=admission,
        name=served_model_name,
        cache_dir=directory,
        record=recording,
        hang_s=hang,
    )
    forms = (tool_format.value, reasoning_format.value)
    return Serving(settings, service, bounds, forms, api_keys, cache_dir, log_format.value).run()


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
