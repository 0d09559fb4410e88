"""What was measured, as a table for people: every peer, then the best of them at each number of bits."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

UNITS = {
    "prefill": ("prefill", "tok/s", 1.0),
    "decode": ("decode", "tok/s", 1.0),
    "start_s": ("start", "s", 1.0),
    "start_peak_bytes": ("memory at start", "MB", 1e-6),
}


def table(record: dict[str, Any]) -> str:
    """The whole record as text. A ratio above 1 is ours being better."""
    about = record["shape"], record["contract_id"], record["threads"]
    lines = ["{}, {}, {} threads; a ratio above 1 is ours being better".format(*about), ""]
    lines.append(f"{'peer':34}{'test':26}{'figure':17}{'ours':>9}{'peer':>9}  {'unit':6}{'ratio':>6}  turns")
    for result in record["results"]:
        lines += _rows(result)
    lines += ["", "against the best peer at the same number of bits"]
    lines += _best(record["results"])
    lines += [f"left out: {why}" for why in record["skipped"]]
    return "\n".join(lines)


def figures(result: dict[str, Any]) -> Iterator[tuple[str, dict[str, float]]]:
    """What a result tells. The prompts of many streams are told by nobody in the same way, so they are left out."""
    for figure in UNITS:
        if figure in result and not (figure == "prefill" and result["test"].startswith("b")):
            yield figure, result[figure]


def _rows(result: dict[str, Any]) -> Iterator[str]:
    for figure, found in figures(result):
        name, unit, factor = UNITS[figure]
        ours, peer = found["ours"] * factor, found["peer"] * factor
        what = f"{result['peer']:34}{result['about']:26}{name:17}"
        yield f"{what}{number(ours):>9}{number(peer):>9}  {unit:6}{found['ratio']:6.2f}  {result['turns']}"


def best(results: list[dict[str, Any]]) -> dict[tuple[int, str, str], dict[str, Any]]:
    """(bits, test, figure) -> the result of the peer that ours beats by the least there."""
    found: dict[tuple[int, str, str], dict[str, Any]] = {}
    for result in results:
        for figure, pair in figures(result):
            key = (result["bits"], result["test"], figure)
            if key not in found or pair["ratio"] < found[key][figure]["ratio"]:
                found[key] = result
    return found


def _best(results: list[dict[str, Any]]) -> Iterator[str]:
    for (bits, _, figure), result in sorted(best(results).items(), key=lambda each: -each[0][0]):
        name = UNITS[figure][0]
        yield f"{bits:3} bits  {result['about']:34}{name:17}{result[figure]['ratio']:6.2f}  {result['peer']}"


def number(value: float) -> str:
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 1000 else f"{value:.0f}"
