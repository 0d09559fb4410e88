"""Difference: the first thing that is not as it was recorded, and where in the model it came about.

    this machine with itself   alone, in a chunk, in single operations: do these ways part, and where?
    with what was recorded     the stamp of the row, or of the next row of its sequence that has one

It guarantees that a layer and an operation are named only where hashes show them, and says at which token they were
seen. It does not know what else of a request is compared, nor how a recording is stored.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from openwork.core.stamp import ATTEND, HEAD, Place, first_difference
from openwork.run.capture import Examiner
from openwork.trace.story import Line


@dataclass(frozen=True, slots=True)
class Difference:
    """``layer`` and ``op`` (core/stamp.py) are None where no hash can name them.

    ``seen_at`` is the token at whose row they were seen: this one, or a later one, if this one has no stamp.
    """

    sequence: int
    token: int  # counted from 0 in the answer
    position: int  # of the row that it was chosen from
    what: Literal["logits", "choice", "stamp"]
    recorded: str
    found: str
    layer: int | None = None
    op: str | None = None
    seen_at: int | None = None
    finding: str = ""  # what was tried, and what that says


def locate(
    difference: Difference, examiner: Examiner, prompt: Sequence[int], line: Line, is_same_model: bool
) -> Difference:
    """The same, of a row of logits, with as much as can be said of where it parted. Computes the sequence again."""
    token, before = difference.token, len(prompt) - 1
    read = (*prompt, *line.tokens[:token])
    own = examiner.examine(read).disagreement(before + token)
    if own is not None:
        return _placed(difference, own, token, _HERE)
    whose = _SAME_WEIGHTS if is_same_model else _ANY_WEIGHTS
    at = next((i for i in range(token, len(line.tokens)) if line.stamps[i] is not None), None)
    if at is None:
        return replace(difference, finding=f"{_AGREES}{whose}. {_NO_STAMP}")
    recorded = line.stamps[at]
    assert recorded is not None
    examination = examiner.examine((*prompt, *line.tokens[:at]))
    found, row_hash = examination.stamp(before + at)
    if len(found) != len(recorded):
        return replace(difference, finding=f"{_AGREES}{whose}. {_OTHER_LAYERS}")
    place = first_difference(recorded, found)
    if place is None and line.row_hashes[at] not in (None, row_hash):
        place = Place(examiner.model.spec.num_layers, HEAD)
    if place is None:
        return replace(difference, finding=f"{_AGREES}{whose}. {_no_trace(at)}")
    finding = _at_once(place) if at == token else _later(place, token, at)
    return _placed(difference, place, at, f"{finding}. {_AGREES}{whose}")


def damaged(difference: Difference, place: Place | None) -> Difference:
    """The same, of a stamp that is not the one of a row whose hash is: the rest of the row follows from its stamp."""
    if place is None:
        return replace(difference, finding=_OTHER_LAYERS)
    return _placed(difference, place, difference.token, _DAMAGED)


def _placed(difference: Difference, place: Place, seen_at: int, finding: str) -> Difference:
    return replace(difference, layer=place.layer, op=place.op, seen_at=seen_at, finding=finding)


_HERE = "ways of computing this row that must give the same bits differ here"
_AGREES = "Alone, in a chunk and in single operations this row has the same bits here in every layer"
_SAME_WEIGHTS = ", and the weights are those that served: a fault of the machine that served, or of the files"
_ANY_WEIGHTS = ": other weights under the same name, or a fault of the machine that served"
_NO_STAMP = (
    "Neither this row nor a later one of its sequence was recorded layer by layer, so the layer is not known; "
    "recorded with --record-layers 1, every row is"
)
_OTHER_LAYERS = "the stamp that was recorded is of another number of layers: it is damaged, or of another model"
_DAMAGED = (
    "the row of logits has the bits that were served, and what led to it is said to have had others: this cannot be "
    "unless the recording is damaged"
)


def _at_once(place: Place) -> str:
    said = "all that this row passed before has the bits that were recorded"
    if place.op == ATTEND:
        return f"{said}: what differs is attention itself, or what the cache of this layer held of the tokens before"
    return said


def _later(place: Place, token: int, at: int) -> str:
    said = (
        f"seen at token {at}, the first from token {token} on that was recorded layer by layer: all that its row "
        "passed before has the bits that were recorded"
    )
    if place.op == ATTEND:
        return (
            f"{said}, and the cache of this layer held other keys or values, as it does after a fault in it or in the "
            f"layer below while token {token} or one after it was computed"
        )
    return f"{said}, and this operation still gave others, so the fault had not passed"


def _no_trace(at: int) -> str:
    return (
        f"The row of token {at}, the next that was recorded layer by layer, has the bits that were recorded at every "
        "point: what differed left nothing in the cache, as a fault in the last layer's feed-forward or the head, or "
        "one that passed"
    )
