"""openwork bench: tokens a second beside what this machine could do at most, measured in the same run.

A figure without its ceiling says nothing on a machine whose memory is twice as fast one minute as the next. So every
figure is measured in turn with the ceiling that binds it, and shown with its share.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from openwork.cli import options, terminal
from openwork.cli.options import Dtype
from openwork.core.errors import BackendError, RequestError
from openwork.core.settings import LoadSettings, ScheduleSettings

if TYPE_CHECKING:
    from openwork.bench.work import Figure
    from openwork.build import Built

app = typer.Typer(add_completion=False, rich_markup_mode="rich")

Shape = Annotated[
    str | None,
    typer.Option(help="Noise in the shape of a model: qwen3-0.6b, llama-3.2-1b, llama-3.1-8b or tiny.", metavar="NAME"),
]
Batch = Annotated[str, typer.Option(help="Sequences at a time, for decoding.")]
Context = Annotated[str, typer.Option(help="Tokens of a sequence, for decoding; beyond the first, one sequence.")]
Prefill = Annotated[str, typer.Option(help="Lengths of prompts, for prefill.")]
Steps = Annotated[int, typer.Option(help="Decode steps between two measurements of the ceiling.", min=1, max=1000)]
Json = Annotated[bool, typer.Option("--json", help="One JSON object.")]


@app.command()
def bench(
    model: options.Model = None,
    shape: Shape = None,
    dtype: options.WeightType = Dtype.auto,
    batch: Batch = "1,8,32",
    context: Context = "128",
    prefill: Prefill = "512",
    steps: Steps = 8,
    threads: options.Threads = None,
    as_json: Json = False,
) -> None:
    """Measure prefill, decoding, memory and the first token, each beside its ceiling.

    The ceiling of decoding is the read bandwidth of this machine, that of prefill the peak of its dot products; both
    are measured in turn with the work. Only shares mean anything on a shared machine.

    \b
    [bold]openwork bench[/]                                        the embedded model
    [bold]openwork bench --shape qwen3-0.6b[/]                     no checkpoint needed
    [bold]openwork bench --model ./checkpoint --context 128,4096 --json[/]
    """
    if model is not None and shape is not None:
        raise RequestError("--model and --shape exclude one another", "Give one of them.", param="shape")
    batches, contexts = _sizes(batch, "batch", 512), _sizes(context, "context", 2**24)
    lengths = _sizes(prefill, "prefill", 2**24)
    built = _build(model, shape, dtype.value, threads, max(batches))
    try:
        _show(built, _measure(built, batches, contexts, lengths, steps, model, shape), as_json)
    finally:
        built.engine.close()


def _build(model: str | None, shape: str | None, dtype: str, threads: int | None, most: int) -> Built:
    from openwork.bench.shapes import SHAPES
    from openwork.build import build, build_shape

    if shape is not None and shape not in SHAPES:
        raise RequestError(f"there is no shape {shape!r}", f"There are {', '.join(SHAPES)}.", param="shape")
    settings = LoadSettings(dtype=dtype, threads=threads, backend="cpu")
    schedule = ScheduleSettings(max_step_tokens=512 + most, max_running=most)
    if shape is not None:
        return build_shape(shape, SHAPES[shape], settings, schedule)
    return build(model, settings, schedule)


def _measure(
    built: Built,
    batches: list[int],
    contexts: list[int],
    lengths: list[int],
    steps: int,
    model: str | None,
    shape: str | None,
) -> Iterator[tuple[str, Any]]:
    """("figure", Figure), ("limits", ...) and ("skipped", why), as they are found."""
    from openwork.bench import work
    from openwork.bench.limits import Limits
    from openwork.ops.cpu import Cpu

    if not isinstance(built.ops, Cpu):
        raise BackendError("only the native core is measured")
    window = built.info.context
    work.warm_up(built)
    yield "figure", work.memory(built)
    limits = Limits(built.ops)
    yield "limits", limits.summary()
    for length in lengths:
        if length >= window:
            yield "skipped", f"prefill of {length} tokens: the window has {window}"
            continue
        yield "figure", work.prefill(built, limits, length, pairs=5 if length <= 1024 else 3)
    for batch, context in [*((each, contexts[0]) for each in batches), *((1, each) for each in contexts[1:])]:
        needed = work.room_for(batch, context, steps)
        if needed > window:
            yield "skipped", f"decoding at {context} tokens: {needed} would be needed, the window has {window}"
            continue
        yield "figure", work.decode(built, limits, batch, context, steps)
    if shape is None:
        yield "figure", work.first_token(model, built.info.dtype)


def _show(built: Built, found: Iterator[tuple[str, Any]], as_json: bool) -> None:
    info = built.info
    head = {
        "model": info.model,
        "dtype": info.dtype,
        "contract_id": info.contract_id,
        "threads": info.threads,
        "weight_bytes": info.weight_bytes,
    }
    if as_json:
        kinds: dict[str, list[Any]] = {"limits": [], "figure": [], "skipped": []}
        for kind, value in found:
            kinds[kind].append(value)
        record = {**head, "limits": kinds["limits"][0], "results": [each.record() for each in kinds["figure"]]}
        sys.stdout.write(json.dumps({**record, "skipped": kinds["skipped"]}) + "\n")
        return
    weights = f"{info.weight_bytes / 1e9:.2f} GB of weights"
    terminal.write(f"{info.model}, {info.dtype}, {weights}, {info.contract_id}, {info.threads} threads\n\n")
    lines: dict[str, Callable[[Any], str]] = {"limits": _limits_line, "figure": _figure_line, "skipped": _skipped_line}
    for kind, value in found:
        terminal.write(lines[kind](value) + "\n")


def _limits_line(limits: dict[str, float]) -> str:
    return (
        f"this machine   reads {limits['read_gb_s']:.1f} GB/s; multiplies {limits['bf16_gflop_s']:.0f} GFLOP/s in "
        f"bfloat16, {limits['f32_gflop_s']:.0f} in float32"
    )


def _figure_line(figure: Figure) -> str:
    if figure.value is not None:
        shown = f"{figure.value / 1e6:.0f} MB at most" if figure.name == "memory" else f"after {figure.value:.3f} s"
        return f"{figure.name.replace('_', ' '):14} {shown}"
    what = f"{figure.name:8} {figure.batch:4} x {figure.context:<6}"
    return f"{what} {figure.tok_s:9.1f} tok/s   ceiling {figure.limit_tok_s:9.1f}   {figure.share:5.0%}"


def _skipped_line(why: str) -> str:
    return f"left out       {why}"


def _sizes(text: str, param: str, most: int) -> list[int]:
    try:
        sizes = [int(part) for part in text.split(",")]
    except ValueError:
        sizes = []
    if not sizes or not all(1 <= size <= most for size in sizes):
        raise RequestError(f"must be numbers from 1 to {most} with commas between, not {text!r}", param=param)
    return sizes
