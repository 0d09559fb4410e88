"""Recording: what a flight recorder wrote, read again. ``entries`` in order, ``requests`` by id, and what is damaged.

It guarantees that a part that cannot be read costs only itself and what rests on it, up to the next key; ``damage``
says what and why. It never raises for a part, and takes nothing it reads on trust: sizes, numbers, names are checked.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from openwork.core.errors import TraceError
from openwork.trace.coding.decode import Decoder
from openwork.trace.coding.mirror import Mirror
from openwork.trace.coding.plain import Reader
from openwork.trace.coding.shape import BEGAN, HEAD, Bytes
from openwork.trace.entry import Began, Entry
from openwork.trace.segments import Segment, SegmentReader, segments
from openwork.trace.story import Stories, Story


class Recording:
    """A directory. Files that are still being written can be read, as far as they go."""

    def __init__(self, directory: Path, files: list[Segment]) -> None:
        self.directory = directory
        self._files = files
        self._stories: dict[str, Story] | None = None
        self._damage: list[str] = []

    @staticmethod
    def open(directory: str | Path) -> Recording:
        """Raises TraceError when there is no recording in the directory, or none that can be read at all."""
        path = Path(directory).expanduser()
        try:
            files = segments(path)
        except OSError as error:
            raise TraceError(f"{path} cannot be read: {error.strerror}", "Name the directory of --record.") from error
        if not files:
            raise TraceError(f"there is no recording in {path}", "Name the directory that --record was given.")
        recording = Recording(path, files)
        if not any(True for _ in recording.entries()):
            why = recording._damage[0] if recording._damage else "every file of it is empty"
            raise TraceError(f"the recording in {path} cannot be read: {why}", "Record again.")
        return recording

    @property
    def damage(self) -> tuple[str, ...]:
        """What could not be read and why, oldest first."""
        self.requests()
        return tuple(self._damage)

    def entries(self) -> Iterator[Entry]:
        """All lines, of one engine process after the other, each process behind its Began."""
        return (each for each in self._walk() if not isinstance(each, Mirror | Gap))

    def requests(self) -> list[Story]:
        """All requests, in the order in which they came."""
        if self._stories is None:
            stories = Stories()
            for each in self._walk():
                if isinstance(each, Mirror):
                    stories.rejoin(each)
                elif isinstance(each, Gap):
                    stories.lose()
                else:
                    stories.tell(each)
            self._stories = stories.by_id
        return list(self._stories.values())

    def request(self, id: str) -> Story:
        """One request. Raises TraceError when it is not there."""
        self.requests()
        assert self._stories is not None
        if id not in self._stories:
            raise TraceError(
                f"there is no request {id!r} in {self.directory}", "openwork trace ls lists those there are."
            )
        return self._stories[id]

    # -- reading -------------------------------------------------------------------------------------------------

    def _walk(self) -> Iterator[Entry | Mirror | Gap]:
        """Entries; where lines are missing a Gap, and where that ends, what is known there."""
        self._damage = []
        process = _Process(None, None)
        for segment in self._files:
            try:
                file = SegmentReader(segment)
            except FileNotFoundError:  # a recorder that goes on made room
                continue
            except (OSError, TraceError) as error:
                self._damage.append(getattr(error, "strerror", None) or str(error))
                process.lose()
                continue
            for place, body in enumerate(file.frames()):
                yield from self._read(process, segment, place, body)
            self._damage += file.damage
            if file.is_cut:
                process.lose()

    def _read(
        self, process: _Process, segment: Segment, place: int, body: bytes | None
    ) -> Iterator[Entry | Mirror | Gap]:
        was_sure = process.is_sure
        try:
            if place == 0:
                yield from process.begin(segment, body)
            elif body is None:
                process.lose()
            else:
                yield from process.decode(body)
        except TraceError as error:
            self._damage.append(f"{segment.path.name}: {error}")
        if was_sure and not process.is_sure:
            yield Gap()


class Gap:
    """Lines are missing here."""


class _Process:
    """The engine process whose files are being read."""

    def __init__(self, run: int | None, decoder: Decoder | None) -> None:
        self._run = run
        self._decoder = decoder
        self._next = 0

    @property
    def is_sure(self) -> bool:
        """Whether nothing is missing before what comes next."""
        return self._decoder is None or self._decoder.is_sure

    def lose(self) -> None:
        if self._decoder is not None:
            self._decoder.lose()

    def begin(self, segment: Segment, body: bytes | None) -> Iterator[Entry]:
        """The first frame of a file. Raises TraceError when it does not say who wrote the file."""
        is_same = segment.run == self._run and self._decoder is not None
        if body is None or HEAD.unpack_from(body)[0] != BEGAN:
            if not is_same:
                self._run = self._decoder = None
            self.lose()
            raise TraceError("it does not say whose it is")
        lost, table, said = _about(body)
        began: Began = Reader(table).read(Began, said)
        if not is_same:
            self._run, self._next = segment.run, 0
            self._decoder = Decoder(table, began.has_tokens, began.vocab_size)
            yield began
        if segment.number != self._next or lost:
            self.lose()
        self._next = segment.number + 1

    def decode(self, body: bytes) -> Iterator[Entry | Mirror]:
        decoder = self._decoder
        if decoder is None:
            return
        was_sure = decoder.is_sure
        entry = decoder.decode(body)
        if entry is not None:
            yield entry
        elif decoder.is_sure and not was_sure:
            yield decoder.mirror


def _about(body: bytes) -> tuple[int, Any, Any]:
    try:
        _, _, lost, table, said = Bytes(body, HEAD.size).rest()
        is_table = all(isinstance(name, str) for names in table.values() for name in names)
    except Exception as error:  # the right checksum, and no line all the same
        raise TraceError(f"it does not say whose it is: {str(error)[:200]}") from error
    if not is_table:
        raise TraceError("its table of fields is none")
    return lost, table, said
