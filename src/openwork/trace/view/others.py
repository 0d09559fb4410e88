"""A timeline as one tenant may see it: the others are work without a name, and memory that somebody holds.

That the engine was busy, and where blocks went, is seen by whoever waits; whose it was is told to nobody else.
"""

from __future__ import annotations

from collections.abc import Set
from typing import Any


def without(document: dict[str, Any], hidden: Set[int]) -> dict[str, Any]:
    """A timeline with the requests of others, by their places, left as work that is nobody's."""
    shown = [each for each in document["requests"] if each["id"] not in hidden]
    steps = [
        {**step, "works": [work if work[0] not in hidden else [None, 0, *work[2:]] for work in step["works"]]}
        | {"guesses": [each for each in step["guesses"] if each[0] not in hidden]}
        | {"left_out": [each for each in step["left_out"] if each[0] not in hidden]}
        for step in document["steps"]
    ]
    events = [each for each in document["events"] if each["request"] not in hidden]
    events = [{**each, "by": None} if each.get("by") in hidden else each for each in events]
    memory = document["memory"]
    if memory is not None:
        moves = [[*m[:3], *((None, None) if m[3] in hidden else m[3:5]), "", "", *m[7:]] for m in memory["moves"]]
        memory = memory | {"moves": moves, "start": [[state, ""] for state, _ in memory["start"]]}
        memory["in_time"] = [{k: v for k, v in each.items() if k != "by_tenant"} for each in memory["in_time"]]
    return document | {
        "requests": shown,
        "steps": steps,
        "events": events,
        "memory": memory,
        "processes": [{**each, "tenants": []} for each in document["processes"]],
        "replay": {**document["replay"], "difference": None},  # it may quote anybody's tokens
    }
