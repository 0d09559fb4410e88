"""Sampling parameters as words: shown as a list, and read from what a person types."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from typing import Any

from openwork.core.errors import RequestError
from openwork.core.request import SamplingParams


def _flag(text: str) -> bool:
    return {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}[text.lower()]


def _count(text: str) -> int | None:
    return None if text.lower() == "none" else int(text)


def _texts(text: str) -> tuple[str, ...]:
    return () if text.lower() == "none" else tuple(shlex.split(text))


# What can be set in a conversation, and how it is read. The limits are SamplingParams' own.
READERS: dict[str, tuple[Callable[[str], Any], str]] = {
    "temperature": (float, "a number"),
    "top_p": (float, "a number"),
    "top_k": (int, "a whole number"),
    "min_p": (float, "a number"),
    "presence_penalty": (float, "a number"),
    "frequency_penalty": (float, "a number"),
    "repetition_penalty": (float, "a number"),
    "seed": (int, "a whole number"),
    "max_tokens": (_count, "a whole number or none"),
    "min_tokens": (int, "a whole number"),
    "stop": (_texts, 'texts such as END "two words", or none'),
    "ignore_eos": (_flag, "yes or no"),
}


def parse(name: str, text: str) -> Any:
    """The value of a parameter as typed. Raises RequestError naming what can be set, or how it is written."""
    if name not in READERS:
        what = f"there is no parameter {name!r}" if name else "needs a name and a value"
        raise RequestError(what, f"These can be set: {', '.join(READERS)}.", param="/set")
    read, form = READERS[name]
    try:
        return read(text)
    except (ValueError, KeyError):
        raise RequestError(f"must be {form}, not {text!r}", param=name) from None


def describe(params: SamplingParams) -> str:
    """One line for each parameter that can be set."""
    return "".join(f"  {name:20}{_words(getattr(params, name))}\n" for name in READERS)


def _words(value: Any) -> str:
    if value is None or value == ():
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return shlex.join(value) if isinstance(value, tuple) else str(value)
