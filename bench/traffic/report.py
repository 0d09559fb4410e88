"""What was measured, as tables for people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from traffic.compare import FIGURES, best_goodput


def table(record: dict[str, Any]) -> str:
    """The whole record as text."""
    lines = [f"{record['model']}, {record['threads']} threads; targets: {_targets(record['targets'])}"]
    for each in record["compared"]:
        lines += ["", *_compared(each, record)]
    for trace in dict.fromkeys(each["trace"] for each in record["compared"]):
        best = best_goodput(record["compared"], trace)
        told = ", ".join(f"{name} {goodput:.2f} req/s at {speed:g} x" for name, (goodput, speed) in best.items())
        lines += ["", f"{trace}, best goodput: {told}"]
    for kind, lines_of in (("stall", _stall), ("overhead", _overhead), ("restart", _restart)):
        for each in record.get(kind, ()):
            lines += ["", f"{each['server']}: " + (each.get("left_out") or lines_of(each))]
    lines += [f"left out: {why}" for why in record["skipped"]]
    return "\n".join(lines)


def _targets(targets: dict[str, float]) -> str:
    return f"first token {targets['first_s']:g} s, gap {targets['gap_s']:g} s"


def _compared(each: dict[str, Any], record: dict[str, Any]) -> Iterator[str]:
    names, others = list(each["medians"]), list(each["ratios"])
    of = [held for held in record["replay"] if (held["trace"], held["speed"]) == (each["trace"], each["speed"])]
    yield f"{each['trace']}, {each['speed']:g} x its speed, {of[0]['requests']} requests, {len(of) // len(names)} turns"
    heads = "".join(f"{name:>14}" for name in names) + "".join(f"{'/ ' + name:>14}" for name in others)
    yield f"  {'':24}{heads}"
    for path, (name, unit, _) in FIGURES.items():
        values = [each["medians"][server][path] for server in names]
        ratios = [each["ratios"][other].get(path) for other in others]
        if any(value is not None for value in values):
            yield f"  {name:24}" + "".join(map(_cell, values)) + "".join(map(_cell, ratios)) + f"  {unit}"
    others = [held["others"] for held in of if held["others"] is not None]
    stalled = max(held["client_stalled_s"] for held in of)
    told = f"took {min(others):.0%} to {max(others):.0%} of the cores; " if others else ""
    yield f"  others {told}the client was kept waiting for {number(stalled)} s at most"
    for name in names:
        if errors := _errors([held["errors"] for held in of if held["server"] == name]):
            yield f"  {name}: {errors}"


def _errors(found: Sequence[dict[str, int]]) -> str:
    kinds = dict.fromkeys(kind for each in found for kind in each)
    return ", ".join(f"{sum(each.get(kind, 0) for each in found)} x {kind}" for kind in kinds)


def _cell(value: float | None) -> str:
    return f"{'-' if value is None else number(value):>14}"


def number(value: float) -> str:
    """Three digits or so."""
    return f"{value:.3f}" if value < 1 else f"{value:.2f}" if value < 100 else f"{value:.0f}"


def _stall(each: dict[str, Any]) -> str:
    if not each.get("p99_ratio"):
        return f"nothing to compare ({', '.join(each['failures']) or 'no gaps'})"
    idle, during = (each[key]["p99"] * 1e3 for key in ("idle_s", "during_s"))
    took = f"the long prompt took {number(each['long_first_s'])} s"
    return f"p99 gap {idle:.0f} ms, during a long prompt {during:.0f} ms: {each['p99_ratio']:.2f} x; {took}"


def _overhead(each: dict[str, Any]) -> str:
    rates = f"{number(each['in_process_tok_s'])} tok/s in process, {number(each['served_tok_s'])} served"
    told = f"{each['streams']} streams: {rates}; {each['lost']:.1%} lost"
    if each["beside_engine_s"] is not None:
        told += f"; {each['beside_engine_s'] * 1e6:.0f} us of processor a token beside the engine's process"
    return f"{told}; {each['client_s'] * 1e6:.0f} us the client's"


def _restart(each: dict[str, Any]) -> str:
    told = f"{each['whole']} of {each['streams']} streams whole, {each['equal']} equal to before"
    if each["pause_s"]:
        told += f", the longest pause of each {number(each['pause_s']['p50'])} s (median)"
    if each["failures"]:
        told += f", {', '.join(each['failures'])}"
    again = each["serves_again_s"]
    return told + (f"; serves again after {number(again)} s" if again is not None else "; does not serve again")
