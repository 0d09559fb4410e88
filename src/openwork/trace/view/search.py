"""A search as a document: what it found, what it proved, and the tree it looked at, with a bound on every open place.

Numbers that are not finite have no place in JSON and are None.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from openwork.core.output import SearchReport

TextOf = Callable[[int], str | None]  # of a token; None: nobody knows


def search_document(report: SearchReport, text: TextOf) -> dict[str, Any]:
    def finite(value: float | None) -> float | None:
        return None if value is None or value != value or abs(value) == float("inf") else value

    return {
        "proved": report.proved,
        "ended_by": report.ended_by,
        "upper_bound": finite(report.upper_bound),
        "gap": finite(report.gap),
        "nodes": report.nodes,
        "generations": report.generations,
        "winner": report.winner,
        "found": [
            {"ids": list(f.token_ids), "texts": [text(t) for t in f.token_ids], "logprob": finite(f.logprob)}
            | {"score": finite(f.score), "finish_reason": f.finish_reason}
            for f in report.found
        ],
        "trace": [
            {
                "parent": each.parent,
                "ids": list(each.tokens),
                "texts": [text(t) for t in each.tokens],
                "logprob": finite(each.logprob),
                "bound": finite(each.bound),
                "state": each.state,
            }
            for each in report.trace
        ],
        "tree_by": "the search",  # or "rows": from what it read (view/tree.py); bounds are then of log-probabilities
        "tree_left_out": 0,
    }
