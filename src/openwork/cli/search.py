"""openwork search: whole answers rather than token after token: best-first with a proof, or a beam."""

from __future__ import annotations

import json
import sys
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from openwork.cli import opening, options, terminal
from openwork.cli.options import Backend, Dtype, KVDtype
from openwork.cli.progress import Bars
from openwork.cli.records import finite
from openwork.cli.tree import drawn
from openwork.core.budget import Budget
from openwork.core.errors import RequestError
from openwork.core.penalty import Penalty
from openwork.core.request import SamplingParams
from openwork.core.search import Beam, BestFirst, Search

if TYPE_CHECKING:
    from openwork.core.output import Output
    from openwork.text.tokenizer import Tokenizer

NODES = 10_000  # best-first, where nothing else is said
TRACED = 40  # nodes of the tree that --show tells about

app = typer.Typer(add_completion=False, rich_markup_mode="rich")


class Early(StrEnum):
    yes = "yes"
    no = "no"
    never = "never"


class Length(StrEnum):
    power = "power"
    gnmt = "gnmt"


def _option(help: str, panel: str, *names: str) -> Any:
    return typer.Option(*names, help=help, rich_help_panel=panel, show_default=False)


_BUDGET, _BEST, _BEAM, _PENALTY, _OUTPUT = "Budget", "Best-first", "Beam", "Penalties (best-first)", "Output"
Number = Annotated[int, typer.Option("-n", help="How many of the best.")]
Nodes = Annotated[
    int | None, _option("Stop after this many nodes. [dim]Default: 10,000 best-first.[/]", _BUDGET, "--nodes")
]
Seconds = Annotated[float | None, _option("Stop after this time.", _BUDGET, "--seconds")]
Tokens = Annotated[int | None, _option("Stop after so many computed positions.", _BUDGET, "--tokens")]
Finished = Annotated[int | None, _option("Stop when so many texts have come to their end.", _BUDGET, "--finished")]
Blocks = Annotated[int | None, _option("Blocks of the cache for lines kept to be gone on with.", _BEST, "--blocks")]
AtOnce = Annotated[int, typer.Option(help="Nodes looked at in one step.", rich_help_panel=_BEST)]
Width = Annotated[int | None, _option("Search with a beam of so many lines, without a proof.", _BEAM, "--beam")]
LengthPenalty = Annotated[float, typer.Option(help="Log-probability over length to this.", rich_help_panel=_BEAM)]
Stopping = Annotated[
    Early, typer.Option("--early-stopping", help="End when enough have finished.", rich_help_panel=_BEAM)
]
Patience = Annotated[float, typer.Option(help="Enough is this many times the width.", rich_help_panel=_BEAM)]
Groups = Annotated[int, typer.Option(help="Groups that are to differ.", rich_help_panel=_BEAM)]
Diversity = Annotated[float, typer.Option(help="By how much, in nats a token.", rich_help_panel=_BEAM)]
Norm = Annotated[Length | None, _option("Divide by the length, to --alpha.", _PENALTY, "--length")]
Alpha = Annotated[float, typer.Option(help="The power of --length.", rich_help_panel=_PENALTY)]
Repetition = Annotated[float, typer.Option(help="Nats for each repeated run.", rich_help_panel=_PENALTY)]
Ngram = Annotated[int, typer.Option(help="Tokens of a run.", rich_help_panel=_PENALTY)]
Coverage = Annotated[float, typer.Option(help="Nats for each missing --phrase.", rich_help_panel=_PENALTY)]
Phrases = Annotated[
    list[str] | None, _option("A text that should appear, with its space. May be given again.", _PENALTY, "--phrase")
]
Rerank = Annotated[
    bool, typer.Option("--rerank", help="Order the n likeliest by the penalties.", rich_help_panel=_PENALTY)
]
Json = Annotated[bool, typer.Option("--json", help="One JSON object.", rich_help_panel=_OUTPUT)]
Show = Annotated[bool, typer.Option("--show", help="The tree that was searched (best-first).", rich_help_panel=_OUTPUT)]


@app.command()
def search(
    prompt: Annotated[str, typer.Argument(metavar="PROMPT", help="The text to continue.")],
    n: Number = 1,
    max_tokens: options.MaxTokens = None,
    min_tokens: options.MinTokens = None,
    stop_token_ids: options.StopIds = None,
    ignore_eos: options.IgnoreEos = None,
    json_schema: options.JsonSchema = None,
    regex: options.Regex = None,
    choice: options.Choice = None,
    lark: options.Lark = None,
    nodes: Nodes = None,
    seconds: Seconds = None,
    tokens: Tokens = None,
    finished: Finished = None,
    blocks: Blocks = None,
    at_once: AtOnce = 4,
    beam: Width = None,
    length_penalty: LengthPenalty = 1.0,
    early_stopping: Stopping = Early.no,
    patience: Patience = 1.0,
    groups: Groups = 1,
    diversity: Diversity = 0.0,
    length: Norm = None,
    alpha: Alpha = 1.0,
    repetition: Repetition = 0.0,
    ngram: Ngram = 1,
    coverage: Coverage = 0.0,
    phrase: Phrases = None,
    rerank: Rerank = False,
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
    """The likeliest continuations of a text: best-first, with a proof or an honest gap; or with --beam.

    Best-first needs --min-tokens and --max-tokens, or a form that the text must have: the likeliest text without either
    is often the empty one.

    \b
    [bold]openwork search "the cat" --min-tokens 5 --max-tokens 8 -n 3[/]
    [bold]openwork search "the cat" --min-tokens 4 --max-tokens 4 --show[/]
    [bold]openwork search "the best pet is " --regex "(a|my) [a-z]+" --max-tokens 8[/]
    [bold]openwork search "once upon a time" --beam 4 --max-tokens 30 --json[/]
    """
    load = opening.choices(locals())
    stops = {"stop_token_ids": tuple(stop_token_ids or ()), "ignore_eos": bool(ignore_eos)}
    form = options.parse_constraint(json_schema, regex, choice, lark)
    params = SamplingParams(n=n, max_tokens=max_tokens, min_tokens=min_tokens or 0, constraint=form, **stops)  # type: ignore[arg-type]
    with (
        Bars() as bars,
        opening.open_llm(model, **load, progress=bars) as llm,
    ):
        used = {"tokens": tokens, "seconds": seconds, "finished": finished}
        if beam is not None:
            early = {Early.yes: True, Early.no: False, Early.never: "never"}[early_stopping]
            how = Search(
                beam=Beam(
                    width=beam,
                    length_penalty=length_penalty,
                    early_stopping=early,  # type: ignore[arg-type]
                    patience=patience,
                    groups=groups,
                    diversity=diversity,
                    budget=Budget(nodes=nodes, **used),  # type: ignore[arg-type]
                )
            )
        else:
            most = NODES if nodes is None else nodes
            budget = Budget(nodes=most, blocks=blocks, **used)  # type: ignore[arg-type]
            penalty = Penalty(
                length=None if length is None else length.value,
                alpha=alpha,
                repetition=repetition,
                ngram=ngram,
                coverage=coverage,
                phrases=_phrases(phrase or [], llm.tokenizer),
                rerank=rerank,
            )
            is_plain = penalty == Penalty(alpha=alpha, ngram=ngram)
            best_first = BestFirst(at_once=at_once, budget=budget)
            how = Search(best_first=best_first, penalty=None if is_plain else penalty, trace=TRACED if show else 0)
        output = llm.search(prompt, how, params, progress=bars)
        bars.close()
        if as_json:
            sys.stdout.write(json.dumps(record(llm.info.model, output), ensure_ascii=False, allow_nan=False) + "\n")
            return
        _print(output, llm.tokenizer, show)


def _phrases(texts: list[str], tokenizer: Tokenizer | None) -> tuple[tuple[int, ...], ...]:
    if texts and tokenizer is None:
        raise RequestError("is text, and there is no tokenizer", param="phrase")
    return tuple(tuple(tokenizer.encode(text, add_special=False)) for text in texts if tokenizer is not None)


def _print(output: Output, tokenizer: Tokenizer | None, show: bool) -> None:
    report = output.search
    assert report is not None
    for found, completion in zip(report.found, output.completions, strict=False):
        score = f"{found.score:9.3f}" + ("" if found.score == found.logprob else f"  (log Pr {found.logprob:.3f})")
        terminal.write(f"{score}  {output.prompt or ''}", style=terminal.DIM)
        terminal.write(completion.text + "\n")
    if show and report.trace:
        terminal.write("\n" + drawn(report.trace, tokenizer))
    terminal.show_note(summary(output))


def record(model: str, output: Output) -> dict[str, Any]:
    """A search as JSON: the best sequence, what is certain of it, and the others."""
    report, times = output.search, output.timings
    assert report is not None
    best = report.found[0] if report.found else None
    return {
        "model": model,
        "prompt": output.prompt,
        "prompt_ids": list(output.prompt_ids),
        "text": output.text if best else None,
        "logprob": None if best is None else finite(best.logprob),
        "score": None if best is None else finite(best.score),
        "upper_bound": finite(report.upper_bound),
        "gap": finite(report.gap),
        "proved": report.proved,
        "ended_by": report.ended_by,
        "nodes": report.nodes,
        "generations": report.generations,
        "elapsed_s": times.queued_s + times.prefill_s + times.decode_s,
        "sequences": [
            {
                "text": completion.text,
                "token_ids": list(found.token_ids),
                "logprob": finite(found.logprob),
                "score": finite(found.score),
                "token_logprobs": [finite(each) for each in found.token_logprobs],
                "finish_reason": found.finish_reason,
            }
            for found, completion in zip(report.found, output.completions, strict=False)
        ],
    }


def summary(output: Output) -> str:
    """What is certain, and what it took, in one line."""
    report, times = output.search, output.timings
    assert report is not None
    if report.proved:
        proof = "proved: nothing scores higher"
    elif report.upper_bound is None:
        proof = "a beam proves nothing"
    elif report.gap is None:
        proof = f"nothing found; {report.ended_by} used up"
    else:
        proof = f"not proved ({report.ended_by}): at most {report.gap:.3f} from the best"
    took = times.queued_s + times.prefill_s + times.decode_s
    return f"{proof}; {report.nodes} nodes in {report.generations} steps, {took:.3f} s"
