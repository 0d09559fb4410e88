"""Frames: messages as bytes and back, whatever pieces the bytes come in.

    4 bytes    b"owk1": whose frame this is, and the version of the schema
    4 bytes    length of the body, little endian
    4 bytes    CRC-32 of the body
    body       msgpack of one message: an array whose first entry says which

It guarantees that whatever comes, it becomes messages of the expected direction or one EngineError, and that no more
memory is taken than that direction may have in one frame. It does not know sockets, or what the messages mean.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgspec

from openwork.cluster.wire import Down, Message, Up
from openwork.core.errors import EngineError, OpenworkError

MAGIC = b"owk1"
HEADER = struct.Struct("<4sII")


@dataclass(frozen=True, slots=True)
class Direction:
    """Which messages go one way, and how large one may be."""

    messages: Any
    max_bytes: int


DOWN = Direction(Down, 64 * 2**20)  # a prompt of ten million tokens
UP = Direction(Up, 256 * 2**20)  # the log-probabilities of a long prompt, twenty beside each token

_encoder = msgspec.msgpack.Encoder()


def frame(message: Message, direction: Direction) -> bytes:
    """One message, ready to be sent. Raises EngineError when it is larger than the other side would take."""
    body = _encoder.encode(message)
    if len(body) > direction.max_bytes:
        kind = type(message).__name__
        raise EngineError(f"a {kind} message has {len(body):,} bytes; {direction.max_bytes:,} may be sent")
    return HEADER.pack(MAGIC, len(body), zlib.crc32(body)) + body


class Frames:
    """Bytes as they come, in pieces of any size, back into messages."""

    def __init__(self, direction: Direction) -> None:
        self._decoder: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(direction.messages)
        self._max_bytes = direction.max_bytes
        self._kept = bytearray()

    def feed(self, data: bytes) -> Iterator[Any]:
        """Every message that is whole now. Raises EngineError at the first byte that cannot be right.

        After an error nothing that follows can be trusted: the channel is to be closed.
        """
        self._kept += data
        at = 0
        try:
            while len(self._kept) - at >= HEADER.size:
                magic, length, checksum = HEADER.unpack_from(self._kept, at)
                if magic != MAGIC or length > self._max_bytes:
                    raise _broken("a frame begins with what is no header, or is larger than any may be")
                end = at + HEADER.size + length
                if len(self._kept) < end:
                    break
                body = bytes(memoryview(self._kept)[at + HEADER.size : end])
                at = end
                if zlib.crc32(body) != checksum:
                    raise _broken("a frame is not what was sent")
                yield self._decode(body)
        finally:
            del self._kept[:at]

    def _decode(self, body: bytes) -> Any:
        try:
            return self._decoder.decode(body)
        except (msgspec.MsgspecError, OpenworkError, RecursionError, UnicodeDecodeError) as error:
            raise _broken(f"a message is not in the schema: {str(error)[:200]}") from error


def _broken(what: str) -> EngineError:
    return EngineError(f"on the engine's channel, {what}", "Both ends must be of one version of openwork.")
