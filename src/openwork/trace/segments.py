"""Segments: the files of a recording. Frames with checksums, oldest files first to go.

    <run>-<segment>.flight      MAGIC, then frames; ``run`` counts engine processes, ``segment`` their files, from 0
    frame                       length 4 | CRC-32 of the body 4 | body      little endian
    first frame                 who writes: the body of shape.BEGAN
    MARK and a key              where a reader can begin anew; the first after the first frame, but in segment 0

A file that ends in the middle of a frame was cut off there, and is whole up to it. It does not know what is in a frame.
"""

from __future__ import annotations

import os
import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from openwork.core.errors import TraceError

MAGIC = b"openwork flight recording 1\n"
MARK = b"\xffOWKEY\xfe\n"  # as a length it would be more than any frame has
FRAME = struct.Struct("<II")
MAX_BODY_BYTES = 1 << 28
SEARCHED_BYTES = 1 << 16  # behind a frame that is broken, for another
_NAME = re.compile(r"(\d{6,12})-(\d{6,12})\.flight")


@dataclass(frozen=True, slots=True, order=True)
class Segment:
    run: int
    number: int
    path: Path


def segments(directory: Path) -> list[Segment]:
    """Those there are, oldest first. Raises OSError."""
    found = ((match, path) for path in directory.iterdir() if (match := _NAME.fullmatch(path.name)))
    return sorted(Segment(int(match[1]), int(match[2]), path) for match, path in found)


def frame(body: bytes) -> bytes:
    return FRAME.pack(len(body), zlib.crc32(body)) + body


class SegmentFile:
    """One file being written. Whatever fails raises OSError, and leaves the file whole up to the last frame."""

    def __init__(self, directory: Path, run: int, number: int, first: bytes) -> None:
        """Raises FileExistsError when somebody else has that name."""
        self.path = directory / f"{run:06d}-{number:06d}.flight"
        self.num_bytes = 0
        self._file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            self.write(MAGIC + first)
        except OSError:
            self.close()
            self.path.unlink(missing_ok=True)
            raise

    def write(self, data: bytes) -> None:
        """Hand it to the operating system, whole: what a process has handed over outlives it."""
        written = 0
        try:
            while written < len(data):
                written += os.write(self._file, data[written:] if written else data)
        except OSError:
            if written:
                os.ftruncate(self._file, self.num_bytes)
            raise
        self.num_bytes += len(data)

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None  # type: ignore[assignment]


class SegmentReader:
    """The frames of one file, or of a stretch of it. Once they have been taken, ``damage`` says what could not be read,
    and ``is_cut`` whether that is only the end: what was being written when its process was killed, or is right now.

    ``at`` and ``end`` are the bytes between which the frame stands that was given last, with its mark if it
    ``has_mark``; behind the last frame both are where reading can go on when the file has grown.
    """

    def __init__(self, segment: Segment, start: int = 0, end: int | None = None) -> None:
        """``start`` is 0 or where a frame begins. Raises OSError, and TraceError for a file that is no recording."""
        self.segment = segment
        self.damage: list[str] = []
        self.is_cut = self.has_mark = False
        self.at = self.end = self._start = start or len(MAGIC)
        with segment.path.open("rb") as file:
            if file.read(len(MAGIC)) != MAGIC:
                raise TraceError(f"{segment.path.name} is no recording, or of another version of openwork")
            file.seek(self._start)
            self.data = file.read() if end is None else file.read(max(0, end - self._start))

    def frames(self) -> Iterator[bytes | None]:
        """Bodies in order; None where something is missing between two."""
        data, at, first = self.data, 0, self._start
        size, head, crc32 = FRAME.size, FRAME.unpack_from, zlib.crc32
        while at < len(data):
            self.at = first + at
            self.has_mark = data.startswith(MARK, at)
            start = at + len(MARK) + size if self.has_mark else at + size
            if start <= len(data):  # the usual way, without a call
                length, checksum = head(data, start - size)
                body = data[start : start + length] if length <= MAX_BODY_BYTES else b""
                if len(body) == length and crc32(body) == checksum:
                    at = start + length
                    self.end = first + at
                    yield body
                    continue
            key = data.find(MARK, at + self.has_mark)
            while key >= 0 and self._body(key + len(MARK)) is None:
                key = data.find(MARK, key + 1)
            end = len(data) if key < 0 else key
            self.is_cut = key < 0 and self._is_cut(start - size)
            what = "it ends in the middle of a line" if self.is_cut else f"{end - at} bytes are not what was written"
            self.damage.append(f"{self.segment.path.name}: at byte {first + at}, {what}")
            if self.is_cut:
                self.end = self.at
                return
            self.end = first + end
            yield None
            at = end
        self.at = self.end = first + at

    def _body(self, at: int) -> bytes | None:
        """The body of a frame that is whole and right."""
        if at + FRAME.size > len(self.data):
            return None
        length, checksum = FRAME.unpack_from(self.data, at)
        start = at + FRAME.size
        if length > MAX_BODY_BYTES or start + length > len(self.data):
            return None
        body = self.data[start : start + length]
        return body if zlib.crc32(body) == checksum else None

    def _is_cut(self, at: int) -> bool:
        """Whether the frame here is merely not all there, and nothing that was one follows."""
        left = len(self.data) - at
        if left >= FRAME.size and FRAME.unpack_from(self.data, at)[0] <= left - FRAME.size:
            return False
        return not any(self._body(place) for place in range(at + 1, min(len(self.data), at + SEARCHED_BYTES)))
