"""Traces: who asks for how much, and when, as the traces that others have published say it.

Two forms are read. A CSV with the columns TIMESTAMP, ContextTokens, GeneratedTokens, as Azure's LLM inference traces
are; and JSON lines with timestamp (milliseconds), input_length, output_length and hash_ids, as Mooncake's: equal ids
stand for equal blocks of 512 tokens, the last of which may be cut short. A line may also name a tenant.

It guarantees arrivals in the order of their times, the first at zero. It knows no tokens and no server.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

BLOCK = 512  # tokens that one hash id stands for


class TraceError(Exception):
    """A file that is no trace: which, where, and what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """One request of a trace. Without ``blocks`` its prompt is shared with nobody."""

    at_s: float
    prompt_length: int
    max_tokens: int
    blocks: tuple[int, ...] = ()
    tenant: str = ""


def read(path: Path, first: int | None = None) -> list[Arrival]:
    """The arrivals of a trace, or its ``first`` ones. Raises TraceError."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            found = list(_csv(file, path) if path.suffix == ".csv" else _json_lines(file, path))
    except (OSError, UnicodeDecodeError) as error:
        raise TraceError(f"{path} cannot be read: {error}") from None
    if not found:
        raise TraceError(f"{path} holds no request")
    found.sort(key=lambda arrival: arrival.at_s)
    began = found[0].at_s
    return [replace(arrival, at_s=arrival.at_s - began) for arrival in found[:first]]


def faster(arrivals: Sequence[Arrival], speed: float) -> list[Arrival]:
    """The same arrivals, their times divided by ``speed``."""
    return [replace(arrival, at_s=arrival.at_s / speed) for arrival in arrivals]


def within(arrivals: Sequence[Arrival], context: int) -> list[Arrival]:
    """Those that a context of so many tokens can hold, prompt and answer."""
    return [arrival for arrival in arrivals if arrival.prompt_length + arrival.max_tokens <= context]


def _csv(file: Iterator[str], path: Path) -> Iterator[Arrival]:
    rows = csv.DictReader(file)
    missing = {"TIMESTAMP", "ContextTokens", "GeneratedTokens"} - set(rows.fieldnames or ())
    if missing:
        raise TraceError(f"{path} has no column {', '.join(sorted(missing))}")
    for row in rows:
        try:
            at_s = _moment(row["TIMESTAMP"])
            yield _arrival(at_s, int(row["ContextTokens"]), int(row["GeneratedTokens"]))
        except (TypeError, ValueError) as error:
            raise TraceError(f"{path}, line {rows.line_num}: {error}") from None


def _moment(text: str) -> float:
    """Seconds; the traces give seven digits after the point, of which datetime takes six, and sometimes a zone."""
    whole, _, rest = text.strip().partition(".")
    digits = rest[: len(rest) - len(rest.lstrip("0123456789"))]
    zone = rest[len(digits) :]
    return datetime.fromisoformat(whole + zone).timestamp() + float(f"0.{digits or 0}")


def _json_lines(file: Iterator[str], path: Path) -> Iterator[Arrival]:
    for number, line in enumerate(file, 1):
        if not line.strip():
            continue
        try:
            yield _from_json(json.loads(line))
        except KeyError as error:
            raise TraceError(f"{path}, line {number}: {error} is missing") from None
        except (TypeError, ValueError) as error:
            raise TraceError(f"{path}, line {number}: {error}") from None


def _from_json(line: dict[str, Any]) -> Arrival:
    if not isinstance(line, dict):
        raise TypeError("not an object")
    blocks = tuple(int(each) for each in line.get("hash_ids") or ())
    length = int(line["input_length"])
    if blocks and len(blocks) != -(-length // BLOCK):
        raise ValueError(f"{len(blocks)} hash_ids for {length} tokens; there is one for each {BLOCK}")
    at_s = float(line["timestamp"]) / 1000
    return _arrival(at_s, length, int(line["output_length"]), blocks, str(line.get("tenant", "")))


def _arrival(at_s: float, prompt: int, tokens: int, blocks: tuple[int, ...] = (), tenant: str = "") -> Arrival:
    if at_s < 0 or at_s != at_s:
        raise ValueError(f"the time {at_s} is not one")
    if prompt < 0 or tokens < 0:
        raise ValueError(f"{prompt} and {tokens} tokens; neither may be negative")
    return Arrival(at_s, max(1, prompt), max(1, tokens), blocks, tenant)  # some lines of the published traces have none


def to_line(arrival: Arrival) -> str:
    """An arrival as one JSON line."""
    held: dict[str, Any] = {
        "timestamp": round(arrival.at_s * 1000),
        "input_length": arrival.prompt_length,
        "output_length": arrival.max_tokens,
        "hash_ids": list(arrival.blocks),
    }
    return json.dumps(held | ({"tenant": arrival.tenant} if arrival.tenant else {}))
