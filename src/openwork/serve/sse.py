"""Server-sent events: bytes that a client reads as ``data: {json}`` blocks, and comments that it skips.

A block is one line of JSON without line breaks: besides those that JSON escapes anyhow, the three characters beyond
ASCII at which some clients split lines (U+0085, U+2028, U+2029) are escaped too.
"""

from __future__ import annotations

from typing import Any

import msgspec

DONE = b"data: [DONE]\n\n"
KEEP_ALIVE = b": keep-alive\n\n"
_SEPARATORS = ((b"\xc2\x85", b"\\u0085"), (b"\xe2\x80\xa8", b"\\u2028"), (b"\xe2\x80\xa9", b"\\u2029"))
_ENCODER = msgspec.json.Encoder()


def json(value: Any) -> bytes:
    """A value as one line."""
    encoded = _ENCODER.encode(value)
    if not encoded.isascii():
        for separator, escape in _SEPARATORS:
            if separator in encoded:
                encoded = encoded.replace(separator, escape)
    return encoded


def event(value: Any, name: str = "") -> bytes:
    """One event; with a ``name``, of that type."""
    kind = f"event: {name}\n".encode() if name else b""
    return kind + b"data: " + json(value) + b"\n\n"


def progress(computed: int, known: int) -> bytes:
    """A comment that says how much of a prompt has been computed."""
    return f": prefill {computed}/{known}\n\n".encode()
