"""The tree of a search, from the rows that it read: for one that was not asked to tell its own.

    row behind a line of tokens   ->   that place was looked at; what was found in the row are the ways on from there
    a way that no row lies behind ->   open: the search gave it up, or ended before
    what a row did not name       ->   the rest: all other tokens together

It guarantees that the probabilities of all ways on from a place are one together, and that no line behind an open place
is likelier than its ``bound``, which is a log-probability whatever the search maximised. At most MOST places are told,
in the order in which they were looked at. It does not know why a search chose as it did.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from math import exp, fsum, log
from typing import Any

from openwork.core.output import Found, Logprob
from openwork.trace.entry import Entry
from openwork.trace.searched import Line, Row, lives_of
from openwork.trace.view.search import TextOf

MOST = 4000  # places
LEAST = 1e-9  # probability of a rest that is told


class _Place:
    """A line that was looked at, and the ways on from it that were found: token -> log-probability."""

    def __init__(self, parent: Line | None, logprob: float | None) -> None:
        self.parent = parent
        self.logprob = logprob
        self.ways: dict[int, float] = {}
        self.row_hash: int | None = None


def tree_document(entries: Iterable[Entry], id: str, found: Sequence[Found], text_of: TextOf) -> dict[str, Any]:
    """What the document of a search (view/search.py) has in place of a tree of its own. ``entries`` are the lines among
    which the request lived; of a search that began anew in another process, the last life counts."""
    lives = lives_of(entries, id)
    places, left_out = tree_of(lives[-1].rows if lives else (), found, text_of)
    return {"trace": places, "tree_by": "rows", "tree_left_out": left_out}


def tree_of(rows: Iterable[Row], found: Sequence[Found], text_of: TextOf) -> tuple[list[dict[str, Any]], int]:
    """Its places in the form of a search's trace (view/search.py), parents before children -> (places, how many more
    there are)."""
    places = _looked_at(rows)
    told = [_told(place.parent, line[-1:], place.logprob, "expanded", place) for line, place in places.items()]
    told += _ends(places, found) + list(_left(places, {each.token_ids for each in found}))
    number = {line: i for i, line in enumerate(places)}
    kept = [each for i, each in enumerate(told) if i < MOST]
    for each in kept:
        parent = each.pop("at")
        each["parent"] = None if parent is None else number[parent]
        each["texts"] = [text_of(token) for token in each["ids"]]
    # A place is dropped with its children: those come behind it, and behind MOST.
    kept = [each for each in kept if each["parent"] is None or each["parent"] < MOST]
    return kept, len(told) - len(kept)


def _looked_at(rows: Iterable[Row]) -> dict[Line, _Place]:
    """Every line that was read, and all it begins with, in order."""
    places: dict[Line, _Place] = {(): _Place(None, 0.0)}
    for row in rows:
        for length in range(1, len(row.line) + 1):
            line = row.line[:length]
            if line not in places:
                before = places[line[:-1]]
                way = before.ways.get(line[-1])
                known = before.logprob is not None and way is not None
                places[line] = _Place(line[:-1], before.logprob + way if known else None)  # type: ignore[operator]
        place = places[row.line]
        place.row_hash = row.row_hash if place.row_hash is None else place.row_hash
        if isinstance(row.found, Logprob):
            place.ways[row.target] = row.found.logprob
        else:
            place.ways.update(row.found.top)
            among = () if row.expand is None else row.expand.among
            place.ways.update(zip(among, row.found.among, strict=True))
    return places


def _ends(places: dict[Line, _Place], found: Sequence[Found]) -> list[dict[str, Any]]:
    """What was found, behind the place that its last token was chosen at."""
    told = []
    for each in found:
        line = each.token_ids[:-1]
        if line in places:
            told.append(_told(line, each.token_ids[-1:], each.logprob, "found") | {"bound": each.score})
    return told


def _left(places: dict[Line, _Place], found: set[Line]) -> Iterator[dict[str, Any]]:
    """Ways that nobody went, and what was not named."""
    for line, place in places.items():
        if not place.ways or place.logprob is None:
            continue
        for token, logprob in place.ways.items():
            if (*line, token) not in places and (*line, token) not in found and logprob > -float("inf"):
                yield _told(line, (token,), place.logprob + logprob, "open")
        rest = 1.0 - fsum(map(exp, place.ways.values()))
        if rest > LEAST:
            yield _told(line, (), place.logprob + log(rest), "rest")


def _told(at: Line | None, ids: Line, logprob: float | None, state: str, place: _Place | None = None) -> dict[str, Any]:
    row_hash = None if place is None or place.row_hash is None else f"{place.row_hash:016x}"
    return {"at": at, "ids": list(ids), "logprob": logprob, "bound": logprob, "state": state, "hash": row_hash}
