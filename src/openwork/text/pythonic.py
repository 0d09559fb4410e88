"""Pythonic: calls that a model writes as Python does, read one character at a time and told as JSON.

    [weather(city="Oslo", days=2), time()]     weather  {"city": "Oslo", "days": 2}     time  {}

Only this notation is known: keyword arguments, whose values are texts, numbers, True, False, None, lists, and dicts
with texts as keys. Nothing is evaluated. It does not know which functions there are.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from string import ascii_letters, digits

from openwork.text.reading import MAX_DEPTH, Feed, Malformed, Reading, read_exactly, read_number, read_space

_IN_NAME = frozenset(ascii_letters + digits + "_-.")
_WORDS = {"True": "true", "False": "false", "None": "null", "true": "true", "false": "false", "null": "null"}
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "v": "\v", "a": "\a", "0": "\0"}
_ESCAPES |= {"\\": "\\", "'": "'", '"': '"'}
_HEX_DIGITS = {"x": 2, "u": 4}
MAX_NAME = 64

Tell = Callable[[str], None]


def read_name(feed: Feed) -> Reading[str]:
    name: list[str] = []
    while feed.char in _IN_NAME and len(name) < MAX_NAME:
        name.append(feed.char)
        feed.keep()
        yield
    if not name:
        raise Malformed
    return "".join(name)


def read_arguments(feed: Feed, tell: Tell) -> Reading[None]:
    """From behind the opening bracket through the closing one. ``tell`` gets a JSON object, piece by piece.

    What was told is no longer held, so what is held when something is malformed is what was not told.
    """
    yield from read_space(feed)
    names: set[str] = set()
    tell("{")
    feed.held.clear()
    while feed.char != ")":
        name = yield from read_name(feed)
        if name in names:
            raise Malformed
        yield from read_space(feed)
        yield from read_exactly(feed, "=")
        yield from read_space(feed)
        tell((", " if names else "") + json.dumps(name) + ": ")
        feed.held.clear()
        names.add(name)
        yield from _read_value(feed, tell, 1)
        yield from read_space(feed)
        if feed.char != ",":
            break
        yield from _next(feed)
    yield from read_exactly(feed, ")")
    tell("}")
    feed.held.clear()


def _read_value(feed: Feed, tell: Tell, depth: int) -> Reading[None]:
    if depth >= MAX_DEPTH:
        raise Malformed
    if feed.char in ("'", '"'):
        yield from _read_text(feed, tell)
    elif feed.char == "[":
        yield from _read_items(feed, tell, depth, "]")
    elif feed.char == "{":
        yield from _read_items(feed, tell, depth, "}")
    elif feed.char == "-" or feed.char.isdecimal():
        tell((yield from read_number(feed)))
    else:
        word = yield from read_name(feed)
        if word not in _WORDS:
            raise Malformed
        tell(_WORDS[word])
    feed.held.clear()


def _read_items(feed: Feed, tell: Tell, depth: int, close: str) -> Reading[None]:
    """The items of a list, or the pairs of a dict."""
    tell(feed.char)
    feed.held.clear()
    separator = ""
    yield  # the opening bracket is told, not kept
    yield from read_space(feed)
    while feed.char != close:
        tell(separator)
        if close == "}":
            if feed.char not in ("'", '"'):
                raise Malformed
            yield from _read_text(feed, tell)
            yield from read_space(feed)
            yield from read_exactly(feed, ":")
            yield from read_space(feed)
            tell(": ")
            feed.held.clear()
        yield from _read_value(feed, tell, depth + 1)
        yield from read_space(feed)
        separator = ", "
        if feed.char != ",":
            break
        yield from _next(feed)
    yield from read_exactly(feed, close)
    tell(close)


def _read_text(feed: Feed, tell: Tell) -> Reading[None]:
    quote = feed.char
    tell('"')
    yield
    while feed.char != quote:
        if feed.char == "\\":
            told = yield from _read_escape(feed)
        elif feed.char:
            told = json.dumps(feed.char, ensure_ascii=False)[1:-1]
            yield
        else:
            raise Malformed
        tell(told)
        feed.held.clear()
    tell('"')
    yield


def _read_escape(feed: Feed) -> Reading[str]:
    """A backslash and what follows it, as JSON writes that."""
    feed.keep()
    yield
    if feed.char in _ESCAPES:
        told = json.dumps(_ESCAPES[feed.char])[1:-1]
        feed.keep()
        yield
        return told
    if feed.char not in _HEX_DIGITS:
        raise Malformed
    count = _HEX_DIGITS[feed.char]
    code = ""
    for _ in range(count):
        feed.keep()
        yield
        if feed.char not in "0123456789abcdefABCDEF" or not feed.char:
            raise Malformed
        code += feed.char
    feed.keep()
    yield
    return "\\u" + code.rjust(4, "0")


def _next(feed: Feed) -> Reading[None]:
    feed.keep()
    yield
    yield from read_space(feed)
