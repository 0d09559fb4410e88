"""Two requests side by side, to the first bit that differs: token by token, and by the hashes of the rows of logits.

A row's hash is of all its bits, so the first hash that differs is the first bit; rows before it are the same, whoever
computed them. Where hashes are missing, tokens alone are compared, and the document says so.
Rows that were opened are set beside each other layer by layer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from openwork.run.row import Row
from openwork.trace.view_search import TextOf


def diff_document(one: Mapping[str, Any], other: Mapping[str, Any], sequence: int = 0) -> dict[str, Any]:
    """The first sequence of each. ``row`` is the position of the first row that differs, None if none does."""
    lines = [each["sequences"][min(sequence, len(each["sequences"]) - 1)] for each in (one, other)]
    tokens = [[*each["prompt"]["ids"], *line["ids"]] for each, line in zip((one, other), lines, strict=True)]
    texts = [[*each["prompt"]["texts"], *line["texts"]] for each, line in zip((one, other), lines, strict=True)]
    starts = [len(each["prompt"]["ids"]) for each in (one, other)]
    shortest = min(map(len, tokens))
    token = next((place for place in range(shortest) if tokens[0][place] != tokens[1][place]), None)
    if token is None and len(tokens[0]) != len(tokens[1]):
        token = shortest
    compared = equal = 0
    row: int | None = None
    for position in range(max(starts) - 1, shortest if token is None else token):
        pair = [_hash(line, position + 1 - start) for line, start in zip(lines, starts, strict=True)]
        if None in pair:
            continue
        compared += 1
        if pair[0] != pair[1]:
            row = position
            break
        equal += 1
    what = "the row of logits" if row is not None else "the token" if token is not None else None
    if row is None and token is not None and token < shortest:
        row = token  # the row that reads the token that differs
    return {
        "ids": [one["id"], other["id"]],
        "contracts": [one["contract_id"], other["contract_id"]],
        "what": what,
        "token": token,
        "row": row,
        "tokens": [{"ids": ids, "texts": words} for ids, words in zip(tokens, texts, strict=True)],
        "prompt_lens": starts,
        "rows_compared": compared,
        "rows_equal": equal,
        "sampling": [one["sampling"], other["sampling"]],
        "rows": None,
        "marks": {"token": "measured", "rows_equal": "measured", "apart": "derived"},
    }


def _hash(line: Mapping[str, Any], place: int) -> str | None:
    return line["hashes"][place] if 0 <= place < len(line["hashes"]) else None


def rows_beside(rows: Sequence[Row], text_of: TextOf) -> dict[str, Any]:
    """Two rows at one position: what each would say, and how far apart they are from layer to layer."""
    apart = np.abs(rows[0].residual - rows[1].residual).max(axis=1)
    said = []
    for row in rows:
        logprobs = row.logits.top_logits.astype(np.float64) - row.logits.logsumexp
        pairs = zip(row.logits.top_ids.tolist(), logprobs.tolist(), strict=True)
        said.append([{"id": t, "text": text_of(t), "logprob": p} for t, p in pairs])
    first = next((layer for layer, each in enumerate(apart) if each > 0), None)
    return {"apart": [float(x) for x in apart], "first_layer": first, "top": said}
