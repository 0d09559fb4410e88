"""CallReader: tool calls in the notations that models use, read one character at a time.

A call is begun as soon as its name is certain, which must be one of the tools, and its arguments are told as they come.
What is held when a call turns out malformed is what was not told of it. It does not know marks, or what else is in a
reply.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from openwork.text.dialect import ToolFormat
from openwork.text.pythonic import read_arguments, read_name
from openwork.text.reading import (
    Feed,
    Malformed,
    Reading,
    read_exactly,
    read_key,
    read_object,
    read_space,
    read_string,
    read_value,
    skip_space,
)


def read_calls(form: ToolFormat, reader: CallReader) -> Reading[None]:
    yield from read_space(reader.feed)
    match form.notation:
        case "json":
            yield from reader.objects(is_one=bool(form.end))
        case "list":
            yield from reader.list()
        case "pythonic":
            yield from reader.pythonic()


@dataclass(frozen=True, slots=True)
class CallReader:
    """``begin`` is told the name of each call, ``argue`` then the JSON text of its arguments, piece by piece."""

    feed: Feed
    names: Collection[str]
    begin: Callable[[str], None]
    argue: Callable[[str], None]

    def objects(self, is_one: bool) -> Reading[None]:
        """One object, or several with semicolons or white space between them."""
        feed = self.feed
        yield from self._object()
        while not is_one:
            feed.held.clear()
            yield from skip_space(feed)
            if feed.char == ";":
                feed.keep()
                yield
                yield from read_space(feed)
            elif feed.char != "{":
                break
            yield from self._object()

    def list(self) -> Reading[None]:
        """[object, ...], or what newer tokenizers made of it: name[ARGS]{...}"""
        feed = self.feed
        if feed.char != "[":
            name = yield from read_name(feed)
            if name not in self.names:
                raise Malformed
            if feed.char == "[":
                yield from read_exactly(feed, "[ARGS]")
            yield from self._arguments(name)
            return
        yield from read_exactly(feed, "[")
        while True:
            yield from read_space(feed)
            yield from self._object()
            feed.held.clear()
            yield from read_space(feed)
            if feed.char != ",":
                break
            feed.keep()
            yield
        yield from read_exactly(feed, "]")

    def _object(self) -> Reading[None]:
        """{"name": ..., "arguments" or "parameters": {...}}, in any order, and others that say nothing to us."""
        feed = self.feed
        seen: set[str] = set()
        name = arguments = None
        yield from read_exactly(feed, "{")
        while True:
            yield from read_space(feed)
            key = yield from read_key(feed)
            key = "arguments" if key == "parameters" else key
            if key in seen:
                raise Malformed
            seen.add(key)
            if key == "name":
                name = yield from read_string(feed)
                if name not in self.names:
                    raise Malformed
                if arguments is not None:
                    self.begin(name)
                    self.argue(arguments)
            elif key != "arguments":
                yield from read_value(feed, 1)
            elif name is not None:
                yield from self._arguments(name)
                arguments = ""
            else:
                start = len(feed.held)
                yield from read_object(feed, 1)
                arguments = feed.since(start)
            yield from read_space(feed)
            if feed.char != ",":
                break
            feed.keep()
            yield
        yield from read_exactly(feed, "}")
        if name is None:
            raise Malformed
        if arguments is None:
            self.begin(name)
            self.argue("{}")

    def _arguments(self, name: str) -> Reading[None]:
        """An object, told as it comes."""
        if self.feed.char != "{":
            raise Malformed
        self.begin(name)
        self.feed.passes_on = self.argue
        yield from read_object(self.feed, 1)
        self.feed.passes_on = None

    def pythonic(self) -> Reading[None]:
        feed = self.feed
        yield from read_exactly(feed, "[")
        while True:
            yield from read_space(feed)
            name = yield from read_name(feed)
            if name not in self.names:
                raise Malformed
            yield from read_exactly(feed, "(")
            self.begin(name)
            yield from read_arguments(feed, self.argue)
            yield from read_space(feed)
            if feed.char != ",":
                break
            feed.keep()
            yield
        yield from read_exactly(feed, "]")
