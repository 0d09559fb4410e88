"""openwork see: the microscope. A recorded request step by step, on a page of this machine, in a file, or as JSON."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from openwork.cli import options, terminal
from openwork.cli.options import Backend
from openwork.cli.quantity import in_bytes, parse_bytes
from openwork.core.errors import OpenworkError, RequestError

app = typer.Typer(add_completion=False, rich_markup_mode="rich")
_WHAT, _HOW, _MODEL = "What is shown", "How", "The model"


def _option(help: str, panel: str, *names: str, **more: Any) -> Any:
    return typer.Option(*names, help=help, rich_help_panel=panel, **more)


Id = Annotated[str | None, typer.Argument(metavar="[ID]", help="A request of the recording; the latest if left out.")]
Record = Annotated[Path, _option("The recording.", _WHAT, "--record", metavar="DIR")]
AgainstId = Annotated[
    str | None,
    _option(
        "Another run to look at beside this one, to the first bit that differs.",
        _WHAT,
        "--against",
        metavar="ID",
        show_default=False,
    ),
]
AgainstRecord = Annotated[
    Path | None,
    _option(
        "The recording of the other run. [dim]Default: the same.[/]",
        _WHAT,
        "--against-record",
        metavar="DIR",
        show_default=False,
    ),
]
Html = Annotated[
    Path | None, _option("Write one file that needs nothing else, and end.", _HOW, "--html", metavar="FILE")
]
Size = Annotated[str, _option("Of the file, at most; what does not fit is said.", _HOW, "--html-bytes", metavar="SIZE")]
Json = Annotated[bool, _option("Print the documents of the page as one JSON object, and end.", _HOW, "--json")]
Document = Annotated[
    list[str] | None,
    _option("With --json, this document alone: row/0/57, layer/0/57/3. May be given again.", _HOW, "--document"),
]
Port = Annotated[int, _option("The port of the page on this machine; 0 takes any free one.", _HOW)]
Ceilings = Annotated[
    bool, _option("Measure what this machine reads and multiplies, for the roofline.", _HOW, "--ceilings")
]
Other = Annotated[
    str | None, _option("[dim]Default: the one that was recorded.[/]", _MODEL, "--model", show_default=False)
]
NoModel = Annotated[bool, _option("Open no model: show what the recording says by itself.", _MODEL, "--no-model")]
Memory = Annotated[str, _option("For keys and values of one request.", _MODEL, "--memory", metavar="SIZE")]


@app.command()
def see(
    record: Record,
    id: Id = None,
    against: AgainstId = None,
    against_record: AgainstRecord = None,
    html: Html = None,
    html_bytes: Size = "24MiB",
    as_json: Json = False,
    document: Document = None,
    port: Port = 0,
    ceilings: Ceilings = False,
    model: Other = None,
    no_model: NoModel = False,
    memory: Memory = "1GiB",
    threads: options.Threads = None,
    backend: options.Engine = Backend.auto,
) -> None:
    """Look into a recorded request: every step, and what was inside it, computed again with the bits that were served.

    Without --html and --json a page opens on this machine, for you alone, until Ctrl-C. docs/microscope.md tells more.

    \b
    [bold]openwork see --record DIR[/]                         a page; its address is printed
    [bold]openwork see 0 --record DIR --html story.html[/]     a file to keep or to send
    [bold]openwork see 0 --record DIR --json[/]                the same numbers
    [bold]openwork see 0 --record DIR --against 0 --against-record OTHER[/]    the same prompt, on another machine
    """
    from openwork.cli.seeing import Seeing

    if html is not None and as_json:
        raise RequestError("--html and --json are two answers: ask for one of them")
    if document and not as_json:
        raise RequestError("--document goes with --json")
    most = parse_bytes(html_bytes, "html_bytes")
    with Seeing(
        record,
        model=model,
        has_model=not no_model,
        examine_bytes=parse_bytes(memory, "memory"),
        threads=threads,
        backend=backend.value,
        has_ceilings=ceilings,
        against=against,
        against_record=against_record,
    ) as seeing:
        if as_json:
            told = seeing.documents(seeing.named(id), document)
            sys.stdout.write(json.dumps(told, ensure_ascii=False, allow_nan=False) + "\n")
        elif html is not None:
            _write(html, seeing.file(seeing.named(id), most))
        else:
            seeing.serve(None if id is None else seeing.named(id), port, _announce)


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise OpenworkError(f"{path} cannot be written: {error.strerror}", "Name another file.") from None
    terminal.show_note(f"{path}: {in_bytes(len(text.encode()))}")


def _announce(address: str, notes: tuple[str, ...]) -> None:
    for note in notes:
        terminal.show_note(note)
    terminal.write(f"\n  {address}\n\n  It is for you alone: the address holds a key. Ctrl-C ends it.\n\n")
