"""openwork trace check, what-if, timeline, export: what a recording can be asked beside what is in it."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from openwork.cli import options, terminal
from openwork.cli.long import reading
from openwork.core.errors import RequestError

if TYPE_CHECKING:
    from openwork.trace.entry import Entry
    from openwork.trace.recording import Recording

Directory = Annotated[Path, typer.Argument(metavar="DIR", help="Where --record wrote.", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="One JSON object.")]


class Switch(StrEnum):
    on = "on"
    off = "off"


class Form(StrEnum):
    json = "json"
    perfetto = "perfetto"
    mooncake = "mooncake"


def add_to(app: typer.Typer) -> None:
    """Let these be subcommands of another one."""
    app.command("check")(check)
    app.command("what-if")(what_if)
    app.command("timeline")(timeline)
    app.command("export")(export)


def lines_of(directory: Path) -> Iterator[Entry]:
    """The lines of a recording; what is damaged is said once, on standard error, where one sees how far it is. Raises
    TraceError."""
    from openwork.trace.recording import Recording

    recording = Recording.open(directory)
    if recording.damage:
        terminal.show_warning(f"{len(recording.damage)} parts cannot be read; the first: {recording.damage[0]}")
    return _watched(recording)


def _watched(recording: Recording) -> Iterator[Entry]:
    with reading() as told:
        yield from recording.entries(told)


def check(directory: Directory, as_json: Json = False) -> None:
    """Does the scheduler decide again what it decided? Replays every step; exit status 1 when one comes out otherwise.

    \b
    [bold]openwork trace check recording/[/]
    """
    from openwork.trace.schedule import check as check_schedule

    checked = check_schedule(lines_of(directory))
    if as_json:
        document = {
            "equal": checked.is_equal,
            "processes": checked.processes,
            "steps": checked.steps,
            "requests": checked.requests,
            "unread": checked.unread,
            "since": list(checked.since),
            "gaps": list(checked.gaps),
            "differences": [str(each) for each in checked.differences],
        }
        terminal.write(json.dumps(document, ensure_ascii=False) + "\n")
    else:
        terminal.write(
            f"{checked.steps} steps of {checked.requests} requests in {checked.processes} engine processes replayed: "
            f"{'all equal' if not checked.differences else 'a difference'}\n"
        )
        for unix_s in checked.since:
            begin = f"{datetime.fromtimestamp(unix_s):%Y-%m-%d %H:%M:%S}"
            terminal.write(f"replayed from a picture of {begin} on: what was before is not in the recording\n")
        for text in (*map(str, checked.differences), *checked.gaps):
            terminal.write(f"{text}\n")
        if checked.unread:
            terminal.write(f"{checked.unread} lines could not be compared\n")
    if not checked.is_equal:
        raise typer.Exit(1)


def what_if(
    directory: Directory,
    prefix_cache: Annotated[Switch | None, typer.Option(help="Keep what sequences leave behind.")] = None,
    kv_blocks: Annotated[str | None, typer.Option(help="Blocks of the cache: 2000, or 0.5x as many.")] = None,
    step_rows: Annotated[int | None, typer.Option(help="Rows of a step at most.")] = None,
    max_running: Annotated[int | None, typer.Option(help="Sequences that hold blocks at most.")] = None,
    policy: Annotated[options.Order | None, typer.Option(help="Who comes first.")] = None,
    fair: Annotated[bool | None, typer.Option("--fair/--unfair", help="Tenants take turns.")] = None,
    first: Annotated[options.First | None, typer.Option(help="What a step is filled with first.")] = None,
    stretch: Annotated[str | None, typer.Option(help="How long a step with prompts may take: 1.5, or none.")] = None,
    next_token_ms: Annotated[str | None, typer.Option(help="Time between tokens to keep: 50, or none.")] = None,
    as_json: Json = False,
) -> None:
    """The recorded requests under other settings: what would have come of them, simulated, and how far to trust it.

    \b
    [bold]openwork trace what-if recording/ --kv-blocks 0.5x[/]
    [bold]openwork trace what-if recording/ --prefix-cache off --json[/]
    [bold]openwork trace what-if recording/ --fair --step-rows 256[/]
    """
    from openwork.cli.tables import what_if_table
    from openwork.trace.whatif import Change
    from openwork.trace.whatif import what_if as ask

    blocks, factor = _blocks(kv_blocks)
    bounds = {"stretch": _bound("stretch", stretch), "next_token_s": _bound("next_token_ms", next_token_ms)}
    if bounds["next_token_s"]:
        bounds["next_token_s"] /= 1000
    given: dict[str, Any] = {name: value for name, value in bounds.items() if value}
    change = Change(
        prefix=None if prefix_cache is None else prefix_cache is Switch.on,
        blocks=blocks,
        blocks_factor=factor,
        max_step_tokens=step_rows,
        max_running=max_running,
        order=None if policy is None else policy.value,
        is_fair=fair,
        first=None if first is None else first.value,
        unbounded=frozenset(name for name, value in bounds.items() if value == 0),
        **given,
    )
    document = ask(lines_of(directory), change)
    text = json.dumps(document, ensure_ascii=False) + "\n" if as_json else what_if_table(document)
    terminal.write(text)


def timeline(
    directory: Directory,
    first: Annotated[int, typer.Option(help="The first step to show.")] = 0,
    count: Annotated[int, typer.Option(help="How many steps, at most 1000.")] = 400,
) -> None:
    """Steps, requests and blocks of a recording, as one JSON object.

    \b
    [bold]openwork trace timeline recording/ --first 2000 --count 100[/]
    """
    from openwork.trace.timeline import timeline as draw

    sys.stdout.write(json.dumps(draw(lines_of(directory), first, count), ensure_ascii=False) + "\n")


def export(
    directory: Directory,
    form: Annotated[Form, typer.Option("--format", help="What to write.")] = Form.json,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="A file; else standard output.")] = None,
) -> None:
    """A recording in a form that others read.

    \b
    [bold]openwork trace export recording/ --format perfetto -o trace.json[/]    for ui.perfetto.dev
    [bold]openwork trace export recording/ --format mooncake -o arrivals.jsonl[/]    to be sent again
    """
    from openwork.trace import export as forms

    writers = {Form.json: forms.as_json, Form.perfetto: forms.as_perfetto, Form.mooncake: forms.as_mooncake}
    pieces = writers[form](lines_of(directory))
    if output is None:
        sys.stdout.buffer.writelines(pieces)
        return
    try:
        with output.open("wb") as file:
            file.writelines(pieces)
    except OSError as error:
        raise RequestError(f"{output} cannot be written: {error.strerror}", param="output") from None


def _blocks(text: str | None) -> tuple[int | None, float | None]:
    """Blocks, or times as many as there were. Raises RequestError."""
    if text is None:
        return None, None
    try:
        if text.endswith("x"):
            factor = float(text[:-1])
            if 0 < factor <= 1000:
                return None, factor
        elif 1 <= (blocks := int(text)) <= 2**31:
            return blocks, None
    except ValueError:
        pass
    raise RequestError(
        f"is {text!r}", "Give a number of blocks, such as 2000, or a factor, such as 0.5x.", param="kv-blocks"
    )


def _bound(name: str, text: str | None) -> float | None:
    """None: as it was; 0: no bound. Raises RequestError."""
    if text is None:
        return None
    if text == "none":
        return 0.0
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise RequestError(f"is {text!r}", "Give a number above 0, or none.", param=name.replace("_", "-"))
    return value
