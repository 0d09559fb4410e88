"""Filters for chat templates: those of Jinja that templates use, and our own where a filter can multiply sizes.

Each pays out of the rendering's Budget, before it builds anything. None escapes HTML on its own: a prompt is no page.
``tojson`` writes plain JSON as templates made for transformers expect it. The names that start with a minus sign are no
template's to write: the sandbox sends through them what Jinja would do without asking.
"""

from __future__ import annotations

import html
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from jinja2 import pass_context
from jinja2.exceptions import SecurityError
from jinja2.filters import FILTERS, make_attrgetter
from jinja2.runtime import Context, Undefined

from openwork.text.budget import BUDGET, Budget, pay_join, pay_percent, pay_replace

MAX_WIDTH = 10_000
_PLAIN = """abs capitalize count d default dictsort first float groupby int items last length list lower map max min
reject rejectattr reverse select selectattr sort striptags title trim truncate unique upper wordcount"""
_COMPARING = frozenset(["groupby", "max", "min", "reject", "rejectattr", "select", "selectattr", "sort", "unique"])


@pass_context
def pay_output(context: Context, value: Any) -> Any:
    context.parent[BUDGET].pay_text(value)
    return value


@pass_context
def _each(context: Context, value: Any) -> Iterator[Any]:
    budget: Budget = context.parent[BUDGET]
    return budget.each(value)


@pass_context
def _copy(context: Context, value: Any) -> Any:
    return context.parent[BUDGET].pay_copy(value)


@pass_context
def _read(context: Context, value: Any) -> Any:
    """Something is compared, searched, or put into a list: all that it holds counts."""
    context.parent[BUDGET].pay_text(value)
    return value


@pass_context
def _concat(context: Context, parts: list[Any]) -> str:
    context.parent[BUDGET].pay_text(parts)
    return "".join(map(str, parts))


def _paying(plain: Callable[..., Any], name: str) -> Callable[..., Any]:
    """One of Jinja's filters, with its input counted turn by turn where it walks over it, and its result paid for."""
    compares = name in _COMPARING
    passes = getattr(plain, "jinja_pass_arg", None)

    @pass_context
    def paying(context: Context, value: Any, *args: Any, **kwargs: Any) -> Any:
        budget: Budget = context.parent[BUDGET]
        budget.step()
        if compares and not isinstance(value, (Undefined, Mapping)):
            value = list(budget.each(value))
            budget.pay_text(value)
        elif name in ("map", "list"):
            value = budget.each(value)
        if passes is None:
            result = plain(value, *args, **kwargs)
        else:
            first = {"context": context, "eval_context": context.eval_ctx, "environment": context.environment}
            result = plain(first[passes.name], value, *args, **kwargs)
        return budget.pay_copy(result)

    return paying


@pass_context
def _string(context: Context, value: Any) -> str:
    """Also what "safe" does: nothing is escaped here, so there is nothing to be safe from."""
    context.parent[BUDGET].pay_text(value)
    return str(value)


@pass_context
def _escape(context: Context, value: Any) -> str:
    context.parent[BUDGET].pay_text(value)
    return html.escape(str(value)).replace("&quot;", "&#34;").replace("&#x27;", "&#39;")


@pass_context
def _join(context: Context, value: Any, d: Any = "", attribute: Any = None) -> str:
    budget: Budget = context.parent[BUDGET]
    parts = list(budget.each(value))
    if attribute is not None:
        parts = list(map(make_attrgetter(context.environment, attribute), parts))
    separator = str(d)
    pay_join(budget, separator, parts)
    return separator.join(map(str, parts))


@pass_context
def _replace(context: Context, text: Any, old: Any, new: Any, count: Any = None) -> str:
    budget: Budget = context.parent[BUDGET]
    budget.step()
    budget.pay_text([text, old, new])
    whole = str(text)
    pay_replace(budget, whole, str(old), str(new))
    return whole.replace(str(old), str(new), -1 if count is None else count)


@pass_context
def _indent(context: Context, text: Any, width: Any = 4, first: bool = False, blank: bool = False) -> str:
    text = str(text)
    margin = width if isinstance(width, str) else " " * _small(width)
    lines = text.splitlines() or [""]
    context.parent[BUDGET].pay(len(text) + len(lines) * (len(margin) + 1))
    body = [margin + line if line or blank else line for line in lines[1:]]
    return "\n".join([margin + lines[0] if first else lines[0], *body])


def _round(value: Any, precision: int = 0, method: str = "common") -> Any:
    return FILTERS["round"](value, _small(precision, 300), method)


@pass_context
def _sum(context: Context, value: Any, attribute: Any = None, start: Any = 0) -> Any:
    if not isinstance(start, (int, float)):  # adding lists up would copy them again and again
        raise SecurityError("sum starts from a number")
    turns = context.parent[BUDGET].each(value)
    return FILTERS["sum"](context.environment, turns, attribute, start)


@pass_context
def _percent(context: Context, text: Any, *args: Any, **kwargs: Any) -> str:
    budget: Budget = context.parent[BUDGET]
    text = str(text)
    pay_percent(budget, text, kwargs or args)
    result: str = text % (kwargs or args)
    return result


@pass_context
def _tojson(
    context: Context,
    value: Any,
    ensure_ascii: bool = False,
    indent: Any = None,
    separators: Any = None,
    sort_keys: bool = False,
) -> str:
    """Plain JSON, without the HTML escapes of Jinja's own filter, as templates for transformers expect it."""
    budget: Budget = context.parent[BUDGET]
    margin = indent if indent is None or isinstance(indent, str) else _small(indent, 100)
    encoder = json.JSONEncoder(
        ensure_ascii=bool(ensure_ascii), indent=margin, separators=separators, sort_keys=bool(sort_keys)
    )
    parts = []
    for part in encoder.iterencode(value):
        budget.pay(1 + len(part))
        parts.append(part)
    return "".join(parts)


def _small(value: Any, limit: int = MAX_WIDTH) -> int:
    if not isinstance(value, int) or not -limit <= value <= limit:
        raise SecurityError(f"{value!r} is out of range; numbers here are {-limit} to {limit}")
    return value


TEMPLATE_FILTERS: dict[str, Callable[..., Any]] = {
    **{name: _paying(FILTERS[name], name) for name in _PLAIN.split()},
    **dict.fromkeys(("e", "escape", "forceescape"), _escape),
    **dict.fromkeys(("string", "safe"), _string),
    "format": _percent,
    "indent": _indent,
    "join": _join,
    "replace": _replace,
    "round": _round,
    "sum": _sum,
    "tojson": _tojson,
    "-each": _each,
    "-copy": _copy,
    "-read": _read,
    "-concat": _concat,
}
