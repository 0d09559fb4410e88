"""openwork trace what-if: the recorded requests under other settings, one at a time or swept."""

from __future__ import annotations

import json
from enum import StrEnum
from typing import Annotated, Any

import typer

from openwork.cli import options, terminal
from openwork.cli.lines import Directory, Json, lines_of

MEMORY, STEPS, ORDER, DOOR, ASSUMED = "Memory", "Steps", "Whose turn", "At the door", "What is assumed"


class Clients(StrEnum):
    times = "times"
    answers = "answers"


class Disturbances(StrEnum):
    same = "same"
    none = "none"


def _asks(help_text: str, panel: str, metavar: str) -> Any:
    return typer.Option(help=help_text, rich_help_panel=panel, metavar=metavar, show_default=False)


def what_if(
    directory: Directory,
    kv_blocks: Annotated[str | None, _asks("Blocks of the cache: 2000, or 0.5x as many.", MEMORY, "N|Fx")] = None,
    prefix_cache: Annotated[str | None, _asks("Keep what sequences leave behind.", MEMORY, "on|off")] = None,
    step_rows: Annotated[str | None, _asks("Rows of a step at most.", STEPS, "N")] = None,
    max_running: Annotated[str | None, _asks("Sequences that hold blocks at most.", STEPS, "N")] = None,
    stretch: Annotated[str | None, _asks("How long a step with prompts may take: 1.5.", STEPS, "F|none")] = None,
    next_token_ms: Annotated[str | None, _asks("Time between tokens to keep: 50.", STEPS, "MS|none")] = None,
    speculate: Annotated[str | None, _asks("Guess tokens ahead, up to K.", STEPS, "ngram[:K]|off")] = None,
    first: Annotated[options.First | None, _asks("What a step is filled with first.", ORDER, "decode|prefill")] = None,
    policy: Annotated[options.Order | None, _asks("Who comes first.", ORDER, "first-come|priority|deadline")] = None,
    fair: Annotated[
        bool | None, typer.Option("--fair/--unfair", help="Tenants take turns.", rich_help_panel=ORDER)
    ] = None,
    patience: Annotated[str | None, _asks("Seconds after which one that waits goes first.", ORDER, "S")] = None,
    tenant: Annotated[
        list[str] | None, _asks("What a tenant is granted, such as chat:weight=2,max_running=8.", ORDER, "NAME:TERMS")
    ] = None,
    max_waiting: Annotated[str | None, _asks("Requests that may wait.", DOOR, "N|none")] = None,
    max_waiting_tokens: Annotated[str | None, _asks("Their prompt tokens.", DOOR, "N|none")] = None,
    max_request_blocks: Annotated[str | None, _asks("Blocks that one request may need.", DOOR, "N|none")] = None,
    sweep: Annotated[
        list[str] | None,
        _asks("Several values of one setting, a row each; given twice, all combinations.", "Sweep", "NAME=V,V,..."),
    ] = None,
    clients: Annotated[
        Clients,
        typer.Option(
            help="Requests come at their times; or those that go on from an answer wait for it.",
            rich_help_panel=ASSUMED,
        ),
    ] = Clients.times,
    disturbances: Annotated[
        Disturbances,
        typer.Option(
            help="When something else ran on the machine, steps took longer: here too, or not.", rich_help_panel=ASSUMED
        ),
    ] = Disturbances.same,
    as_json: Json = False,
) -> None:
    """The recorded requests under other settings: what would have come of them, simulated, and how far to trust it.

    Every answer is what it was and as long as it was: bits do not depend on the schedule, so only times, hits and
    preemptions can differ. What a step costs is fitted to the recorded steps. Each figure has an interval, which comes
    of other fits, of slow moments at other times, and of how well what was measured is simulated.

    \b
    [bold]openwork trace what-if recording/ --kv-blocks 0.5x[/]                        half the memory
    [bold]openwork trace what-if recording/ --prefix-cache off --json[/]               for a program
    [bold]openwork trace what-if recording/ --fair --tenant batch:max_running=4[/]     several things at once
    [bold]openwork trace what-if recording/ --sweep kv-blocks=0.25x,0.5x,1x,2x[/]      a table
    [bold]openwork trace what-if recording/ --sweep stretch=1.5,3,none --sweep step-rows=256,512[/]
    """
    from openwork.cli import asked
    from openwork.cli.tables import sweep_table, what_if_table
    from openwork.trace.whatif.arrivals import collect
    from openwork.trace.whatif.oracle import Oracle
    from openwork.trace.whatif.sweep import sweep as ask_all

    given = {
        "kv-blocks": kv_blocks,
        "prefix-cache": prefix_cache,
        "step-rows": step_rows,
        "max-running": max_running,
        "stretch": stretch,
        "next-token-ms": next_token_ms,
        "speculate": speculate,
        "first": None if first is None else first.value,
        "policy": None if policy is None else policy.value,
        "fair": None if fair is None else "on" if fair else "off",
        "patience": patience,
        "max-waiting": max_waiting,
        "max-waiting-tokens": max_waiting_tokens,
        "max-request-blocks": max_request_blocks,
    }
    words = {name: text for name, text in given.items() if text is not None}
    terms = tuple(tenant or ())
    combinations = asked.grid(tuple(sweep or ()))
    changes = [(asked.label(each), asked.change({**words, **each}, terms)) for each in combinations]
    oracle = Oracle(collect(lines_of(directory)), clients.value, disturbances is Disturbances.none)
    document = ask_all(oracle, changes) if sweep else oracle.answer(changes[0][1])
    if as_json:
        terminal.write(json.dumps(document, ensure_ascii=False) + "\n")
    else:
        terminal.write(sweep_table(document) if sweep else what_if_table(document))
