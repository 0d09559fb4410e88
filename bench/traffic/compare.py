"""Comparing: medians over turns for each server, and ratios taken turn by turn against the first server named.

A ratio above 1 is the first server being better, whether more is better or less.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

# path within a summary -> (name, unit, whether more is better)
FIGURES = {
    "goodput": ("goodput", "req/s", True),
    "goodput_strict": ("goodput, every gap", "req/s", True),
    "met": ("met both targets", "", True),
    "tok_s": ("tokens", "tok/s", True),
    "duration_s": ("until all had ended", "s", False),
    "first_s.p50": ("first token p50", "s", False),
    "first_s.p90": ("first token p90", "s", False),
    "first_s.p99": ("first token p99", "s", False),
    "gap_s.p50": ("gap p50", "s", False),
    "gap_s.p90": ("gap p90", "s", False),
    "gap_s.p99": ("gap p99", "s", False),
    "end_s.p50": ("end to end p50", "s", False),
    "end_s.p99": ("end to end p99", "s", False),
    "processor_s": ("processor time", "s", False),
    "hit_rate": ("prefix hits", "", True),
    "fairness": ("fairness", "", True),
}
RATIOS = [path for path in FIGURES if path not in ("met", "hit_rate", "fairness")]


def look(summary: dict[str, Any], path: str) -> float | None:
    """The figure at a path of FIGURES, None where a summary has none."""
    found: Any = summary
    for part in path.split("."):
        found = found.get(part) if isinstance(found, dict) else None
    return None if found is None else float(found)


def medians(summaries: Sequence[dict[str, Any]]) -> dict[str, float | None]:
    """Path -> its median over the turns that have it."""
    return {path: _median([look(each, path) for each in summaries]) for path in FIGURES}


def ratios(first: Sequence[dict[str, Any]], other: Sequence[dict[str, Any]]) -> dict[str, float | None]:
    """Path -> median over turns of how many times better the first did; None where a turn gave nothing to divide by."""
    found = {}
    for path in RATIOS:
        pairs = [(look(mine, path), look(its, path)) for mine, its in zip(first, other, strict=True)]
        found[path] = _median([_ratio(mine, its, FIGURES[path][2]) for mine, its in pairs])
    return found


def _ratio(mine: float | None, its: float | None, is_more_better: bool) -> float | None:
    if mine is None or its is None:
        return None
    above, below = (mine, its) if is_more_better else (its, mine)
    return above / below if below else None


def _median(values: Sequence[float | None]) -> float | None:
    held = [value for value in values if value is not None]
    return statistics.median(held) if held else None


def compare(replays: Sequence[dict[str, Any]], servers: Sequence[str]) -> list[dict[str, Any]]:
    """For each speed of each trace: medians of every server, and the ratios of the first to each other one."""
    found = []
    for trace, speed in dict.fromkeys((each["trace"], each["speed"]) for each in replays):
        of = {
            name: [each for each in replays if (each["trace"], each["speed"], each["server"]) == (trace, speed, name)]
            for name in servers
        }
        found.append(
            {
                "trace": trace,
                "speed": speed,
                "medians": {name: medians(each) for name, each in of.items()},
                "ratios": {name: ratios(of[servers[0]], of[name]) for name in servers[1:]},
            }
        )
    return found


def best_goodput(compared: Sequence[dict[str, Any]], trace: str) -> dict[str, tuple[float, float]]:
    """Server -> the highest median goodput over all speeds of a trace, and the speed that gave it."""
    best: dict[str, tuple[float, float]] = {}
    for each in compared:
        if each["trace"] != trace:
            continue
        for name, held in each["medians"].items():
            if name not in best or (held["goodput"] or 0) > best[name][0]:
                best[name] = (held["goodput"] or 0.0, each["speed"])
    return best
