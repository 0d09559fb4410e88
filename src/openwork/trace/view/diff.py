"""Two runs side by side, to the first bit that differs: token by token, and by the hashes of the rows of logits.

The other run may be of the same recording or of any other: another machine, version, number format, model. A row's hash
is of all its bits, so the first hash that differs is the first bit that is known to; rows before it said the same,
whoever computed them. Where hashes are missing tokens alone are compared, and the document says so.

    what     prompt   they were not asked the same: at ``token`` the first token of a prompt that differs
             row      one token of both, the row of logits at ``row`` differs
             choice   something else was chosen from a row that has the same bits: other parameters, or another seed
             token    another token was chosen, and no two hashes tell whether from the same row
             length   one goes on where the other ended
             None     nothing differs

``stamps`` is what hashes of points inside the model say, where both runs were recorded with them, without any model.
``lit`` is what rows that were computed again say, on both sides or on one: where a bit differs first, layer and
operation, how far the residual streams lie apart behind each layer, and what each would have said.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from openwork.core.stamp import EMBED, first_difference
from openwork.run.apart import distance, first_apart, is_alike
from openwork.run.capture import Examination
from openwork.run.row import Row
from openwork.trace.story import Line
from openwork.trace.view.search import TextOf

SETTINGS = ("model", "contract_id", "dtype", "kv_dtype", "threads", "version")  # under which a run was computed


def diff_document(one: Mapping[str, Any], other: Mapping[str, Any], sequence: int = 0) -> dict[str, Any]:
    """Of two request documents, the first sequence of each. ``look`` is the position whose row tells most."""
    both = (one, other)
    lines = [each["sequences"][min(sequence, len(each["sequences"]) - 1)] for each in both]
    tokens = [[*each["prompt"]["ids"], *line["ids"]] for each, line in zip(both, lines, strict=True)]
    texts = [[*each["prompt"]["texts"], *line["texts"]] for each, line in zip(both, lines, strict=True)]
    starts = [len(each["prompt"]["ids"]) for each in both]
    shortest = min(map(len, tokens))
    token = next((place for place in range(shortest) if tokens[0][place] != tokens[1][place]), None)
    if token is None and len(tokens[0]) != len(tokens[1]):
        token = shortest
    row, compared, is_chosen_from_same = _first_row(lines, starts, shortest if token is None else token)
    what = _what(token, row, max(starts), shortest, is_chosen_from_same)
    if row is None and what == "prompt":
        row = token  # the row that reads the token that differs
    return {
        "ids": [one["id"], other["id"]],
        "settings": [{name: each[name] for name in SETTINGS} for each in both],
        "settings_differ": [name for name in SETTINGS if one[name] != other[name]],
        "sampling": [one["sampling"], other["sampling"]],
        "what": what,
        "token": token,
        "row": row,
        "look": _look(what, token, row, shortest),
        "tokens": [{"ids": ids, "texts": words} for ids, words in zip(tokens, texts, strict=True)],
        "prompt_lens": starts,
        "finish_reasons": [line["finish_reason"] for line in lines],
        "rows_compared": compared,
        "rows_equal": compared - (row is not None and what == "row"),
        "stamps": None,
        "is_real": one["has_tokens"] and other["has_tokens"],
        "lit": None,
        "marks": {"token": "measured", "rows_equal": "measured", "apart": "derived"},
    }


def _first_row(lines: Sequence[Mapping[str, Any]], starts: Sequence[int], end: int) -> tuple[int | None, int, bool]:
    """(position of the first row whose hashes differ, how many were compared, whether the last one was and is equal)"""
    compared = 0
    for position in range(max(starts) - 1, end):
        pair = [_hash(line, position + 1 - start) for line, start in zip(lines, starts, strict=True)]
        if None in pair:
            continue
        compared += 1
        if pair[0] != pair[1]:
            return position, compared, False
        if position == end - 1:
            return None, compared, True
    return None, compared, False


def _what(token: int | None, row: int | None, given: int, shortest: int, is_same_row: bool) -> str | None:
    if row is not None:
        return "row"
    if token is None:
        return None
    if token < given and token < shortest:
        return "prompt"
    if token == shortest:
        return "length"
    return "choice" if is_same_row else "token"


def _look(what: str | None, token: int | None, row: int | None, shortest: int) -> int:
    """The row that is worth opening on both sides: where they part, or the one they chose from, or the last of both."""
    if what in ("row", "prompt"):
        assert row is not None
        return row
    return max(0, shortest - 2 if token is None else token - 1)


def stamps_document(lines: Sequence[Line], starts: Sequence[int], end: int) -> dict[str, Any] | None:
    """The first point that differs in rows before ``end`` that both have a stamp of. None: there is no such row."""
    stamped = [
        {start - 1 + i: stamp for i, stamp in enumerate(line.stamps) if stamp is not None}
        for line, start in zip(lines, starts, strict=True)
    ]
    common = sorted(position for position in stamped[0].keys() & stamped[1].keys() if position < end)
    if not common:
        return None
    for equal, position in enumerate(common):
        one, other = (each[position] for each in stamped)
        if len(one) != len(other):
            return {
                "compared": 0,
                "equal": 0,
                "first": None,
                "why_not": "They are models with other numbers of layers.",
            }
        if (place := first_difference(one, other)) is not None:
            layer = None if place.op == EMBED else place.layer
            return {
                "compared": equal + 1,
                "equal": equal,
                "first": {"position": position, "layer": layer, "op": place.op},
                "why_not": "",
            }
    return {"compared": len(common), "equal": len(common), "first": None, "why_not": ""}


def _hash(line: Mapping[str, Any], place: int) -> str | None:
    return line["hashes"][place] if 0 <= place < len(line["hashes"]) else None


class Side:
    """One run of a difference, lit up: its examination, or why there is none, and the hash its row was served with."""

    def __init__(self, examination: Examination | None, why: str, contract: str | None, text_of: TextOf) -> None:
        self.examination = examination
        self.why = why
        self.contract = contract  # that it is computed again under
        self.text_of = text_of


def lit_document(sides: Sequence[Side], look: int, served: Sequence[str | None], is_same: bool) -> dict[str, Any]:
    """The row at ``look`` on each side that can be opened; ``is_same``: they read the same tokens up to there."""
    rows = [None if side.examination is None else side.examination.row(look, layers=()) for side in sides]
    found: dict[str, Any] = {
        "position": look,
        "sides": [
            {
                "why": side.why,
                "contract": side.contract,
                "hash": None if row is None else f"{row.logits.row_hash:016x}",
                "served": None if row is None or hashed is None else hashed == f"{row.logits.row_hash:016x}",
                "top": None if row is None else _said(row, side.text_of),
            }
            for side, row, hashed in zip(sides, rows, served, strict=True)
        ],
        "apart": None,
        "logits": None,
        "first": None,
        "why_not": "",
    }
    one, other = (side.examination for side in sides)
    if one is None or other is None or rows[0] is None or rows[1] is None:
        return found | {"why_not": "Only one side could be computed again." if any(rows) else "Neither side was lit."}
    if not is_alike(one, other):
        return found | {"why_not": "They are two models of different shapes: their numbers cannot be compared."}
    apart = [asdict(distance(a, b)) for a, b in zip(rows[0].residual, rows[1].residual, strict=True)]
    found |= {"apart": apart, "logits": asdict(distance(rows[0].logits.row, rows[1].logits.row))}
    if is_same and (point := first_apart(one, other, look)) is not None:
        found["first"] = asdict(point)
    return found


def _said(row: Row, text_of: TextOf) -> list[dict[str, Any]]:
    logprobs = row.logits.top_logits.astype(np.float64) - row.logits.logsumexp
    pairs = zip(row.logits.top_ids.tolist(), logprobs.tolist(), strict=True)
    return [{"id": t, "text": text_of(t), "logprob": p} for t, p in pairs]
