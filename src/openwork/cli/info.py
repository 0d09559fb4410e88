"""openwork info: what a model is, what one token of it costs, and what fits in this machine's memory.

Only the config and the headers of the weight files are read. The figures follow from the architecture; nothing is
measured, and nothing is loaded. A model of the hub that is not on this machine yet is downloaded first, whole.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from openwork.cli import terminal
from openwork.cli.quantity import in_bytes, in_units
from openwork.core.errors import RequestError

if TYPE_CHECKING:
    from openwork.load.assemble import Inspection

DTYPES = ("float32", "bfloat16", "int8", "int4")
_KV_ENTRY_BYTES = {"float32": 4}  # else 2: keys and values are bfloat16 beside smaller weights, unless asked otherwise
_COLUMN = 13

app = typer.Typer(add_completion=False, rich_markup_mode="rich")

Name = Annotated[
    str | None,
    typer.Argument(metavar="MODEL", help="A directory or a hub name. Without it, the embedded openwork/stories."),
]
Length = Annotated[
    int | None, typer.Option(help="Count the work of a token at this length, and whether so long a sequence fits.")
]
Json = Annotated[bool, typer.Option("--json", help="One JSON object, sizes in bytes.")]


@app.command()
def info(model: Name = None, context: Length = None, as_json: Json = False) -> None:
    """Show what a model costs, and what fits in memory.

    Nothing is loaded: the figures follow from the config and the headers of the weight files. A model of the hub is
    downloaded first, weights included, unless it is on this machine already.

    \b
    [bold]openwork info[/]
    [bold]openwork info ./checkpoint --context 8192[/]
    [bold]openwork info org/name --json[/]
    """
    if context is not None and context < 1:
        raise RequestError(f"must be at least 1, not {context}", param="context")
    from openwork.load import assemble, source
    from openwork.run.memory import available_bytes

    directory = source.resolve(model)
    free = available_bytes()
    surveys = [assemble.inspect(directory, dtype=dtype, context=context) for dtype in DTYPES]
    costs = [Cost.of(survey, dtype, free) for survey, dtype in zip(surveys, DTYPES, strict=True)]
    record = describe(model or source.EMBEDDED, directory, surveys[0], costs, free, context)
    if as_json:
        sys.stdout.write(json.dumps(record, ensure_ascii=False) + "\n")
    else:
        terminal.write(page(record))


@dataclass(frozen=True, slots=True)
class Cost:
    """What a model takes in one number format."""

    weight_bytes: int  # in memory
    weight_bytes_per_token: int  # read for one token at batch 1: what decoding waits for
    kv_bytes_per_token: int  # added to the cache
    kv_tokens: int  # that fit in the memory which the weights leave
    longest_context: int  # of one sequence: the model's limit, or the memory's

    @staticmethod
    def of(survey: Inspection, dtype: str, free_bytes: int) -> Cost:
        spec = survey.spec
        kv = spec.kv_bytes_per_token(_KV_ENTRY_BYTES.get(dtype, 2))
        tokens = max(0, free_bytes - survey.packed_bytes) // kv
        return Cost(survey.packed_bytes, survey.read_bytes_per_token, kv, tokens, min(tokens, spec.max_positions))


def describe(
    model: str, directory: Path, survey: Inspection, costs: list[Cost], free_bytes: int, context: int | None
) -> dict[str, Any]:
    """Everything that is shown, as one JSON record."""
    spec = survey.spec
    length = spec.max_positions if context is None else context
    windows = sorted({window for window in spec.windows if window is not None})
    record: dict[str, Any] = {
        "model": model,
        "directory": str(directory),
        "architecture": spec.architecture,
        "parameters": survey.num_parameters,
        "tensors": survey.num_tensors,
        "stored_dtype": survey.stored_dtype,
        "file_bytes": survey.file_bytes,
        "vocab_size": spec.vocab_size,
        "hidden_size": spec.hidden_size,
        "intermediate_size": spec.intermediate_size,
        "num_layers": spec.num_layers,
        "num_heads": spec.num_heads,
        "num_kv_heads": spec.num_kv_heads,
        "head_dim": spec.head_dim,
        "tied_head": spec.tied_head,
        "max_positions": spec.max_positions,
        "sliding_windows": windows,
        "context": length,
        "flops_per_token": spec.flops_per_token(length),
        "available_bytes": free_bytes,
    }
    for dtype, cost in zip(DTYPES, costs, strict=True):
        fields = {name: getattr(cost, name) for name in Cost.__dataclass_fields__}
        record[dtype] = fields | {"fits": cost.longest_context >= length}
    return record


def page(record: dict[str, Any]) -> str:
    """The record for people."""
    share = f"{record['num_heads']} heads on {record['num_kv_heads']} key/value heads of {record['head_dim']}"
    windows = ", ".join(map(str, record["sliding_windows"]))
    facts = {
        "architecture": record["architecture"],
        "directory": record["directory"],
        "parameters": f"{in_units(record['parameters'])} in {record['tensors']} tensors, "
        f"stored as {record['stored_dtype']} in {in_bytes(record['file_bytes'])}",
        "layers": f"{record['num_layers']}, hidden {record['hidden_size']}, feed-forward {record['intermediate_size']}",
        "attention": share + (f", sliding window {windows}" if windows else ""),
        "vocabulary": f"{record['vocab_size']} tokens"
        + (", head tied to the embedding" if record["tied_head"] else ""),
        "window": f"{record['max_positions']} tokens",
        "work": f"{in_units(record['flops_per_token'])}FLOP for a token at length {record['context']}",
        "memory": f"{in_bytes(record['available_bytes'])} available here",
    }
    lines = [f"{record['model']}\n\n", *(f"  {name:24}{value}\n" for name, value in facts.items())]
    lines.append(f"\n  {'':24}{''.join(f'{dtype:>{_COLUMN}}' for dtype in DTYPES)}\n")
    rows: dict[str, Callable[[dict[str, Any]], str]] = {
        "weights in memory": lambda cost: in_bytes(cost["weight_bytes"]),
        "weights read a token": lambda cost: in_bytes(cost["weight_bytes_per_token"]),
        "KV cache a token": lambda cost: in_bytes(cost["kv_bytes_per_token"]),
        "tokens of cache that fit": lambda cost: in_units(cost["kv_tokens"]),
        "longest sequence": lambda cost: str(cost["longest_context"]),
        f"{record['context']} tokens fit": lambda cost: "yes" if cost["fits"] else "no",
    }
    for name, show in rows.items():
        lines.append(f"  {name:24}{''.join(f'{show(record[dtype]):>{_COLUMN}}' for dtype in DTYPES)}\n")
    return "".join(lines)
