"""openwork trace: what a flight recorder wrote. ``ls`` lists requests, ``show`` opens one.

What is shown is in the recording or follows from it; what is missing is said to be. Nothing here is written.
"""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from openwork.cli import recorded, terminal
from openwork.cli.long import reading

if TYPE_CHECKING:
    from openwork.trace.recording import Recording
    from openwork.trace.story import Line, Story

app = typer.Typer(add_completion=False, rich_markup_mode="rich", no_args_is_help=True)
recorded.add_to(app)  # check, what-if, timeline, export

Directory = Annotated[Path, typer.Argument(metavar="DIR", help="The directory that --record was given.")]
Id = Annotated[str, typer.Argument(metavar="ID", help="The request, as openwork trace ls names it.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON object.")]


@app.callback()
def trace() -> None:
    """Look into recordings of an engine, made with --record DIR.

    \b
    [bold]openwork trace ls DIR[/]           every request
    [bold]openwork trace show DIR ID[/]      one of them, token by token
    [bold]openwork trace check DIR[/]        does the scheduler decide again what it decided?
    """


@app.command()
def ls(directory: Directory, as_json: Json = False) -> None:
    """List the requests of a recording."""
    recording = _open(directory)
    with reading() as told:
        stories = recording.requests(told)
    if as_json:
        _print_json({"requests": [story.as_record() for story in stories], "damage": list(recording.damage)})
        return
    lines: list[tuple[str, ...]] = [("id", "arrived", "prompt", "cached", "output", "took", "ended by")]
    lines += [_row(story) for story in stories]
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    for line in lines:
        cells = [cell.ljust(width) if at in (0, 6) else cell.rjust(width) for at, (cell, width) in _cells(line, widths)]
        terminal.write("  ".join(cells).rstrip() + "\n")
    _lament(recording)


@app.command()
def show(directory: Directory, id: Id, as_json: Json = False) -> None:
    """Show one request: what was asked, what became of it, and every token with the hash of its row of logits."""
    recording = _open(directory)
    story = recording.request(id)
    if as_json:
        _print_json(_whole(story) | {"damage": list(recording.damage)})
        return
    for name, value in _about(story):
        terminal.write(f"{name:<16}{value}\n")
    for index, line in sorted(story.lines.items()):
        terminal.write(f"\nsequence {index}: {_end_of(line)}\n")
        terminal.write(f"{'':>6}  {'token':>7}  {'step':>7}  {'hash of its row':>16}\n")
        for place, (token, step, row) in enumerate(zip(line.tokens, line.steps, line.row_hashes, strict=True)):
            shown = "" if row is None else f"{row:016x}"
            terminal.write(f"{place:6d}  {token:7d}  {'' if step is None else step:>7}  {shown:>16}\n".rstrip() + "\n")
    _lament(recording)


def _open(directory: Path) -> Recording:
    from openwork.trace.recording import Recording

    return Recording.open(directory)


def _print_json(record: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n")
    sys.stdout.flush()


def _cells(line: tuple[str, ...], widths: list[int]) -> Any:
    return enumerate(zip(line, widths, strict=True))


def _row(story: Story) -> tuple[str, ...]:
    lines = [line for _, line in sorted(story.lines.items())]
    reasons = dict.fromkeys(line.finish_reason or "" for line in lines)
    ended = story.error or ", ".join(filter(None, reasons)) or ("" if story.is_over else "its end is not here")
    mark = "" if story.is_whole else " (a part is missing)"
    return (
        story.id,
        _when(story.arrived_unix_s),
        str(story.prompt_len),
        str(story.cached),
        "+".join(str(len(line.tokens)) for line in lines),
        "" if story.took_s is None else f"{story.took_s:.3f} s",
        ended[:60] + mark,
    )


def _when(unix_s: float | None) -> str:
    return "" if unix_s is None else datetime.fromtimestamp(unix_s, UTC).strftime("%Y-%m-%d %H:%M:%S")


def _about(story: Story) -> list[tuple[str, str]]:
    record = story.as_record()
    arrived = _when(story.arrived_unix_s)
    said = [("request", story.id), ("arrived", f"{arrived} UTC" if arrived else "not in the recording")]
    said += [("error", story.error)] if story.error else []
    said += [(name.replace("_", " "), str(record[name])) for name in ("prompt_tokens", "cached_tokens", "tenant")]
    for name in ("queued_s", "first_token_s", "took_s"):
        said.append(
            (name.removesuffix("_s").replace("_", " "), "" if record[name] is None else f"{record[name]:.6f} s")
        )
    said += [("preemptions", str(story.preemptions)), ("processes", str(story.lives))]
    if not story.has_tokens:
        said.append(("tokens", "stand-ins: this recording keeps nothing that was written"))
    if not story.is_whole:
        said.append(("missing", "a part of this request is not in the recording"))
    return [(name, value) for name, value in said if value]


def _end_of(line: Line) -> str:
    gone = f", {line.num_missing} more are not in the recording" if line.num_missing else ""
    return f"{len(line.tokens)} tokens{gone}, ended by {line.finish_reason or 'nothing that is in the recording'}"


def _whole(story: Story) -> dict[str, Any]:
    request = story.request
    sequences = [
        {
            "index": index,
            "finish_reason": line.finish_reason,
            "stop_id": line.stop_id,
            "message": line.message,
            "num_missing": line.num_missing,
            "tokens": line.tokens,
            "row_hashes": [None if row is None else f"{row:016x}" for row in line.row_hashes],
            "steps": line.steps,
            "runs": line.runs,
            "times_s": line.times,
        }
        for index, line in sorted(story.lines.items())
    ]
    return story.as_record() | {
        "prompt": None if request is None else list(request.prompt),
        "sequences": sequences,
    }


def _lament(recording: Recording) -> None:
    for damage in recording.damage:
        terminal.write(f"not read: {damage}\n", sys.stderr)
