"""Sweep: one setting, or two, at several values each: a what-if for every combination, side by side.

kind, version   "openwork.sweep", 1
measured, as_recorded   figure -> value
rows[]          label, figures {name: {what_if, interval, is_good}} | null, error | null: why it cannot be
recorded, assumed, cost, notes[]   as in a what-if (trace/whatif/oracle.py)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from openwork.core.errors import OpenworkError, RequestError
from openwork.trace.whatif.change import Change
from openwork.trace.whatif.oracle import Oracle

VERSION = 1
MOST_ROWS = 32
COMMON = ("recorded", "assumed", "cost")
CELL = ("what_if", "interval", "is_good")


def sweep(oracle: Oracle, asked: Sequence[tuple[str, Change]]) -> dict[str, Any]:
    """The document. Settings that cannot be are a row that says why. Raises RequestError."""
    if not 1 <= len(asked) <= MOST_ROWS:
        raise RequestError(f"asks for {len(asked)} combinations; 1 to {MOST_ROWS} can be", param="sweep")
    rows: list[dict[str, Any]] = []
    notes: dict[str, None] = {}
    first = oracle.answer(Change())
    for label, change in asked:
        try:
            document = oracle.answer(change)
        except OpenworkError as error:
            rows.append({"label": label, "figures": None, "error": str(error)})
            continue
        notes.update(dict.fromkeys(document["notes"]))
        figures = {each["name"]: {name: each[name] for name in CELL} for each in document["figures"]}
        rows.append({"label": label, "figures": figures, "error": None})
    return {
        "kind": "openwork.sweep",
        "version": VERSION,
        **{name: first[name] for name in COMMON},
        "measured": {each["name"]: each["measured"] for each in first["figures"]},
        "as_recorded": {each["name"]: each["as_recorded"] for each in first["figures"]},
        "rows": rows,
        "notes": list(notes),
    }
