"""Answers: what the pieces of an exchange say, once it is over.

It reads HTTP/1.1 (plain, chunked, or to the end of the connection) and in it server-sent events as OpenAI-compatible
servers send them, and guarantees an Answer for every exchange: complete, or with the kind of its failure. The time of
an event is that of the piece which completed it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from traffic.client import Exchange


@dataclass(frozen=True, slots=True)
class Answer:
    """What one request got. Times are those of the exchange.

    ``failure`` is empty when the answer is whole; else "refused", "reset", "timeout", "status N", "error event" (the
    server said so within the stream), "cut" (it ended without saying so) or "malformed".
    """

    due_s: float
    sent_s: float
    ended_s: float
    failure: str
    text_times_s: tuple[float, ...] = ()  # of the chunks that brought text
    text: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int | None = None  # None: the server does not tell

    @property
    def is_whole(self) -> bool:
        return not self.failure

    @property
    def first_s(self) -> float:
        """From when it was due to its first text."""
        return self.text_times_s[0] - self.due_s

    @property
    def gaps_s(self) -> list[float]:
        """Between one chunk of text and the next."""
        return [after - before for before, after in zip(self.text_times_s, self.text_times_s[1:], strict=False)]


class Malformed(Exception):
    """What came is not what the protocol says."""


def understand(exchange: Exchange) -> Answer:
    """The answer of an exchange; never raises."""
    times: list[float] = []
    texts: list[str] = []
    usage: dict[str, Any] = {}
    failure = exchange.failure
    try:
        ending = _walk(exchange.pieces, times, texts, usage)
        failure = failure or ending
    except (Malformed, ValueError, TypeError, KeyError, AttributeError):
        failure = failure or "malformed"
    if not failure and not times:
        failure = "empty"
    details = usage.get("prompt_tokens_details") or {}
    return Answer(
        exchange.due_s,
        exchange.sent_s,
        exchange.ended_s,
        failure,
        tuple(times),
        "".join(texts),
        int(usage.get("prompt_tokens") or 0),
        int(usage.get("completion_tokens") or len(times)),
        details.get("cached_tokens"),
    )


def _walk(pieces: list[tuple[float, bytes]], times: list[float], texts: list[str], usage: dict[str, Any]) -> str:
    """Fill in what the events bring; how the answer failed, or nothing."""
    reader = HttpReader()
    is_done, error = False, ""
    for at_s, piece in pieces:
        for line in reader.feed(piece):
            if not line.startswith(b"data:"):
                continue
            data = line[5:].strip()
            if data == b"[DONE]":
                is_done = True
                continue
            event = json.loads(data)
            if event.get("error"):
                error = "error event"
            usage.update(event.get("usage") or {})
            if text := "".join(map(_text, event.get("choices") or ())):
                times.append(at_s)
                texts.append(text)
    if reader.status and reader.status != 200:
        return f"status {reader.status}"
    return error or ("" if is_done else "cut")


def _text(choice: dict[str, Any]) -> str:
    delta = choice.get("delta") or {}
    return choice.get("text") or delta.get("content") or delta.get("reasoning_content") or ""


class HttpReader:
    """The lines of one response's body, as its bytes come. ``status`` is 0 until the head is there."""

    def __init__(self) -> None:
        self.status = 0
        self.body = b""  # the part of the body that is no whole line yet
        self._raw = b""
        self._is_chunked = False
        self._left = 0  # bytes of the current chunk

    def feed(self, piece: bytes) -> Iterator[bytes]:
        """The lines that this piece completes, without their ends. Raises Malformed."""
        self._raw += piece
        if not self.status and not self._read_head():
            return
        self.body += self._dechunked() if self._is_chunked else self._take(len(self._raw))
        *whole, self.body = self.body.split(b"\n")
        for line in whole:
            yield line.rstrip(b"\r")

    def _read_head(self) -> bool:
        head, found, rest = self._raw.partition(b"\r\n\r\n")
        if not found:
            return False
        first, *fields = head.split(b"\r\n")
        words = first.split(b" ", 2)
        if not words[0].startswith(b"HTTP/1.") or len(words) < 2 or not words[1].isdigit():
            raise Malformed(f"not a response: {first[:80]!r}")
        self.status = int(words[1])
        self._is_chunked = any(each.lower().replace(b" ", b"") == b"transfer-encoding:chunked" for each in fields)
        self._raw = rest
        return True

    def _dechunked(self) -> bytes:
        found = []
        while self._raw:
            if self._left > 2:  # the last two bytes of a chunk are the end of its line
                found.append(self._take(min(self._left - 2, len(self._raw))))
                self._left -= len(found[-1])
            elif self._left:
                self._left -= len(self._take(min(self._left, len(self._raw))))
            else:
                line, ended, rest = self._raw.partition(b"\r\n")
                if not ended:
                    break
                self._raw = rest
                self._left = int(line.split(b";")[0], 16) + 2
        return b"".join(found)

    def _take(self, count: int) -> bytes:
        taken, self._raw = self._raw[:count], self._raw[count:]
        return taken
