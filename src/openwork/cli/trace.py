"""openwork trace: what a recording holds, and what it can be asked."""

from __future__ import annotations

import typer

from openwork.cli import recorded

app = typer.Typer(add_completion=False, rich_markup_mode="rich", no_args_is_help=True)
recorded.add_to(app)


@app.callback()
def trace() -> None:
    """Recordings made with --record: is the schedule replayed, what would have been, exports."""
