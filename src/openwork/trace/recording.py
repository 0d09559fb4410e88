"""Recording: what a flight recorder wrote, read again. ``entries`` in order, ``requests`` by id, and what is damaged.

One request is read without the rest: ``request`` and ``entries_of`` take the parts in which it lived (index.py). A
recording that is still being written is what it was when it was opened, until it is refreshed; whoever follows it reads
what is new and nothing twice. It never raises for a part that cannot be read, and takes nothing it reads on trust:
sizes, numbers, names are checked. Where tokens are not kept, stand-ins hold within one reading.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from openwork.core.errors import TraceError
from openwork.trace.coding.mirror import Mirror
from openwork.trace.entry import Began, Entry
from openwork.trace.index import Index, Part
from openwork.trace.reading import Gap, Reading
from openwork.trace.story import Stories, Story

AROUND_BYTES = 2 << 20  # beside a request, for its timeline: so many can be replayed in seconds
Told = Callable[[int, int], None]  # (bytes read, of)


class Recording:
    """A directory. Files that are still being written can be read, as far as they go."""

    def __init__(self, directory: Path, index: Index) -> None:
        self.directory = directory
        self.index = index
        self._stories: dict[str, Story] | None = None
        self._unread: dict[str, None] = {}  # lines that made no sense, in the order in which they were met

    @staticmethod
    def open(directory: str | Path) -> Recording:
        """Raises TraceError when there is no recording in the directory, or none that can be read at all."""
        path = Path(directory).expanduser()
        try:
            index = Index(path)
        except OSError as error:
            raise TraceError(f"{path} cannot be read: {error.strerror}", "Name the directory of --record.") from error
        if not index.files:
            raise TraceError(f"there is no recording in {path}", "Name the directory that --record was given.")
        if not any(file.head for file in index.files):
            why = next(iter(index.damage), "every file of it is empty")
            raise TraceError(f"the recording in {path} cannot be read: {why}", "Record again.")
        return Recording(path, index)

    def refresh(self) -> None:
        """Look at what was written since. Raises TraceError when the directory cannot be read any more."""
        try:
            self.index.refresh()
        except OSError as error:
            raise TraceError(f"{self.directory} cannot be read: {error.strerror}") from error
        self._stories = None

    @property
    def damage(self) -> tuple[str, ...]:
        """What could not be read and why: what is not as it was written, and lines that made no sense where they were
        read."""
        return (*self.index.damage, *self._unread)

    @property
    def ids(self) -> list[str]:
        """The requests, in the order in which they came."""
        return list(self.index.parts_of)

    def tenant_of(self, id: str) -> str | None:
        """Whose a request is; None where there is none."""
        parts = self.index.parts_of.get(id)
        return None if not parts else parts[0].requests[id].tenant

    def run_of(self, id: str) -> int | None:
        """The engine process that had a request last; None where there is no such request."""
        parts = self.index.parts_of.get(id)
        return None if not parts else parts[-1].file.segment.run

    @property
    def num_bytes(self) -> int:
        return sum(file.num_bytes for file in self.index.files)

    @property
    def processes(self) -> list[Began]:
        """The engine processes that wrote it, in order."""
        return list({file.segment.run: file.head.began for file in self.index.files if file.head is not None}.values())

    def entries(self, told: Told | None = None) -> Iterator[Entry]:
        """All lines, of one engine process after the other, each process behind its Began. ``told`` hears how far it
        is."""
        return _entries(self._lines(self._parts(), told))

    def entries_of(self, id: str) -> Iterator[Entry]:
        """The lines among which a request lived: of each process that had it, its Began, and all from a little before
        it came to a little after it ended. Of requests that came before, tokens are zeros; none, where there is no
        such request."""
        return self.following(id).more()

    def entries_around(self, id: str) -> Iterator[Entry]:
        """The same, with what the schedule needs to be replayed if that is not much; of a short recording, all."""
        if self.num_bytes <= AROUND_BYTES:
            return self.entries()
        parts = [part for stretch in self.index.stretches(id, AROUND_BYTES) for part in stretch]
        return _entries(self._lines(parts))

    def following(self, id: str) -> Following:
        """The same for a request that may still be running."""
        return Following(self, id)

    def requests(self, told: Told | None = None) -> list[Story]:
        """All requests, in the order in which they came."""
        if self._stories is None:
            self._stories = stories_of(self._lines(self._parts(), told))
        return list(self._stories.values())

    def latest(self, most: int, may_see: Callable[[str], bool]) -> tuple[list[Story], int]:
        """The latest of the requests whose tenants may be seen, in the order in which they came, and how many came
        before them."""
        own = [id for id, parts in self.index.parts_of.items() if may_see(parts[0].requests[id].tenant)]
        wanted = set(own[-most:])
        parts = [part for part in self._parts() if not wanted.isdisjoint(part.requests)]
        stories = stories_of(self._lines(parts))
        return [stories[id] for id in own[-most:] if id in stories], max(0, len(own) - most)

    def request(self, id: str) -> Story:
        """One request. Raises TraceError when it is not there."""
        if self._stories is not None and id in self._stories:
            return self._stories[id]
        parts = [part for stretch in self.index.stretches(id) for part in stretch]
        story = stories_of(self._lines(parts)).get(id)
        if story is None:
            raise TraceError(
                f"there is no request {id!r} in {self.directory}", "openwork trace ls lists those there are."
            )
        return story

    # -- reading -------------------------------------------------------------------------------------------------

    def _parts(self) -> list[Part]:
        return [part for file in self.index.files for part in file.parts]

    def _lines(self, parts: list[Part], told: Told | None = None) -> Iterator[Entry | Mirror | Gap]:
        reading = Reading()
        yield from reading.lines(parts if told is None else _telling(parts, told))
        self._unread.update(dict.fromkeys(reading.damage))


class Following:
    """The lines among which a request lives, as they come."""

    def __init__(self, recording: Recording, id: str) -> None:
        self._recording = recording
        self._id = id
        self._reading = Reading()

    def more(self, told: Told | None = None) -> Iterator[Entry]:
        """Those that were not given before, as far as the recording was refreshed."""
        parts = [part for stretch in self._recording.index.stretches(self._id) for part in stretch]
        return _entries(self._reading.lines(parts if told is None else _telling(parts, told)))


def stories_of(lines: Iterable[Entry | Mirror | Gap]) -> dict[str, Story]:
    """What became of the requests of these lines, by id, in the order in which they came."""
    stories = Stories()
    for each in lines:
        if isinstance(each, Mirror):
            stories.rejoin(each)
        elif isinstance(each, Gap):
            stories.lose()
        else:
            stories.tell(each)
    return stories.by_id


def _entries(lines: Iterable[Entry | Mirror | Gap]) -> Iterator[Entry]:
    return (each for each in lines if not isinstance(each, Mirror | Gap))


def _telling(parts: list[Part], told: Told) -> Iterator[Part]:
    total, done = sum(part.num_bytes for part in parts), 0
    for part in parts:
        told(done, total)
        yield part
        done += part.num_bytes
    told(total, total)
