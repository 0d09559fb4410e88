"""Reading: JSON, one character at a time, for texts that are not all there yet.

Each rule is a generator that looks at ``feed.char``, keeps what it takes and yields for the next; it ends with the
first character that is not its own in ``feed.char``. So a reader waits in the middle of anything, looks at every
character once, and needs no second attempt. What is read is JSON as RFC 8259 has it, to a bounded depth, and nothing
more lenient. It does not know what the JSON means.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Generator
from typing import TypeVar

END = ""  # in place of a character: no more will come
MAX_DEPTH = 64
MAX_NUMBER = 400  # characters

SPACE = frozenset(" \t\n\r")
_ESCAPES = frozenset('"\\/bfnrt')
_HEX = frozenset("0123456789abcdefABCDEF")
_IN_NUMBER = frozenset("+-.0123456789eE")
_STARTS_NUMBER = frozenset("-0123456789")
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_WORDS = {"t": "true", "f": "false", "n": "null"}

T = TypeVar("T")
Reading = Generator[None, None, T]


class Malformed(Exception):
    """The character in sight cannot stand there."""


class Feed:
    """The character in sight, and those that were kept: in ``held``, or handed to ``passes_on`` where it is set."""

    def __init__(self) -> None:
        self.char = END
        self.held: list[str] = []
        self.passes_on: Callable[[str], None] | None = None

    def keep(self) -> None:
        """The character in sight is taken; to be followed by a yield for the next."""
        if self.passes_on is None:
            self.held.append(self.char)
        else:
            self.passes_on(self.char)

    def since(self, place: int) -> str:
        """What was held from a place on."""
        return "".join(self.held[place:])


def read_space(feed: Feed) -> Reading[None]:
    while feed.char in SPACE:
        feed.keep()
        yield


def skip_space(feed: Feed) -> Reading[None]:
    """Nothing of it is kept."""
    while feed.char in SPACE:
        yield


def read_exactly(feed: Feed, text: str) -> Reading[None]:
    for char in text:
        if feed.char != char:
            raise Malformed
        feed.keep()
        yield


def read_value(feed: Feed, depth: int = 0) -> Reading[None]:
    """Any value; ``depth`` is how many objects and lists it stands in."""
    char = feed.char
    if char == "{":
        yield from read_object(feed, depth)
    elif char == "[":
        yield from _read_list(feed, depth)
    elif char == '"':
        yield from read_string(feed)
    elif char in _STARTS_NUMBER:
        yield from read_number(feed)
    elif char in _WORDS:
        yield from read_exactly(feed, _WORDS[char])
    else:
        raise Malformed


def read_object(feed: Feed, depth: int = 0) -> Reading[None]:
    yield from _enter(feed, "{", depth)
    if feed.char != "}":
        while True:
            yield from read_key(feed)
            yield from read_value(feed, depth + 1)
            yield from read_space(feed)
            if feed.char != ",":
                break
            yield from _next(feed)
    yield from read_exactly(feed, "}")


def read_key(feed: Feed) -> Reading[str]:
    """A key, its colon, and the space before the value; the text of the key, where it was held."""
    key = yield from read_string(feed)
    yield from read_space(feed)
    yield from read_exactly(feed, ":")
    yield from read_space(feed)
    return key


def read_string(feed: Feed) -> Reading[str]:
    """The text that it stands for, where it was held; else ""."""
    start = len(feed.held)
    yield from read_exactly(feed, '"')
    while feed.char != '"':
        if feed.char < " ":  # a control character, or the end
            raise Malformed
        if feed.char == "\\":
            feed.keep()
            yield
            if feed.char == "u":
                for _ in range(4):
                    feed.keep()
                    yield
                    if feed.char not in _HEX:
                        raise Malformed
            elif feed.char not in _ESCAPES:
                raise Malformed
        feed.keep()
        yield
    feed.keep()
    yield
    if feed.passes_on is not None:
        return ""
    text: str = json.loads(feed.since(start))
    return text


def read_number(feed: Feed) -> Reading[str]:
    digits: list[str] = []
    while feed.char in _IN_NUMBER and len(digits) <= MAX_NUMBER:
        digits.append(feed.char)
        feed.keep()
        yield
    number = "".join(digits)
    if len(digits) > MAX_NUMBER or not _NUMBER.fullmatch(number):
        raise Malformed
    return number


def _read_list(feed: Feed, depth: int) -> Reading[None]:
    yield from _enter(feed, "[", depth)
    if feed.char != "]":
        while True:
            yield from read_value(feed, depth + 1)
            yield from read_space(feed)
            if feed.char != ",":
                break
            yield from _next(feed)
    yield from read_exactly(feed, "]")


def _enter(feed: Feed, bracket: str, depth: int) -> Reading[None]:
    if depth >= MAX_DEPTH:
        raise Malformed
    yield from read_exactly(feed, bracket)
    yield from read_space(feed)


def _next(feed: Feed) -> Reading[None]:
    feed.keep()
    yield
    yield from read_space(feed)
