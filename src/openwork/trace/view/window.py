"""Which steps of a recording are shown around one request."""

from __future__ import annotations

from collections.abc import Iterable

from openwork.trace.entry import Entry, Planned
from openwork.trace.view.journey import Journey

AROUND = 20  # steps before the request's first one and after its last one
MOST = 400  # steps that are shown at once


def window_of(entries: Iterable[Entry], journey: Journey) -> tuple[int, int]:
    """(place of the first step, how many): from a little before this request to a little after it."""
    first = last = None
    own = {(part.run, part.step.number) for part in journey.parts}
    place, run = -1, 0
    for entry in entries:
        if not own:  # a long recording goes on without it
            break
        run = getattr(entry, "run", run)
        if isinstance(entry, Planned):
            place += 1
            if (run, entry.step.number) in own:
                first, last = place if first is None else first, place
                own.remove((run, entry.step.number))
    if first is None or last is None:
        return 0, MOST
    begin = max(0, first - AROUND)
    return begin, min(MOST, last - begin + AROUND + 1)
