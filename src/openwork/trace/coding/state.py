"""State: what a picture of a scheduler holds of its parts, field by field, and what stands there otherwise.

    FIELDS    written as they are, read against their types
    APART     written in a way of their own: tokens, who stands where, the search of a request
    DERIVED   not written: settings, what follows from the rest, and what decides nothing

Every field of every part is in one of the three, which the tests see to: a new one has to be given its place before a
picture is right again. ``VERSION`` names the fields that are written: a picture of others is not thawed.
"""

from __future__ import annotations

import zlib
from operator import attrgetter
from typing import Any

from openwork.core.sequence import Sequence
from openwork.decode.beam import BeamSearch
from openwork.decode.best_first import BestFirstSearch
from openwork.decode.choose import Choosing
from openwork.kv.cache import KVCache
from openwork.kv.eviction import Eviction
from openwork.kv.pool import BlockPool
from openwork.kv.prefix import Node, PrefixTree
from openwork.schedule.budget import StepBudget
from openwork.schedule.pace import Pace
from openwork.schedule.planner import Planner
from openwork.schedule.policy import Policy
from openwork.schedule.roster import Entry, Group, Roster, Tally, WaitingRoom
from openwork.schedule.scheduler import Scheduler
from openwork.schedule.shares import Shares
from openwork.schedule.speculation import Speculation
from openwork.trace.coding.plain import Reader

FIELDS: dict[type, dict[str, Any]] = {
    Sequence: {
        "id": int,
        "request_id": int,
        "index": int,
        "computed": int,
        "pending": int,
        "landed": int,
        "blocks": list[int],
        "filed": int,
        "adopted": int,
        "admitted": int,
        "rank": tuple[float, int, int],
        "since": float,
        "is_overdue": bool,
        "gave_way": bool,
        "to_score": int | None,
        "stall": str,
        "stalled_at": float,
        "drafted": int,
    },
    Entry: {"arrived": float, "urgency": float, "scorer": int, "has_begun": bool},
    Tally: {
        "queued_s": float | None,
        "cached": int,
        "rows": int,
        "chunks": int,
        "preemptions": int,
        "stalls": dict[str, float],
        "drafted": int,
        "accepted": int,
        "verify_steps": int,
    },
    Group: {"scores": dict[int, list[float]], "num_born": int, "num_said": int, "num_told": int},
    Roster: {"_num_born": int},
    Shares: {"_served": dict[str, float], "_living": dict[str, int], "_weights": dict[str, float], "_sum": float},
    Planner: {"_num_steps": int},
    StepBudget: {
        "_alone": tuple[int, float] | None,
        "_n": float,
        "_r": float,
        "_t": float,
        "_rr": float,
        "_rt": float,
        "_largest": float,
    },
    Speculation: {
        "_has_waited": bool,
        "_after_wait": int | None,
        "_committed_at": float,
        "_credit_s": float,
        "_guessing_s": float,
    },
    Pace: {"gap_s": float, "_typical": dict[int, float], "_known": list[int]},
    BeamSearch: {"_num_nodes": int, "_num_finished": int, "_num_agreed": int, "_looked": int, "_generations": int},
    BestFirstSearch: {"_dive": int | None, "_generations": int, "_num_finished": int},
    Choosing: {"_best": tuple[float, int] | None, "_nodes": int, "_generations": int},
}
APART: dict[type, set[str]] = {
    Sequence: {"request", "strategy", "tokens", "status", "leaf", "proposer"},
    Entry: {"request", "living", "scores", "blocks", "tally", "group"},
    Tally: {"miss"},
    Group: {"strategy", "members", "awaited", "answers"},
    Roster: {"entries", "sequences", "running", "waiting", "held"},
    WaitingRoom: {"_lines", "_new"},
    Pace: {"_gaps", "_times"},
    BlockPool: {"_owners", "_free"},
    Eviction: {"now", "_idle", "_pins"},
    PrefixTree: {"_roots", "_nodes"},
    Node: {"serial", "namespace", "parent", "tokens", "block", "pinned_until", "is_in"},
    BeamSearch: {"_groups"},
    BestFirstSearch: {"_nodes", "_looked", "_frontier", "_found"},
    Choosing: {"_trie", "_seen", "_frontier", "_exact"},
}
DERIVED: dict[type, set[str]] = {
    Entry: {"report"},  # it ends with it
    Roster: {"running_of"},
    WaitingRoom: {"num_new", "new_tokens", "total_new", "total_new_tokens", "_num"},
    Scheduler: {
        "cache",
        "_roster",
        "_shares",
        "_policy",
        "_planner",
        "_door",
        "_searches",
        "_ends",
        "_sequences",
        "_strategies",
    },
    Policy: {"_settings", "_cache", "_roster", "_shares", "_entitled", "is_plain", "name"},  # entitled: in one step
    Planner: {"awaits_guess", "budget", "_settings", "_cache", "_roster", "_shares", "_policy", "_speculation"},
    Shares: {"_tenants"},
    StepBudget: {"_most", "_target", "_stretch"},
    Speculation: {"_most", "_is_computed", "_cache", "_roster", "_budget", "_make_proposer", "_pace"},
    KVCache: {"block_size", "has_prefix", "pool", "tenants", "eviction", "tree"},
    BlockPool: {"num_blocks", "charged", "_references"},
    # What was evicted says why something is missing, and decides nothing: Rerun takes it from the recording.
    Eviction: {"tree", "num_idle", "num_pinned", "_size", "_pool", "_tenants", "_rests", "_gone"},
    PrefixTree: {"_size", "_pool", "_rested", "_woken", "_removed", "_serials"},
    Node: {"children", "order", "serials", "rested"},
    BeamSearch: {"_request", "_how", "_size", "_enough", "_ranked"},
    BestFirstSearch: {"_request", "_how", "_most_traced", "_reranks", "_ends", "_is_bound", "_final", "_objective"},
    Choosing: {"_how", "_most_traced", "_ends"},
}
VERSION = zlib.crc32(repr([(kind.__name__, list(fields)) for kind, fields in FIELDS.items()]).encode()) ^ 1

_GETTERS = {kind: attrgetter(*fields, "__class__") for kind, fields in FIELDS.items()}  # two at least give a tuple


def fields_of(part: Any, kind: type | None = None) -> Any:
    """The values of its FIELDS, in order."""
    return _GETTERS[kind or type(part)](part)[:-1]


def set_fields(part: Any, said: Any, records: Reader) -> None:
    """Give a part the values that were written. Raises TraceError for what cannot be theirs."""
    for (name, hint), value in zip(FIELDS[type(part)].items(), said, strict=True):
        setattr(part, name, records.read(hint, value))
