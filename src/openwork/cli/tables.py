"""Documents about a recording as tables for people: what is simulated stands beside what was measured."""

from __future__ import annotations

from typing import Any

LABELS = {
    "requests": "requests",
    "refused": "refused",
    "output_tokens": "output tokens",
    "duration_s": "duration",
    "output_tok_s": "output tokens/s",
    "first_token_p50_s": "first token, p50",
    "first_token_p99_s": "first token, p99",
    "gap_p50_s": "between tokens, p50",
    "gap_p99_s": "between tokens, p99",
    "gap_max_s": "between tokens, most",
    "preemptions": "preemptions",
    "hit_rate": "prefix hits",
    "evicted": "blocks evicted",
    "steps": "steps",
}

MARKS = (  # of simulated figures
    "In parentheses: from what to what it may be, by other fits to the same steps, slow moments at other times,",
    "and how far simulations of the recorded settings stray from what was measured. ?: too wide to act on.",
)
SWEPT = ("first_token_p50_s", "first_token_p99_s", "gap_p50_s", "gap_p99_s", "output_tok_s", "preemptions", "hit_rate")


def what_if_table(document: dict[str, Any]) -> str:
    """A what-if document as text."""
    asked, recorded = document["asked"], document["recorded"]
    names = [*asked, *(name for name in recorded if name not in asked)]
    changed = [
        f"{name} {quantity(recorded.get(name))} -> {quantity(asked.get(name))}"
        for name in names
        if asked.get(name) != recorded.get(name)
    ]
    lines = [
        f"What if: {', '.join(changed) or 'nothing changed'}. Columns that say so are simulated, not measured.",
        "",
        *columns(document["figures"]),
        "",
        *_trust(document),
    ]
    return "\n".join(lines) + "\n"


def sweep_table(document: dict[str, Any]) -> str:
    """A sweep as text: a row for each combination."""
    rows: list[tuple[str, ...]] = [("", *(LABELS[name] for name in SWEPT))]
    rows.append(("measured", *(figure(name, document["measured"][name]) for name in SWEPT)))
    rows.append(("simulated, as it was", *(figure(name, document["as_recorded"][name]) for name in SWEPT)))
    refused = []
    for row in document["rows"]:
        if row["figures"] is None:
            refused.append(f"{row['label']}: cannot be: {row['error']}")
            continue
        cells = [(name, row["figures"][name]) for name in SWEPT]
        rows.append((row["label"], *(_marked(name, each) for name, each in cells)))
    return "\n".join([*aligned(rows), "", *refused, *_trust(document)]) + "\n"


def _marked(name: str, each: dict[str, Any]) -> str:
    """A swept figure, and whether it is too wide to act on."""
    return f"{within(name, each['what_if'], each['interval'])} {' ' if each['is_good'] else '?'}"


def _trust(document: dict[str, Any]) -> list[str]:
    """What the figures stand on."""
    cost, assumed = document["cost"], document["assumed"]
    come = (
        "when they came"
        if assumed["clients"] == "times"
        else "after the answer that they go on from, or when they came"
    )
    moments = "are in the simulation too" if assumed["disturbances"] == "same" else "are left out"
    return [
        f"A step costs what {cost['steps']} recorded ones did, half of them within {cost['error']:.0%} of the fit. "
        f"{cost['disturbed']:.0%} of their time went beyond twice that:",
        f"such moments, in which something else ran on the machine, {moments}. Requests come {come}.",
        *MARKS,
        *document["notes"],
    ]


def columns(figures: list[dict[str, Any]]) -> list[str]:
    """One line a figure, as ``compared`` has it."""
    return aligned(compared(figures))


def compared(figures: list[dict[str, Any]]) -> list[tuple[str, ...]]:
    """A head, and a row for each figure: measured, simulated as it was and what if, and how far they lie apart."""
    rows: list[tuple[str, ...]] = [("", "measured", "simulated", "off", "what if", "change", "")]
    for each in figures:
        name = each["name"]
        was, simulated = (figure(name, each[key]) for key in ("measured", "as_recorded"))
        would, mark = within(name, each["what_if"], each["interval"]), "" if each["is_good"] else "?"
        rows.append((LABELS[name], was, simulated, percent(each["off"]), would, percent(each["change"]), mark))
    return rows


def within(name: str, value: float | None, interval: list[float] | None) -> str:
    """A figure with from what to what it may be."""
    if value is None or interval is None or interval[0] == interval[1]:
        return figure(name, value)
    return f"{figure(name, value)} ({figure(name, interval[0])} - {figure(name, interval[1])})"


def aligned(rows: list[tuple[str, ...]]) -> list[str]:
    """Rows of cells as lines, the first column to the left."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip() for row in rows]


def figure(name: str, value: float | None) -> str:
    """A figure in its unit."""
    if value is None:
        return "-"
    if name.endswith("tok_s"):
        return f"{value:.1f}"
    if name.endswith("_s"):
        return seconds(value)
    return f"{value:.1%}" if name.endswith("rate") else f"{value:.0f}"


def seconds(value: float) -> str:
    """1.23 s, 45.6 ms, 7.8 us."""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if value >= size or unit == "us":
            return f"{value / size:.3g} {unit}"
    raise AssertionError("the last unit takes everything")


def percent(value: float | None) -> str:
    return "" if value is None else f"{value:+.0%}"


def quantity(value: Any) -> str:
    """A setting as people write it."""
    if isinstance(value, bool):
        return "on" if value else "off"
    return "none" if value is None else str(value)
