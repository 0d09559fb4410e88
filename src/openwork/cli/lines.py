"""The lines of a recording, for commands that read one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from openwork.cli import terminal
from openwork.cli.long import reading
from openwork.cli.quantity import counted

if TYPE_CHECKING:
    from openwork.trace.entry import Entry
    from openwork.trace.recording import Recording

Directory = Annotated[Path, typer.Argument(metavar="DIR", help="Where --record wrote.", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="One JSON object.")]


def lines_of(directory: Path) -> Iterator[Entry]:
    """The lines of a recording; what is damaged is said once, on standard error, where one sees how far it is. Raises
    TraceError."""
    return lines_in(opened(directory))


def opened(directory: Path) -> Recording:
    """A recording; what is damaged is said. Raises TraceError."""
    from openwork.trace.recording import Recording

    recording = Recording.open(directory)
    if recording.damage:
        first = recording.damage[0]
        terminal.show_warning(f"{counted(len(recording.damage), 'part')} cannot be read; the first: {first}")
    return recording


def lines_in(recording: Recording) -> Iterator[Entry]:
    """Its lines; one sees how far they are read."""
    with reading() as told:
        yield from recording.entries(told)
