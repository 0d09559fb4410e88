"""Opening a model for a subcommand: the one place where the command line meets the library.

Subcommands look ``open_llm`` up when they run, so that a test can put another in its place.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from openwork.cli.quantity import parse_bytes
from openwork.core.settings import RECORD_BYTES

if TYPE_CHECKING:
    from openwork.build import Progress
    from openwork.llm import LLM


_CHOICES = (
    "dtype",
    "kv_dtype",
    "backend",
    "kv_cache_bytes",
    "context",
    "threads",
    "weight_cache",
    "speculate",
    "max_draft",
    "record",
    "record_prompts",
    "record_bytes",
    "record_layers",
)


def choices(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """What ``open_llm`` takes of a subcommand's arguments: those of options.py that speak of the model."""
    chosen = {name: arguments[name] for name in _CHOICES if name in arguments}
    return {name: value.value if isinstance(value, StrEnum) else value for name, value in chosen.items()}


def open_llm(
    model: str | None,
    *,
    dtype: str = "auto",
    kv_dtype: str = "auto",
    backend: str = "auto",
    kv_cache_bytes: str | None = None,
    context: int | None = None,
    threads: int | None = None,
    weight_cache: bool = True,
    record: Path | None = None,
    record_prompts: bool = True,
    record_bytes: str | None = None,
    record_layers: int | None = None,
    speculate: str | None = None,
    max_draft: int | None = None,
    progress: Progress | None = None,
) -> LLM:
    """Load a model as the options say. Raises what LLM raises."""
    size = None if kv_cache_bytes is None else parse_bytes(kv_cache_bytes, "kv_cache_bytes")
    room = RECORD_BYTES if record_bytes is None else parse_bytes(record_bytes, "record_bytes")
    from openwork.llm import LLM

    return LLM(
        model,
        dtype=dtype,
        kv_dtype=kv_dtype,
        backend=backend,
        kv_cache_bytes=size,
        context=context,
        threads=threads,
        weight_cache=weight_cache,
        record=record,
        record_prompts=record_prompts,
        record_bytes=room,
        record_layers=record_layers,
        speculate=speculate,
        max_draft=max_draft,
        progress=progress,
    )
