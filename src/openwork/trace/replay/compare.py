"""Compare: where two values differ first, and how that is shown to people. Records are compared field by field."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import Any

SHOWN = 200  # characters of a value that differs


def first_difference(recorded: Any, replayed: Any, where: str) -> tuple[str, Any, Any] | None:
    """The first place in which two values differ, depth first, and what stands there; None when they are equal."""
    if recorded == replayed:
        return None
    if is_dataclass(recorded) and type(recorded) is type(replayed):
        for each in fields(recorded):
            one, other = getattr(recorded, each.name), getattr(replayed, each.name)
            if one != other:
                return first_difference(one, other, f"{where}.{each.name}")
    is_alike = isinstance(recorded, tuple) and isinstance(replayed, tuple) and len(recorded) == len(replayed)
    if is_alike and any(is_dataclass(each) for each in recorded):
        for place, (one, other) in enumerate(zip(recorded, replayed, strict=True)):
            if one != other:
                return first_difference(one, other, f"{where}[{place}]")
    return where, recorded, replayed


def short(value: Any) -> str:
    text = "nothing" if value is None else repr(value)
    return text if len(text) <= SHOWN else text[:SHOWN] + "..."
