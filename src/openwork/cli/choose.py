"""openwork choose: the likeliest of some answers, with what is certain of each."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from openwork.cli import opening, options, terminal
from openwork.cli.options import Backend, Dtype, KVDtype
from openwork.cli.progress import Bars
from openwork.cli.records import finite
from openwork.cli.tree import drawn
from openwork.core.budget import Budget
from openwork.core.errors import RequestError

if TYPE_CHECKING:
    from openwork.core.output import Chosen

MAX_FILE_BYTES = 64 << 20
SHOWN = 20  # options in the table
TRACED = 2_000  # places of the tree

app = typer.Typer(add_completion=False, rich_markup_mode="rich")

Question = Annotated[str, typer.Argument(metavar="PROMPT", help="What the answer stands behind.")]
Names = Annotated[
    str | None, typer.Option("--options", help="The answers, with commas between; spaces around them do not count.")
]
File = Annotated[
    Path | None, typer.Option("--options-file", help="A file with an answer in each line, taken as it is.")
]
End = Annotated[
    bool | None,
    typer.Option(
        "--end/--no-end",
        help="An answer counts only with an end behind it. [dim]Default: where one begins another.[/]",
        show_default=False,
    ),
]
All = Annotated[bool, typer.Option("--score-all", help="The exact probability of every answer.")]
AtOnce = Annotated[int, typer.Option("--at-once", help="Places of the tree that are looked at in one step.")]
Nodes = Annotated[int | None, typer.Option("--nodes", help="Stop without a proof after this many places.")]
Seconds = Annotated[float | None, typer.Option("--seconds", help="Stop without a proof after this time.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON object.")]
Show = Annotated[bool, typer.Option("--show", help="The tree that was searched.")]


@app.command()
def choose(
    prompt: Question,
    names: Names = None,
    options_file: File = None,
    end: End = None,
    score_all: All = False,
    at_once: AtOnce = 4,
    nodes: Nodes = None,
    seconds: Seconds = None,
    as_json: Json = False,
    show: Show = False,
    model: options.Model = None,
    dtype: options.WeightType = Dtype.auto,
    kv_dtype: options.KVType = KVDtype.auto,
    backend: options.Engine = Backend.auto,
    kv_cache_bytes: options.CacheSize = None,
    context: options.Context = None,
    threads: options.Threads = None,
    weight_cache: options.WeightCache = True,
) -> None:
    """Which of some answers is the likeliest, proved, with a certain interval for the probability of each.

    \b
    [bold]openwork choose "the little girl was very " --options happy,sad,tired[/]
    [bold]openwork choose "the cat sat on the " --options-file words.txt --json[/]
    [bold]openwork choose "the dog was " --options big,red --score-all --show[/]
    """
    load = opening.choices(locals())
    texts = _texts(names, options_file)
    budget = Budget(nodes=nodes, seconds=seconds)
    with (
        Bars() as bars,
        opening.open_llm(model, **load, progress=bars) as llm,
    ):
        bars.close()
        chosen = llm.choose(
            prompt,
            texts,
            end=end,
            score_all=score_all,
            at_once=at_once,
            budget=budget,
            trace=TRACED if show else 0,
        )
        if as_json:
            sys.stdout.write(json.dumps(record(llm.info.model, chosen), ensure_ascii=False, allow_nan=False) + "\n")
            return
        terminal.write(f"{chosen.text if chosen.text is not None else '(nothing yet)'}\n")
        terminal.write("\n" + table(chosen))
        if show:
            terminal.write("\n" + drawn(chosen.report.trace, llm.tokenizer))
        terminal.show_note(summary(chosen))


def _texts(names: str | None, path: Path | None) -> list[str]:
    if (names is None) == (path is None):
        raise RequestError("give either --options or --options-file", param="options")
    if names is not None:
        return [name.strip() for name in names.split(",")]
    assert path is not None
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise RequestError(f"{path} has more than {MAX_FILE_BYTES} bytes", param="options-file")
        lines = path.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise RequestError(f"{path} cannot be read: {error}", param="options-file") from None
    for number, line in enumerate(lines, 1):
        if not line.strip():
            raise RequestError(f"line {number} of {path} is empty", "Leave it out.", param="options-file")
    return [line.removesuffix("\r") for line in lines]


def record(model: str, chosen: Chosen) -> dict[str, Any]:
    """A choice as JSON."""
    report = chosen.report
    return {
        "model": model,
        "prompt": chosen.prompt,
        "prompt_ids": list(chosen.prompt_ids),
        "text": chosen.text,
        "index": chosen.index,
        "logprob": finite(chosen.logprob),
        "upper_bound": finite(report.upper_bound),
        "gap": finite(report.gap),
        "proved": report.proved,
        "ended_by": report.ended_by,
        "end": chosen.end,
        "nodes": report.nodes,
        "num_nodes": report.num_nodes,
        "generations": report.generations,
        "elapsed_s": chosen.elapsed_s,
        "options": [
            {
                "text": option.text,
                "token_ids": list(option.token_ids),
                "logprob": finite(option.logprob),
                "logprob_high": finite(option.logprob_high),
                "probability_low": option.probability_low,
                "probability_high": option.probability_high,
            }
            for option in chosen.options
        ],
    }


def table(chosen: Chosen) -> str:
    """The likeliest options, with their intervals; "<" before a log-probability that is a bound."""
    order = sorted(chosen.options, key=lambda option: (-option.probability_low, -option.probability_high))
    width = max(len(repr(option.text)) for option in order[:SHOWN])
    lines = [f"{'option'.ljust(width)}  {'logprob':>9}  probability"]
    for option in order[:SHOWN]:
        bound = f"< {option.logprob_high:.3f}" if option.logprob is None else f"{option.logprob:.3f}"
        low, high = f"{option.probability_low:.4f}", f"{option.probability_high:.4f}"
        span = low if low == high else f"{low} to {high}"
        lines.append(f"{repr(option.text).ljust(width)}  {bound:>9}  {span}")
    if len(order) > SHOWN:
        lines.append(f"... {len(order) - SHOWN} more, none above {order[SHOWN].probability_high:.4f}")
    return "\n".join(lines) + "\n"


def summary(chosen: Chosen) -> str:
    """What is certain, and what it took, in one line."""
    report = chosen.report
    proof = "proved" if report.proved else f"not proved: {report.ended_by} used up"
    if report.gap:
        proof += f", at most {report.gap:.3f} nats from the best"
    places = f"{report.nodes} of {report.num_nodes} places looked at in {report.generations} steps"
    return f"{proof}; {places}, {chosen.elapsed_s:.3f} s"
