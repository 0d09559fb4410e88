"""Bounds by name: ``--limit body_bytes=1MiB`` sets what /v1/limits shows."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import fields
from typing import TYPE_CHECKING

from openwork.cli.quantity import parse_bytes
from openwork.core.errors import OpenworkError, RequestError

if TYPE_CHECKING:
    from openwork.serve.bounds import Bounds
    from openwork.serve.settings import HttpLimits


def parse_limits(texts: Iterable[str], request_s: float) -> tuple[HttpLimits, Bounds]:
    """The bounds of HTTP and of requests; one that both have is set in both. Raises RequestError naming the bound."""
    from openwork.serve.bounds import Bounds
    from openwork.serve.settings import HttpLimits

    known = {each.name: each.type for kind in (HttpLimits, Bounds) for each in fields(kind)}
    values: dict[str, int | float] = {"request_s": request_s}
    for text in texts:
        name, equals, value = text.partition("=")
        name = name.strip()
        if not equals or name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f"Did you mean {near[0]}?" if near else f"There are {', '.join(sorted(known))}."
            raise RequestError(f"must be NAME=VALUE with the name of a bound, not {text[:80]!r}", hint, param="limit")
        values[name] = _number(name, value.strip(), str(known[name]))
    try:
        http = HttpLimits(**{n: v for n, v in values.items() if n in HttpLimits.__dataclass_fields__})  # type: ignore[arg-type]
        bounds = Bounds(**{n: v for n, v in values.items() if n in Bounds.__dataclass_fields__})  # type: ignore[arg-type]
    except RequestError:
        raise
    except OpenworkError as error:
        raise RequestError(error.message, error.hint, param="limit") from None
    return http, bounds


def _number(name: str, text: str, kind: str) -> int | float:
    if name.endswith("_bytes"):
        return parse_bytes(text, name)
    try:
        return float(text) if kind == "float" else int(text)
    except ValueError:
        what = "seconds" if kind == "float" else "a whole number"
        raise RequestError(f"must be {what}, not {text[:80]!r}", param=name) from None
