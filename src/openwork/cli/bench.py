"""openwork bench: tokens a second beside what this machine could do at most, measured in the same run.

A figure without its ceiling says nothing on a machine whose memory is twice as fast one minute as the next. So every
figure is measured in turn with the ceilings that could bind it, and shown with its share of the one that does.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from openwork.cli import options, terminal
from openwork.cli.options import KVDtype
from openwork.core.errors import RequestError

if TYPE_CHECKING:
    from openwork.wiring import Info

app = typer.Typer(add_completion=False, rich_markup_mode="rich")

Shape = Annotated[
    str | None,
    typer.Option(help="Noise in the shape of a model: qwen3-0.6b, llama-3.2-1b, llama-3.1-8b or tiny.", metavar="NAME"),
]
Formats = Annotated[
    str,
    typer.Option(help="Of the weights, several with commas: auto, float32, bfloat16, int8, int8-channel, int4."),
]
Batch = Annotated[
    str | None, typer.Option(help="Sequences at a time, for decoding. [dim]Default: 1,8,32.[/]", show_default=False)
]
Context = Annotated[
    str | None,
    typer.Option(
        help="Tokens of a sequence, for decoding; beyond the first, one sequence. [dim]Default: 128.[/]",
        show_default=False,
    ),
]
Prefill = Annotated[
    str | None, typer.Option(help="Lengths of prompts, for prefill. [dim]Default: 512.[/]", show_default=False)
]
Steps = Annotated[int, typer.Option(help="Decode steps between two measurements of the ceilings.", min=1, max=1000)]
Full = Annotated[
    bool,
    typer.Option(
        "--full",
        help="Prefill 512,4096; batch 1,2,4,8,16,32; context 128,4096,16384; new processes for a shape, too. Takes "
        "some GB in the temporary directory for a while, and minutes.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="One JSON object.")]


@app.command()
def bench(
    model: options.Model = None,
    shape: Shape = None,
    dtype: Formats = "auto",
    kv_dtype: options.KVType = KVDtype.auto,
    batch: Batch = None,
    context: Context = None,
    prefill: Prefill = None,
    steps: Steps = 8,
    full: Full = False,
    threads: options.Threads = None,
    as_json: Json = False,
) -> None:
    """Measure prefill, decoding, the first token and memory, each beside its ceiling.

    The ceiling is the lower of two: what must be read, over the read bandwidth of this machine; and what must be
    multiplied, over the peak of its dot products. Both are measured in turn with the work. Only shares mean anything on
    a shared machine.

    \b
    [bold]openwork bench[/]                                        the embedded model
    [bold]openwork bench --shape qwen3-0.6b[/]                     no checkpoint needed
    [bold]openwork bench --shape llama-3.2-1b --dtype bfloat16,int8,int4 --full[/]
    [bold]openwork bench --model ./checkpoint --context 128,4096 --json[/]
    """
    from openwork.bench.plan import Plan, carry_out

    batch = batch if batch is not None else "1,2,4,8,16,32" if full else "1,8,32"
    context = context if context is not None else "128,4096,16384" if full else "128"
    prefill = prefill if prefill is not None else "512,4096" if full else None
    plan = Plan(
        model=model,
        shape=shape,
        dtypes=_formats(dtype),
        kv_dtype=kv_dtype.value,
        batches=_sizes(batch, "batch", 512),
        contexts=_sizes(context, "context", 2**24),
        prefills=None if prefill is None else _sizes(prefill, "prefill", 2**24),
        steps=steps,
        starts=full or shape is None,
        threads=threads,
    )
    (_print_json if as_json else _print_lines)(carry_out(plan))


def _print_json(found: Iterable[tuple[str, Any]]) -> None:
    kinds: dict[str, list[Any]] = {"limits": [], "model": [], "figure": [], "skipped": []}
    for kind, value in found:
        kinds[kind].append(value)
    if not kinds["model"]:  # every format was left out
        raise RequestError("nothing could be measured: " + "; ".join(kinds["skipped"]), param="dtype")
    info = kinds["model"][0]
    record = {
        "model": info.model,
        "contract_id": info.contract_id,
        "threads": info.threads,
        "weights": {each.dtype: _weights_record(each) for each in kinds["model"]},
        "limits": kinds["limits"][-1],
        "results": [each.record() for each in kinds["figure"]],
        "skipped": kinds["skipped"],
    }
    sys.stdout.write(json.dumps(record) + "\n")


def _weights_record(info: Info) -> dict[str, Any]:
    return {
        "weight_bytes": info.weight_bytes,
        "read_bytes_per_token": info.read_bytes_per_token,
        "kv_dtype": info.kv_dtype,
    }


def _print_lines(found: Iterable[tuple[str, Any]]) -> None:
    lines: dict[str, Callable[[Any], str]] = {
        "limits": _limits_line,
        "model": _model_line,
        "figure": lambda figure: figure.line(),
        "skipped": "left out     {}".format,
    }
    for kind, value in found:
        terminal.write(lines[kind](value) + "\n")


def _limits_line(limits: dict[str, float]) -> str:
    return (
        f"this machine reads {limits['read_gb_s']:.1f} GB/s; multiplies {limits['bf16_gflop_s']:.0f} GFLOP/s in "
        f"bfloat16, {limits['f32_gflop_s']:.0f} in float32, {limits['int8_gop_s']:.0f} GOP/s in int8: the best so far"
    )


def _model_line(info: Info) -> str:
    weights = f"{info.weight_bytes / 1e9:.2f} GB of weights in {info.dtype}, keys and values in {info.kv_dtype}"
    return f"\n{info.model}: {weights}, {info.contract_id}, {info.threads} threads"


def _formats(text: str) -> tuple[str, ...]:
    from openwork.ops.packed import DType

    known = ("auto", *get_args(DType))
    asked = tuple(part.strip() for part in text.split(","))
    for each in asked:
        if each not in known:
            raise RequestError(f"there is no {each!r}", f"Choose of {', '.join(known)}.", param="dtype")
    return tuple(dict.fromkeys(asked))


def _sizes(text: str, param: str, most: int) -> tuple[int, ...]:
    try:
        sizes = tuple(int(part) for part in text.split(","))
    except ValueError:
        sizes = ()
    if not sizes or not all(1 <= size <= most for size in sizes):
        raise RequestError(f"must be numbers from 1 to {most} with commas between, not {text!r}", param=param)
    return sizes
