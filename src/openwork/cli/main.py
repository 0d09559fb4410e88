"""The ``openwork`` command: finds a subcommand, runs it, and says in one line what went wrong.

An error of our own tree is printed as ``error: ...`` and ``hint: ...`` on standard error, without a traceback unless
OPENWORK_DEBUG=1. Exit codes: 0 done, 1 failed, 2 asked wrongly, 130 interrupted; commands that compare have their own
(comparing.py). A subcommand's file is imported when it is named, so that each pays only for what it needs.
"""

from __future__ import annotations

import os
import sys
import warnings
from importlib import import_module
from typing import Annotated, Any, cast

import typer
from typer.core import TyperGroup

from openwork.cli import terminal
from openwork.cli.comparing import NOT_COMPARED, NotCompared
from openwork.core.errors import OpenworkError, RequestError

SUBCOMMANDS = (
    "generate",
    "chat",
    "choose",
    "search",
    "serve",
    "trace",
    "replay",
    "see",
    "report",
    "info",
    "quantize",
    "bench",
)
# Newer versions of typer carry a copy of click, older ones import it: this is whichever is in use.
UsageError = cast(type[Exception], typer.BadParameter.__bases__[0])


class Subcommands(TyperGroup):
    """The group of subcommands, none of them imported before it is asked for."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(SUBCOMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in SUBCOMMANDS:
            return None
        return typer.main.get_command(import_module(f"openwork.cli.{cmd_name}").app)

    def main(self, *args: Any, **kwargs: Any) -> Any:
        warnings.showwarning = terminal.show_warning
        try:
            code = super().main(*args, **{**kwargs, "standalone_mode": False})
        except (OpenworkError, NotCompared, UsageError, MemoryError, typer.Abort) as error:
            if os.environ.get("OPENWORK_DEBUG") == "1":
                raise
            code = report(error)
        sys.exit(code if isinstance(code, int) else 0)


def report(error: BaseException) -> int:
    """Say what went wrong on standard error; returns the exit code."""
    if isinstance(error, NotCompared) and error.__cause__ is not None:
        report(error.__cause__)
        return NOT_COMPARED
    if isinstance(error, OpenworkError):
        terminal.show_error(_without_hint(error), error.hint)
        return 2 if isinstance(error, RequestError) else 1
    if isinstance(error, MemoryError):
        terminal.show_error("this machine ran out of memory", "Use a smaller model, a shorter context or bfloat16.")
        return 1
    if isinstance(error, typer.Abort):  # Ctrl-C, in the middle of a line
        terminal.show_note("")
        return 130
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "openwork"
    if message := error.format_message():  # type: ignore[attr-defined]
        terminal.show_error(message, f"{path} --help shows what there is.")  # else help has been shown instead
    return 2


def _without_hint(error: OpenworkError) -> str:
    """The whole message, with the file or parameter it names, but without the hint that stands at its end."""
    return str(error).removesuffix(error.hint).rstrip()


app = typer.Typer(
    cls=Subcommands,
    name="openwork",
    add_completion=False,
    invoke_without_command=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)


def _version(asked: bool) -> None:
    if asked:
        from openwork import __version__

        typer.echo(f"openwork {__version__}")
        raise typer.Exit


@app.callback()
def openwork(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Text from a Transformer, every step of it open to inspection.

    Where no model is named, the small story model that comes with openwork is used.

    \b
    [bold]openwork generate "Once upon a time"[/]                continue a text
    [bold]openwork generate --model org/name "def f(" --json[/]  a model of the hub
    [bold]echo "The cat" | openwork generate --temperature 0[/]  from a pipe
    [bold]openwork chat --model ./checkpoint[/]                  a conversation
    [bold]openwork serve --model ./checkpoint --port 8000[/]      OpenAI's API for many at once
    [bold]openwork choose "it was " --options good,bad[/]        the likeliest answer, with a proof
    [bold]openwork search "the cat" --beam 4[/]                  the likeliest text, by search
    [bold]openwork trace ls ./recording[/]                        what an engine did, request by request
    [bold]openwork see --record DIR[/]                           every step of a recorded request, and what was inside
    [bold]openwork replay ID --record DIR[/]                     the bits of a recorded request, once more
    [bold]openwork info ./checkpoint[/]                          what a model costs
    [bold]openwork quantize --dtype int8[/]                      smaller weights, and what they cost
    [bold]openwork bench --shape qwen3-0.6b[/]                   how fast it is here, and could be

    [dim]openwork COMMAND --help tells more about each.[/]
    """
    if context.invoked_subcommand is None:
        text = context.get_help()
        if text:
            typer.echo(text)


def run() -> None:
    """Entry point of the installed command and of ``python -m openwork``."""
    app()
