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


def what_if_table(document: dict[str, Any]) -> str:
    """A what-if document as text."""
    asked, recorded, cost = document["asked"], document["recorded"], document["cost"]
    changed = [
        f"{name} {quantity(recorded[name])} -> {quantity(asked[name])}"
        for name in asked
        if asked[name] != recorded[name]
    ]
    lines = [
        f"What if: {', '.join(changed) or 'nothing changed'}. Columns that say so are simulated, not measured.",
        "",
        *columns(document["figures"]),
        "",
        f"A step costs {seconds(cost['base_s'])}, {seconds(cost['single_row_s'])} for a row that stands alone and "
        f"{seconds(cost['chunk_row_s'])} for one of a prompt, {seconds(cost['single_context_s'])} and "
        f"{seconds(cost['chunk_context_s'])} for each position attended to: fitted to {cost['steps']} steps, half "
        f"of them within {cost['error']:.0%}; what the fit does not say is drawn from steps of about the size.",
        "How far to trust it says the column off: the same simulation under the recorded settings, beside what was.",
        *document["notes"],
    ]
    return "\n".join(lines) + "\n"


def columns(figures: list[dict[str, Any]]) -> list[str]:
    """One line a figure: measured, simulated as it was and what if, and how far they lie apart."""
    rows: list[tuple[str, ...]] = [("", "measured", "simulated", "off", "what if", "change")]
    for each in figures:
        name = each["name"]
        was, simulated, would = (figure(name, each[key]) for key in ("measured", "as_recorded", "what_if"))
        rows.append((LABELS[name], was, simulated, percent(each["off"]), would, percent(each["change"])))
    return aligned(rows)


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
    return f"{value:.1%}" if name.endswith("rate") else str(value)


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
