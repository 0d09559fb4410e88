"""Index: where in a recording something stands, found by skimming its frames: no line is decoded for it.

A part is what lies between two keys: a reader can begin at any. Of each part it is known which requests came in it or
were under way when it began, so that one request can be read without the rest. ``refresh`` looks at what was written
since, and nothing else. It guarantees that every frame in a part has the right checksum, but for the places that
``damage`` names; what the frames say is believed as far as it concerns names, and checked by whoever decodes them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from openwork.core.errors import TraceError
from openwork.trace.coding.plain import Reader, Table
from openwork.trace.coding.shape import BEGAN, HEAD, KEY, PICTURE, SUBMITTED, Bytes
from openwork.trace.entry import Began
from openwork.trace.segments import Segment, SegmentReader, segments


@dataclass(frozen=True, slots=True)
class Head:
    """What the first frame of a file says. ``lost`` lines are missing before it."""

    began: Began
    table: Table
    lost: int


@dataclass(frozen=True, slots=True)
class Known:
    """A request, as far as frames tell. ``number`` is what its process calls it."""

    tenant: str
    number: int


@dataclass(slots=True, eq=False)
class Part:
    """Bytes ``start`` to ``end`` of a file, and the requests that came in it or were under way when it began."""

    file: File
    start: int
    end: int
    requests: dict[str, Known] = field(default_factory=dict)
    has_picture: bool = False  # behind its key
    in_flight: frozenset[int] = frozenset()  # those of whom a step was in flight when it began, by number

    @property
    def is_first(self) -> bool:
        """Of its file."""
        return self.file.parts[0] is self

    def may_hold_the_end_of(self, request: Known) -> bool:
        """Of one that is not named in it: its last step comes back here, or a gap before this says that it was lost."""
        return self.is_first or request.number in self.in_flight

    @property
    def num_bytes(self) -> int:
        return self.end - self.start


@dataclass(slots=True, eq=False)
class File:
    """A segment, as far as it was skimmed. ``head`` is that of another of its process where its own cannot be read."""

    segment: Segment
    head: Head | None = None
    parts: list[Part] = field(default_factory=list)
    num_bytes: int = 0  # that were skimmed
    damage: list[str] = field(default_factory=list)
    cut: str = ""  # it ends in the middle of a line: how
    gone: str = ""  # why nothing of it can be read


class Index:
    """The files of a directory. Raises OSError where that cannot be read."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.files: list[File] = []
        self._parts_of: dict[str, list[Part]] | None = None
        self.refresh()

    def refresh(self) -> None:
        """Skim what is new, and forget the files that went. Raises OSError."""
        known = {file.segment: file for file in self.files}
        found = segments(self.directory)
        self.files = [known.get(segment) or File(segment) for segment in found]
        for file in self.files:
            try:
                if not file.gone and file.segment.path.stat().st_size > file.num_bytes:
                    self._skim(file)
                    self._parts_of = None
            except FileNotFoundError:  # a recorder that goes on made room
                self.files = [each for each in self.files if each is not file]
        if known.keys() - set(found):
            self._parts_of = None

    @property
    def damage(self) -> Iterator[str]:
        """What is not as it was written, oldest first."""
        for file in self.files:
            yield from file.damage
            yield from filter(None, (file.gone, file.cut))

    @property
    def parts_of(self) -> dict[str, list[Part]]:
        """The parts in which each request stands, the requests in the order in which they came."""
        if self._parts_of is None:
            self._parts_of = {}
            for file in self.files:
                for part in file.parts:
                    for name in part.requests:
                        self._parts_of.setdefault(name, []).append(part)
        return self._parts_of

    def stretches(self, id: str, before_bytes: int = 0) -> list[list[Part]]:
        """The parts in which a request lived, those of each of its processes without a gap; with those before them if
        they begin with their file or a picture at most ``before_bytes`` earlier: from there the schedule can be
        replayed."""
        found: list[list[Part]] = []
        by_run: dict[int, list[Part]] = {}
        for part in self.parts_of.get(id, ()):
            by_run.setdefault(part.file.segment.run, []).append(part)
        for run, own in by_run.items():
            every = [part for file in self.files if file.segment.run == run for part in file.parts]
            first, last = every.index(own[0]), every.index(own[-1])
            while last + 1 < len(every) and every[last + 1].may_hold_the_end_of(own[-1].requests[id]):
                last += 1
            head = next(place for place in range(first, -1, -1) if every[place].is_first or every[place].has_picture)
            if sum(part.num_bytes for part in every[head:first]) <= before_bytes:
                first = head
            found.append(every[first : last + 1])
        return found

    # -- skimming ------------------------------------------------------------------------------------------------

    def _skim(self, file: File) -> None:
        """Go on from where the file was skimmed to."""
        try:
            reader = SegmentReader(file.segment, file.num_bytes)
        except FileNotFoundError:
            raise
        except (OSError, TraceError) as error:
            file.gone = getattr(error, "strerror", None) or str(error)
            return
        for body in reader.frames():
            if not file.parts:
                self._begin(file, reader, body)
                continue
            if body is None:
                continue
            kind = body[0] if body else 0
            if kind == KEY and reader.has_mark and file.parts[-1].start < reader.at:
                file.parts[-1].end = reader.at
                file.parts.append(Part(file, reader.at, reader.at))
            file.parts[-1].has_picture |= kind == PICTURE
            if kind in (KEY, SUBMITTED) and file.head is not None:
                _note(kind, body, file.head, file.parts[-1])
        file.num_bytes = reader.at
        file.damage += reader.damage[:-1] if reader.is_cut else reader.damage
        file.cut = reader.damage[-1] if reader.is_cut else ""
        if file.parts:
            file.parts[-1].end = reader.at

    def _begin(self, file: File, reader: SegmentReader, body: bytes | None) -> None:
        try:
            file.head = head_of(body)
        except TraceError as error:
            file.damage.append(f"{file.segment.path.name}: {error}")
            others = (each.head for each in self.files if each.segment.run == file.segment.run)
            file.head = next((replace(head, lost=1) for head in others if head is not None), None)
        file.parts.append(Part(file, reader.end, reader.end))


def head_of(body: bytes | None) -> Head:
    """What the first frame of a file says. Raises TraceError when it does not say who wrote the file."""
    if body is None or len(body) < HEAD.size or HEAD.unpack_from(body)[0] != BEGAN:
        raise TraceError("it does not say whose it is")
    try:
        _, _, lost, table, said = Bytes(body, HEAD.size).rest()
        is_table = all(isinstance(name, str) for names in table.values() for name in names)
    except Exception as error:  # the right checksum, and no line all the same
        raise TraceError(f"it does not say whose it is: {str(error)[:200]}") from error
    if not is_table:
        raise TraceError("its table of fields is none")
    return Head(Reader(table).read(Began, said), table, lost)


def _note(kind: int, body: bytes, head: Head, part: Part) -> None:
    """Who is named by a frame; nobody where it makes no sense: whoever decodes it says so."""
    try:
        place = head.table["Terms"].index("tenant")
        if kind == SUBMITTED:
            number, name, _, _, _, terms, *_ = Bytes(body, HEAD.size).packed()
            part.requests |= _checked([(name, terms.get(place, ""), number)])
            return
        (_, _, _, asked, flights, *_), how, *_ = Bytes(body, HEAD.size).rest()
        part.requests |= _checked([(name, how[number][2].get(place, ""), number) for number, name, *_ in asked])
        part.in_flight = frozenset(slot[0] for _, slots in flights for slot in slots)
    except Exception:  # foreign bytes with the right checksum
        return


def _checked(found: Sequence[tuple[Any, Any, Any]]) -> dict[str, Known]:
    return {
        name: Known(tenant, number)
        for name, tenant, number in found
        if isinstance(name, str) and isinstance(tenant, str) and type(number) is int
    }
