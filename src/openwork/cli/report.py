"""openwork report: what happened in a recording, in sentences: who was in whose way, and what might have helped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from openwork.cli import terminal
from openwork.cli.long import reading
from openwork.cli.quantity import counted, in_bytes
from openwork.cli.tables import LABELS, MARKS, aligned, columns, compared, figure, seconds
from openwork.core.errors import OpenworkError, RequestError

app = typer.Typer(add_completion=False, rich_markup_mode="rich")

TIMES = ("first_token_p50_s", "first_token_p99_s", "gap_p50_s", "gap_p99_s", "gap_max_s")
SHOWN = ("requests", "output_tokens", *TIMES, "preemptions", "hit_rate")


@app.command()
def report(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Where --record wrote.", show_default=False)],
    simulate: Annotated[
        bool, typer.Option("--what-if/--no-what-if", help="Simulate settings that might have helped.")
    ] = True,
    html: Annotated[
        Path | None,
        typer.Option("--html", metavar="FILE", help="Write it as one page with charts, which needs nothing else."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """A post-incident report: memory, waits and their causes, the prefix cache, and what might have helped.

    It names tenants as the operator does; nobody else should read it.

    \b
    [bold]openwork report recording/[/]
    [bold]openwork report recording/ --html incident.html[/]
    [bold]openwork report recording/ --json[/]
    """
    if html is not None and as_json:
        raise RequestError("--html and --json are two answers: ask for one of them")
    from openwork.trace.recording import Recording
    from openwork.trace.report.incident import report as write

    recording = Recording.open(directory)
    with reading() as told:
        document = write(recording.entries(told), simulate)
    document["notes"] += [f"Damaged: {each}" for each in recording.damage]
    if html is not None:
        _write(html, document)
        return
    terminal.write(json.dumps(document, ensure_ascii=False) + "\n" if as_json else as_text(document))


def _write(path: Path, document: dict[str, Any]) -> None:
    from openwork.trace.report.page import Simulated, report_page

    text = report_page(document, LABELS, SHOWN, figure, Simulated(compared, " ".join(MARKS)))
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise OpenworkError(f"{path} cannot be written: {error.strerror}", "Name another file.") from None
    terminal.show_note(f"{path}: {in_bytes(len(text.encode()))}")


def as_text(document: dict[str, Any]) -> str:
    """The report for people."""
    recording, memory = document["recording"], document["memory"]
    lines = [
        document["headline"],
        "",
        f"{counted(recording['requests'], 'request')} ({recording['refused']} refused) in "
        f"{counted(recording['steps'], 'step')} of "
        f"{counted(recording['processes'], 'engine process', 'engine processes')}, "
        f"{seconds(recording['duration_s'])}; model {recording['model']}.",
        _replayed(recording),
        "",
        *_section("What was measured", _figures(document["figures"])),
        *_section("What people waited for", [f"{n}. {each['text']}" for n, each in enumerate(document["findings"], 1)]),
        *_section("Memory", [] if memory is None else memory["text"]),
        *_section("Prefix cache", document["prefix"]["text"]),
        *_section("Guessed ahead", [] if document["guesses"] is None else document["guesses"]["text"]),
        *_section("What might have helped (simulated)", [each["text"] for each in document["what_if"]]),
    ]
    for each in document["what_if"]:
        lines += [f"With {each['label']}:", *(f"  {line}" for line in columns(each["figures"])), ""]
    lines += [*MARKS, ""] if document["what_if"] else []
    lines += _section("Notes", document["notes"])
    return "\n".join(lines).rstrip() + "\n"


def _replayed(recording: dict[str, Any]) -> str:
    if recording["why_not"] is None and recording["replayed"] == recording["steps"]:
        return "Every step was replayed and came out as recorded, so who held and evicted what is known exactly."
    return (
        f"Only {recording['replayed']} steps could be replayed: {recording['why_not'] or 'their beginning is missing'}."
    )


def _figures(figures: dict[str, Any]) -> list[str]:
    names = ["all", *figures["by_tenant"]]
    every = [figures, *figures["by_tenant"].values()]
    rows: list[tuple[str, ...]] = [("", *(name or "(no name)" for name in names))]
    rows += [(LABELS[name], *(figure(name, each[name]) for each in every)) for name in SHOWN]
    return aligned(rows)


def _section(title: str, lines: list[str]) -> list[str]:
    return [title, "-" * len(title), *lines, ""] if lines else []
