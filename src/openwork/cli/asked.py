"""Settings that somebody asks about, in words: "kv-blocks=0.5x" is a Change. Whatever cannot be is refused by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import product
from typing import Any, get_args

from openwork.core.errors import RequestError
from openwork.core.settings import First, Order, SpeculationSettings
from openwork.trace.whatif.change import Change

Fields = dict[str, Any]  # of a Change
NONE = "none"
TENANT: dict[str, Callable[[str], float]] = {
    "weight": float,
    "max_running": int,
    "max_waiting": int,
    "max_waiting_tokens": int,
    "max_blocks": int,
    "reserved_blocks": int,
}
MOST = 2**31


def change(words: Mapping[str, str], tenants: tuple[str, ...] = ()) -> Change:
    """What was asked for, by name. Raises RequestError."""
    fields: Fields = {}
    unbounded: set[str] = set()
    for name, text in words.items():
        if name not in KNOWN:
            raise RequestError(f"names {name!r}", f"Choose of {', '.join(KNOWN)}.", param="sweep")
        found = KNOWN[name](name, text)
        unbounded |= found.pop("unbounded", frozenset())
        fields |= found
    return Change(**fields, unbounded=frozenset(unbounded), tenants=dict(_tenant(text) for text in tenants))


def grid(sweeps: tuple[str, ...]) -> list[dict[str, str]]:
    """Every combination of "NAME=VALUE,VALUE,...". Raises RequestError."""
    axes = []
    for text in sweeps:
        name, is_there, values = text.partition("=")
        found = [value.strip() for value in values.split(",") if value.strip()]
        if not is_there or not found:
            raise RequestError(f"is {text!r}", "Give NAME=VALUE,VALUE,... such as kv-blocks=0.5x,1x,2x.", param="sweep")
        axes.append([(name.strip(), value) for value in found])
    return [dict(each) for each in product(*axes)]


def label(words: Mapping[str, str]) -> str:
    """A combination as a row is called."""
    return ", ".join(f"{name} {value}" for name, value in words.items())


def _blocks(name: str, text: str) -> Fields:
    """Blocks, or times as many as there were."""
    try:
        if text.endswith("x"):
            if 0 < (factor := float(text[:-1])) <= 1000:
                return {"blocks_factor": factor, "blocks": None}
        elif 1 <= (blocks := int(text)) <= MOST:
            return {"blocks": blocks, "blocks_factor": None}
    except ValueError:
        pass
    raise RequestError(f"is {text!r}", "Give a number of blocks, such as 2000, or a factor, such as 0.5x.", param=name)


def _switch(field: str) -> Callable[[str, str], Fields]:
    def read(name: str, text: str) -> Fields:
        if text not in ("on", "off"):
            raise RequestError(f"is {text!r}", "Say on or off.", param=name)
        return {field: text == "on"}

    return read


def _choice(field: str, known: tuple[str, ...]) -> Callable[[str, str], Fields]:
    def read(name: str, text: str) -> Fields:
        if text not in known:
            raise RequestError(f"is {text!r}", f"Choose one of {', '.join(known)}.", param=name)
        return {field: text}

    return read


def _whole(field: str, has_none: bool = False) -> Callable[[str, str], Fields]:
    def read(name: str, text: str) -> Fields:
        if has_none and text == NONE:
            return {"unbounded": {field}}
        if not (text.isascii() and text.isdigit() and 1 <= int(text[:12]) <= MOST):
            more = f", or {NONE}" if has_none else ""
            raise RequestError(f"is {text!r}", f"Give a whole number from 1 up{more}.", param=name)
        return {field: int(text)}

    return read


def _real(field: str, unit: float = 1.0, has_none: bool = True) -> Callable[[str, str], Fields]:
    def read(name: str, text: str) -> Fields:
        if has_none and text == NONE:
            return {"unbounded": {field}}
        try:
            value = float(text)
        except ValueError:
            value = 0.0
        if not 0 < value < float("inf"):
            raise RequestError(
                f"is {text!r}", f"Give a number above 0{f', or {NONE}' if has_none else ''}.", param=name
            )
        return {field: value * unit}

    return read


def _speculate(name: str, text: str) -> Fields:
    if text == "off":
        return {"unbounded": {"speculation"}}
    guess, _, most = text.partition(":")
    if guess != "ngram" or (most and not most.isdigit()):
        raise RequestError(f"is {text!r}", "Say ngram, ngram:8 for at most 8 tokens, or off.", param=name)
    return {"speculation": SpeculationSettings(guess, int(most)) if most else SpeculationSettings(guess)}


def _tenant(text: str) -> tuple[str, dict[str, float]]:
    """ "NAME:weight=2,max_running=8": what is granted to a tenant."""
    name, _, terms = text.rpartition(":")
    found: dict[str, float] = {}
    for term in terms.split(","):
        key, _, value = term.partition("=")
        try:
            found[key] = TENANT[key](value)
        except (KeyError, ValueError):
            raise RequestError(
                f"is {text!r}", f"Give NAME:TERM=VALUE,... with terms of {', '.join(TENANT)}.", param="tenant"
            ) from None
    return name, found


KNOWN: dict[str, Callable[[str, str], Fields]] = {
    "kv-blocks": _blocks,
    "prefix-cache": _switch("prefix"),
    "step-rows": _whole("max_step_tokens"),
    "max-running": _whole("max_running"),
    "stretch": _real("stretch"),
    "next-token-ms": _real("next_token_s", 1e-3),
    "first": _choice("first", get_args(First)),
    "policy": _choice("order", get_args(Order)),
    "fair": _switch("is_fair"),
    "patience": _real("patience_s", has_none=False),
    "speculate": _speculate,
    "max-waiting": _whole("max_waiting", has_none=True),
    "max-waiting-tokens": _whole("max_waiting_tokens", has_none=True),
    "max-request-blocks": _whole("max_blocks", has_none=True),
}
