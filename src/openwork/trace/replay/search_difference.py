"""SearchDifference: the first thing of a search that is not as it was recorded, and what came of its replay."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from openwork.trace.replay.compare import SHOWN, first_difference
from openwork.trace.replay.verdict import Verdict
from openwork.trace.searched import Line

What = Literal["logits", "choice", "answer"]


@dataclass(frozen=True, slots=True)
class SearchDifference:
    """The first thing that is not as it was recorded: a row that was read behind ``line``, or the answer as a whole.

    logits  the row is another       choice  what was read in it is, or where the search looked
    answer  what it concluded, or what its reader was given
    """

    what: What
    line: Line | None  # tokens behind the prompt; None: the answer
    token: int | None  # the one that would follow, counted from 0
    position: int | None  # of the row
    recorded: str
    found: str
    layer: int | None = None  # where this machine disagrees with itself
    op: str | None = None
    sequence: int | None = None  # of the answer
    finding: str = ""  # what was tried, and what that says


@dataclass(frozen=True, slots=True)
class SearchVerdict(Verdict[SearchDifference]):
    """``rows`` were read and compared, ``unhashed`` of them without a hash."""

    rows: int


def differs(
    what: What, line: Line | None, behind: int, recorded: str, found: str, finding: str = "", index: int | None = None
) -> SearchDifference:
    """``line`` None: no row, but the answer."""
    token = None if line is None else len(line)
    position = None if line is None else behind - 1 + len(line)
    return SearchDifference(what, line, token, position, recorded, found, sequence=index, finding=finding)


def pair(recorded: Any, found: Any, name: str) -> tuple[str, str]:
    """The first place where two things differ, as text."""
    where, one, other = first_difference(recorded, found, name) or (name, recorded, found)
    return f"{where} {short(one)}", f"{where} {short(other)}"


def short(value: Any) -> str:
    text = "nothing" if value is None else str(value)
    return text if len(text) <= SHOWN else text[:SHOWN] + "..."
