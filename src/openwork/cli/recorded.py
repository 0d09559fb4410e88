"""openwork trace check, timeline, export: what a recording can be asked beside what is in it."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from openwork.cli import terminal
from openwork.cli.comparing import DIFFERENT, NOT_COMPARED, comparing
from openwork.cli.lines import Directory, Json, lines_in, lines_of, opened
from openwork.cli.quantity import counted
from openwork.cli.whatif import what_if
from openwork.core.errors import RequestError


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


def check(directory: Directory, as_json: Json = False) -> None:
    """Does the scheduler decide again what it decided? Replays every step.

    Exit code 0: it does; 1: a step came out otherwise; 3: not everything could be compared, for lines are
    missing or damaged.

    \b
    [bold]openwork trace check recording/[/]
    """
    from openwork.trace.replay.schedule import check as check_schedule

    with comparing():
        recording = opened(directory)
        checked = check_schedule(lines_in(recording))
    is_all = checked.is_equal and not recording.damage
    if as_json:
        document = {
            "equal": is_all,
            "processes": checked.processes,
            "steps": checked.steps,
            "requests": checked.requests,
            "unread": checked.unread,
            "since": list(checked.since),
            "gaps": list(checked.gaps),
            "differences": [str(each) for each in checked.differences],
            "damage": list(recording.damage),
        }
        terminal.write(json.dumps(document, ensure_ascii=False) + "\n")
    else:
        terminal.write(
            f"{counted(checked.steps, 'step')} of {counted(checked.requests, 'request')} in "
            f"{counted(checked.processes, 'engine process', 'engine processes')} replayed: "
            f"{'all equal' if not checked.differences else 'a difference'}\n"
        )
        for unix_s in checked.since:
            begin = f"{datetime.fromtimestamp(unix_s, UTC):%Y-%m-%d %H:%M:%S} UTC"
            terminal.write(f"replayed from a picture of {begin} on: what was before is not in the recording\n")
        for text in (*map(str, checked.differences), *checked.gaps):
            terminal.write(f"{text}\n")
        if checked.unread:
            terminal.write(f"{counted(checked.unread, 'line')} could not be compared\n")
    if not is_all:
        raise typer.Exit(DIFFERENT if checked.differences else NOT_COMPARED)


def timeline(
    directory: Directory,
    first: Annotated[int, typer.Option(help="The first step to show.", min=0)] = 0,
    count: Annotated[int, typer.Option(help="How many steps.", min=1, max=1000)] = 400,
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
