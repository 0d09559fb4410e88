"""Reading: stands at a place of a recording, gives the lines from there on, and goes on from where it stood.

It guarantees that a part that cannot be read costs only itself and what rests on it, up to the next key, and that lines
which are given behind a gap rest on nothing that is missing: what ``damage`` says. Where it begins in the middle the
key there stands for what was before.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from openwork.core.errors import TraceError
from openwork.trace.coding.decode import Decoder
from openwork.trace.coding.mirror import Mirror
from openwork.trace.entry import Began, Entry
from openwork.trace.index import File, Part
from openwork.trace.segments import SegmentReader


class Gap:
    """Lines are missing here."""


class Reading:
    """``began`` is the engine process whose lines were given last."""

    def __init__(self) -> None:
        self.damage: list[str] = []
        self.began: Began | None = None
        self._file: File | None = None
        self._at = 0  # byte of the file that it stands at
        self._decoder: Decoder | None = None

    def lines(self, parts: Iterable[Part]) -> Iterator[Entry | Mirror | Gap]:
        """The lines of these parts, in order, but for what was given before: entries; where lines are missing a Gap,
        and where that ends, what is known there."""
        for part in parts:
            if self._is_behind(part):
                continue
            was_sure = self._is_sure
            yield from self._enter(part)
            if was_sure and not self._is_sure and self._decoder is not None:
                yield Gap()
            yield from self._through(part)

    @property
    def _is_sure(self) -> bool:
        return self._decoder is None or self._decoder.is_sure

    def _is_behind(self, part: Part) -> bool:
        """Whether all of a part was given before."""
        if self._file is None:
            return False
        own, now = self._file.segment, part.file.segment
        return (now.run, now.number, part.end) <= (own.run, own.number, self._at)

    def _enter(self, part: Part) -> Iterator[Entry]:
        """Make ready for a part; at the first of a process, its beginning."""
        file, before = part.file, self._file
        if file is before and self._at >= part.start:  # it goes on here, or has been read
            return
        is_same = before is not None and before.segment.run == file.segment.run and self._decoder is not None
        if not is_same:
            self._decoder = self.began = None
            if file.head is not None:
                self.began = file.head.began
                self._decoder = Decoder(file.head.table, self.began.has_tokens, self.began.vocab_size)
                yield self.began
        if self._decoder is not None and not self._follows(part, before if is_same else None):
            self._decoder.lose()
        self._file, self._at = file, part.start

    def _follows(self, part: Part, before: File | None) -> bool:
        """Whether nothing is missing before a part of a file that reading comes to."""
        file = part.file
        if not part.is_first or file.head is None or file.head.lost:
            return False
        if before is None:
            return file.segment.number == 0
        return before.segment.number + 1 == file.segment.number and self._at == before.num_bytes and not before.cut

    def _through(self, part: Part) -> Iterator[Entry | Mirror | Gap]:
        if self._at >= part.end:
            return
        try:
            reader = SegmentReader(part.file.segment, self._at, part.end)
        except (OSError, TraceError):  # a recorder that goes on made room
            return
        for body in reader.frames():
            decoder = self._decoder
            self._at = reader.end
            if decoder is None:
                continue
            was_sure = decoder.is_sure
            try:
                if body is None:
                    decoder.lose()
                elif (entry := decoder.decode(body)) is not None:
                    yield entry
                elif decoder.is_sure and not was_sure:
                    yield decoder.mirror
            except TraceError as error:
                self.damage.append(f"{part.file.segment.path.name}: {error}")
            if was_sure and not decoder.is_sure:
                yield Gap()
        self._at = part.end
