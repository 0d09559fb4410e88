"""The lines of a recording, for commands that read one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from openwork.cli import terminal

if TYPE_CHECKING:
    from openwork.trace.entry import Entry

Directory = Annotated[Path, typer.Argument(metavar="DIR", help="Where --record wrote.", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="One JSON object.")]


def lines_of(directory: Path) -> Iterator[Entry]:
    """The lines of a recording; what is damaged is said once, on standard error. Raises TraceError."""
    from openwork.trace.recording import Recording

    recording = Recording.open(directory)
    if recording.damage:
        terminal.show_warning(f"{len(recording.damage)} parts cannot be read; the first: {recording.damage[0]}")
    return recording.entries()
