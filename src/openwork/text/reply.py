"""ReplyParser: the growing text of an assistant's reply, told apart into content, reasoning and tool calls.

It guarantees that the deltas put together are the same however the text was cut into pieces; that the work is linear in
the length of the text; and that nothing is lost but marks, and white space around them: what does not turn out to be a
call of a known tool is content, word for word. A call is told as soon as its name is certain, and its arguments as they
come: together they are the JSON object that the model wrote, or, where the model stopped or went wrong in the middle of
it, the valid beginning of one, and what follows is content. Model output is hostile: nothing of it is evaluated.
It does not know tokens, templates or HTTP.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Collection, Generator, Iterator
from dataclasses import dataclass, replace
from itertools import groupby

from openwork.text.calls import CallReader, read_calls
from openwork.text.dialect import Span, ToolFormat
from openwork.text.reading import END, SPACE, Feed, Malformed, Reading, skip_space


@dataclass(frozen=True, slots=True)
class Content:
    text: str


@dataclass(frozen=True, slots=True)
class Reasoning:
    text: str


@dataclass(frozen=True, slots=True)
class ToolCall:
    """The call number ``index`` begins; its arguments follow, at least one piece of them where it is whole."""

    index: int
    id: str
    name: str


@dataclass(frozen=True, slots=True)
class Arguments:
    """A piece of the JSON text of a call's arguments."""

    index: int
    text: str


Delta = Content | Reasoning | ToolCall | Arguments


class ReplyParser:
    """The parser of one reply.

    ``tools``     how the model writes calls, ``names`` the tools that it may call; None: no calls are looked for
    ``span``      how it marks its reasoning; None: nothing is reasoning
    ``is_open``   the prompt ended within the reasoning
    ``opening``   what the reply was made to begin with: it counts as its own text, and is told with the first push
    """

    def __init__(
        self,
        tools: ToolFormat | None = None,
        names: Collection[str] = (),
        span: Span | None = None,
        *,
        is_open: bool = False,
        opening: str = "",
        make_id: Callable[[], str] | None = None,
    ) -> None:
        self.num_calls = 0
        self._tools = tools
        self._names = frozenset(names)
        self._span = span
        self._make_id = make_id or _make_random_id(None if tools is None else tools.id_length)
        self._feed = Feed()
        self._is_reasoning = False
        self._space: list[str] = []  # at the end of what was said: it is dropped before a mark
        self._told: list[Delta] = []
        self._reader: Generator[None, None, None] | None = None
        if tools is not None or span is not None:
            self._reader = self._read(is_open)
            next(self._reader)
        self._told = self.push(opening)

    def push(self, text: str) -> list[Delta]:
        """Takes the next text; returns what became certain."""
        if self._reader is None:
            return [*self._take(), Content(text)] if text else self._take()
        for char in text:
            self._feed.char = char
            next(self._reader)
        return self._take()

    def finish(self) -> list[Delta]:
        """No more text comes; returns the rest."""
        if self._reader is not None:
            self._feed.char = END
            next(self._reader, None)
            self._reader = None
            self._tell_all_space()
        return self._take()

    # -- telling -----------------------------------------------------------------------------------------------------

    def _take(self) -> list[Delta]:
        told, self._told = self._told, []
        return list(_merged(told))

    def _say(self, text: str) -> None:
        """Content, or reasoning within it. White space waits for what comes after it."""
        for char in text:
            if char in SPACE:
                self._space.append(char)
                continue
            self._tell_all_space()
            self._told.append(self._as_said(char))

    def _tell_all_space(self) -> None:
        if self._space:
            self._told.append(self._as_said("".join(self._space)))
            self._space.clear()

    def _as_said(self, text: str) -> Delta:
        return Reasoning(text) if self._is_reasoning else Content(text)

    def _begin(self, name: str) -> None:
        """A call is certain."""
        self._space.clear()
        self._feed.held.clear()
        self._told.append(ToolCall(self.num_calls, self._make_id(), name))
        self.num_calls += 1

    def _argue(self, text: str) -> None:
        if text:
            self._told.append(Arguments(self.num_calls - 1, text))

    # -- reading -----------------------------------------------------------------------------------------------------

    def _read(self, is_open: bool) -> Reading[None]:
        yield
        if is_open:
            yield from self._reason()
        is_start = True  # nothing was said yet
        may_reason = not is_open
        while self._feed.char != END:
            if self._feed.char in SPACE:
                self._say(self._feed.char)
                yield
                continue
            marks = self._marks(is_start, is_start and may_reason)
            if any(mark[0] == self._feed.char for mark in marks):
                mark = yield from self._mark(marks)
                if self._span is not None and mark == self._span.start:
                    yield from self._reason()
                    may_reason = False
                    continue
                if mark and self._tools is not None:
                    yield from self._calls(self._tools, mark)
            elif is_start and self._tools is not None and self._feed.char == self._tools.bare:
                yield from self._calls(self._tools, "")
            else:
                self._say(self._feed.char)
                yield
            is_start = False

    def _marks(self, is_start: bool, may_reason: bool) -> tuple[str, ...]:
        span = (self._span.start,) if self._span is not None and may_reason else ()
        if self._tools is None or not (is_start or self._tools.is_anywhere):
            return span
        return (*span, *self._tools.marks)

    def _mark(self, marks: tuple[str, ...]) -> Reading[str]:
        """The mark that stands here, or "": then what was read in vain has been said."""
        read = ""
        while self._feed.char != END:
            marks = tuple(mark for mark in marks if mark.startswith(read + self._feed.char))
            if not marks:
                break
            read += self._feed.char
            yield
            if read in marks:
                return read
        self._say(read)
        return ""

    def _reason(self) -> Reading[None]:
        assert self._span is not None
        self._space.clear()
        self._is_reasoning = True
        yield from skip_space(self._feed)
        while self._feed.char != END:
            if self._feed.char == self._span.end[0]:
                if (yield from self._mark((self._span.end,))):
                    self._space.clear()
                    self._is_reasoning = False
                    yield from skip_space(self._feed)
                    break
            else:
                self._say(self._feed.char)
                yield

    def _calls(self, tools: ToolFormat, mark: str) -> Reading[None]:
        """The calls behind a mark, or bare at the start of a reply. What is held when they go wrong is content."""
        feed = self._feed
        feed.held = list(mark)
        try:
            yield from read_calls(tools, CallReader(feed, self._names, self._begin, self._argue))
            yield from skip_space(feed)
            if tools.end and feed.char == tools.end[0] and (yield from self._mark((tools.end,))):
                yield from skip_space(feed)
        except Malformed:
            feed.passes_on = None
            self._say("".join(feed.held))
        feed.held.clear()


def _merged(told: list[Delta]) -> Iterator[Delta]:
    """Neighbours of the same kind as one."""
    for _, group in groupby(told, key=lambda delta: (type(delta), getattr(delta, "index", None))):
        deltas = list(group)
        match deltas[0]:
            case ToolCall():
                yield from deltas
            case Arguments(index=index):
                yield Arguments(index, "".join([delta.text for delta in deltas if isinstance(delta, Arguments)]))
            case Content() | Reasoning() as first:
                yield replace(first, text="".join([d.text for d in deltas if isinstance(d, (Content, Reasoning))]))


def _make_random_id(length: int | None) -> Callable[[], str]:
    if length is None:
        return lambda: "call_" + secrets.token_hex(12)
    return lambda: secrets.token_hex(length)[:length]
