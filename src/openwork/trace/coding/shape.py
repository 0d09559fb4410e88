"""Shape: what a line looks like in bytes, and the numbers and words that it is made of.

    kind 1 | time 8 | what is new

Whole numbers are LEB128, tokens words of 4 bytes, hashes 8, all little endian; what is rare is msgpack. Reading takes
no more memory than the bytes that are there. Raises TraceError for what is cut off or cannot be a number.
"""

from __future__ import annotations

import struct
from array import array
from typing import Any

import msgspec

from openwork.core.errors import TraceError

BEGAN, KEY, SUBMITTED, CANCELLED, PINNED, REPLACED, RESTORED, PLANNED, WAITED, RAN, FAILED, DECIDED = range(1, 13)
PICTURE = 32
HEAD = struct.Struct("<Bd")
REAL = struct.Struct("<d")

pack = msgspec.msgpack.Encoder().encode
unpack = msgspec.msgpack.Decoder().decode


def rare(kind: int, time: float, what: Any) -> bytes:
    """A line that has no shorthand."""
    return HEAD.pack(kind, time) + pack(what)


def put(out: bytearray, number: int) -> None:
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)


def put_bytes(out: bytearray, data: bytes) -> None:
    put(out, len(data))
    out += data


class Bytes:
    """One line, read from front to back."""

    def __init__(self, data: bytes, at: int = 0) -> None:
        self.data = data
        self.at = at

    @property
    def is_over(self) -> bool:
        return self.at >= len(self.data)

    def take(self, size: int) -> bytes:
        end = self.at + size
        if size < 0 or end > len(self.data):
            raise TraceError("it ends in the middle of something")
        part = self.data[self.at : end]
        self.at = end
        return part

    def byte(self) -> int:
        at = self.at
        if at >= len(self.data):
            raise TraceError("it ends in the middle of something")
        self.at = at + 1
        return self.data[at]

    def number(self) -> int:
        found = shift = 0
        while (byte := self.byte()) > 127:
            found |= (byte & 127) << shift
            shift += 7
            if shift > 63:
                raise TraceError("a number is too long")
        return found | byte << shift

    def count(self, size: int) -> int:
        """How many things of at least ``size`` bytes follow."""
        number = self.number()
        if number * size > len(self.data) - self.at:
            raise TraceError("more is announced than there is")
        return number

    def words(self, count: int) -> array[int]:
        return array("I", self.take(4 * count))

    def packed(self) -> Any:
        return unpack(self.take(self.count(1)))

    def rest(self) -> Any:
        return unpack(self.take(len(self.data) - self.at))

    def real(self) -> float:
        return float(REAL.unpack(self.take(8))[0])
