"""openwork quantize: pack a model's weights now, for all later starts, and say what the smaller numbers cost.

The packed file goes to the weight cache, where a start with the same --dtype finds it. The cost is measured on a text
that the user gives, against the same model in float32: a text like those the model is for says most.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from openwork.cli import options, terminal
from openwork.cli.options import Dtype, KVDtype
from openwork.cli.progress import Bars
from openwork.cli.quantity import in_bytes
from openwork.core.errors import MemoryTooSmall, OpenworkError, RequestError

if TYPE_CHECKING:
    from openwork.load.assemble import Loaded
    from openwork.ops.paged import KVDType
    from openwork.ops.reference import Reference

MAX_TEXT_BYTES = 64 << 20

app = typer.Typer(add_completion=False, rich_markup_mode="rich")

Target = Annotated[Dtype, typer.Option(help="Numbers to pack the weights in.")]
Text = Annotated[
    Path | None,
    typer.Option(help="A text in UTF-8 to compare with float32 on. Without it, only the file is made.", metavar="FILE"),
]
Limit = Annotated[int | None, typer.Option("--max-tokens", help="Compare on this many tokens of the text at most.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON object, sizes in bytes.")]


@app.command()
def quantize(
    model: options.Model = None,
    dtype: Target = Dtype.int8,
    kv_dtype: options.KVType = KVDtype.auto,
    text: Text = None,
    max_tokens: Limit = None,
    threads: options.Threads = None,
    as_json: Json = False,
) -> None:
    """Pack the weights of a model into a file that the next start maps, and measure what that costs.

    The file is kept in $OPENWORK_CACHE, or the platform's directory for caches.

    \b
    [bold]openwork quantize --dtype int4 --text story.txt[/]
    [bold]openwork quantize --model org/name --dtype int8[/]
    [bold]openwork quantize --dtype bfloat16 --kv-dtype int8 --text story.txt --json[/]
    """
    if max_tokens is not None and max_tokens < 2:
        raise RequestError(f"must be at least 2, not {max_tokens}", param="max_tokens")
    from openwork.build import make_ops
    from openwork.load import assemble, source
    from openwork.load.formats import choose_kv_dtype

    directory = source.resolve(model)
    ids = None if text is None else _read(directory, text, max_tokens)
    ops = make_ops("auto", threads)
    with Bars() as bars:
        loaded = assemble.load(directory, ops, dtype.value, progress=bars, cache="always")
        record = describe(model or source.EMBEDDED, loaded, choose_kv_dtype(kv_dtype.value, loaded.dtype))
        record["quality"] = None if ids is None else _quality(loaded, ops, ids, record["kv_dtype"], bars)
    if as_json:
        sys.stdout.write(json.dumps(record, ensure_ascii=False) + "\n")
    else:
        terminal.write(page(record))


def describe(model: str, loaded: Loaded, kv_dtype: str) -> dict[str, Any]:
    """What was made, as a JSON record. Raises OpenworkError when nothing was; a warning has said why."""
    if loaded.cache_file is None:
        raise OpenworkError("the packed weights could not be kept", "The warning above says why.")
    return {
        "model": model,
        "dtype": loaded.dtype,
        "kv_dtype": kv_dtype,
        "file": str(loaded.cache_file),
        "was_there": loaded.is_mapped,
        "weight_bytes": loaded.weight_bytes,
        "read_bytes_per_token": loaded.read_bytes_per_token,
        "float32_bytes": 4 * loaded.spec.num_parameters,
    }


def _read(directory: Path, text: Path, most: int | None) -> list[int]:
    """The tokens of a text file. Raises RequestError."""
    from openwork.text.tokenizer import Tokenizer

    try:
        if text.stat().st_size > MAX_TEXT_BYTES:
            raise RequestError(f"{text} has more than {MAX_TEXT_BYTES} bytes", "Give a part of it.", param="text")
        content = text.read_bytes().decode("utf-8")
    except OSError as error:
        raise RequestError(f"{text} cannot be read: {error.strerror}", param="text") from error
    except UnicodeDecodeError as error:
        hint = "Convert it, for example with iconv."
        raise RequestError(f"{text} is not UTF-8 text at byte {error.start}", hint, param="text") from error
    if not (directory / "tokenizer.json").exists():
        raise RequestError(f"there is no tokenizer.json in {directory}", "Leave --text out.", param="text")
    ids = Tokenizer.load(directory).encode(content, add_special=False)[:most]
    if len(ids) < 2:
        raise RequestError(f"{text} has {len(ids)} tokens; at least 2 are needed", param="text")
    return ids


def _quality(loaded: Loaded, ops: Reference, ids: list[int], kv_dtype: KVDType, bars: Bars) -> dict[str, Any]:
    """Load the float32 model beside the other and compare them. Raises MemoryTooSmall."""
    from openwork.load import assemble
    from openwork.run import memory
    from openwork.run.quality import compare

    needed, free = assemble.inspect(loaded.directory, "float32").packed_bytes, memory.available_bytes()
    if needed >= free:
        raise MemoryTooSmall(
            f"comparing needs the model in float32 too, {needed:,} bytes; {free:,} are free",
            "The packed file is made; compare on a machine with more memory.",
        )
    reference = assemble.load(loaded.directory, ops, "float32", progress=bars)
    found = compare(
        reference.model,
        loaded.model,
        ids,
        kv_dtype,
        bos=loaded.generation.bos_id,
        progress=lambda done, total: bars("comparing", done, total),
    )
    return asdict(found)


def page(record: dict[str, Any]) -> str:
    """The record for people."""
    share = record["weight_bytes"] / record["float32_bytes"]
    facts = {
        "weights": f"{in_bytes(record['weight_bytes'])} in memory, {share:.0%} of float32",
        "read for a token": in_bytes(record["read_bytes_per_token"]),
        "file": f"{record['file']}{' (it was there already)' if record['was_there'] else ''}",
    }
    quality = record["quality"]
    if quality is None:
        facts["quality"] = "not measured: give a text with --text FILE"
    else:
        facts |= {
            "compared with float32": f"on {quality['tokens']} tokens; keys and values in {record['kv_dtype']}",
            "KL divergence": f"mean {quality['kl_mean']:.2e}, 99 % below {quality['kl_p99']:.2e}, "
            f"at most {quality['kl_max']:.2e} nats",
            "perplexity": f"{quality['perplexity']:.4f}, in float32 {quality['perplexity_reference']:.4f}",
            "same likeliest token": f"{quality['same_top']:.2%}",
        }
    lines = [f"  {name:24}{value}\n" for name, value in facts.items()]
    return f"{record['model']} in {record['dtype']}\n\n{''.join(lines)}"
