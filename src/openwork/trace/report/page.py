"""The post-incident report as one HTML page with charts: no script, nothing loaded, the figures of the text and JSON.

    report document -> report_page -> HTML

It guarantees that every text of the document stands on the page as text, and that each chart has a name, a summary, and
its numbers in words or a table beside it. It measures nothing and decides nothing.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from typing import Any

Figure = Callable[[str, Any], str]  # (name of a figure, its value) -> text in its unit
WIDE, LEFT = 900, 210  # of charts, in units of their own


@dataclass(frozen=True, slots=True)
class Simulated:
    """How what was simulated is said: what-if figures as rows, the first a head, and what their marks mean."""

    rows: Callable[[list[dict[str, Any]]], Sequence[Sequence[str]]]
    marks: str


def report_page(
    document: dict[str, Any], labels: dict[str, str], shown: Sequence[str], figure: Figure, simulated: Simulated
) -> str:
    """``labels`` name figures, ``shown`` are those of the table, ``figure`` says a value in its unit."""
    style = (files("openwork.trace.page") / "report.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode("ascii")
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; base-uri 'none'; form-action 'none'"
    memory, prefix, guesses = document["memory"], document["prefix"], document["guesses"]
    parts = [
        f"<h1>What happened</h1><p class=lead>{escape(document['headline'])}</p>",
        _recording(document["recording"], figure),
        _section("What was measured", [_figures(document["figures"], labels, shown, figure)]),
        _section("What people waited for", [*_findings(document, figure)] if document["findings"] else []),
        _section("Memory", [] if memory is None else [*_words(memory["text"]), _growth(memory, figure)]),
        _section("Prefix cache", [*_words(prefix["text"]), _hits(prefix)] if prefix["text"] else []),
        _section("Guessed ahead", [] if guesses is None else _words(guesses["text"])),
        _section("What might have helped (simulated)", _what_if(document["what_if"], simulated)),
        _section("Notes", _words(document["notes"])),
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}"><meta name="referrer" '
        f'content="no-referrer"><title>What happened · openwork</title><style>{style}</style></head>'
        f"<body><main>{''.join(parts)}</main></body></html>\n"
    )


def _section(title: str, parts: Iterable[str]) -> str:
    inside = "".join(parts)
    return f"<section><h2>{escape(title)}</h2>{inside}</section>" if inside else ""


def _words(lines: Iterable[str]) -> list[str]:
    return [f"<p>{escape(line)}</p>" for line in lines]


def _named(tenant: str | None) -> str:
    return "nobody" if tenant is None else tenant or "(no name)"


def _recording(told: dict[str, Any], figure: Figure) -> str:
    facts = {
        "requests": f"{told['requests']:,}",
        "refused": f"{told['refused']:,}",
        "steps": f"{told['steps']:,}",
        "engine processes": f"{told['processes']:,}",
        "lasted": figure("duration_s", told["duration_s"]),
        "steps replayed, all equal": f"{told['replayed']:,}",
    }
    pairs = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in facts.items())
    why = f"<p class=soft>Not all could be replayed: {escape(told['why_not'])}.</p>" if told["why_not"] else ""
    about = " · ".join(str(each) for each in (told["model"], told["version"]) if each)
    return f"<p class=soft>{escape(about)}</p><dl>{pairs}</dl>{why}"


def _table(caption: str, head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    heads = "".join(f'<th scope="col">{escape(each)}</th>' for each in head)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return (
        f'<div class=scroll tabindex="0" role="region" aria-label="{escape(caption)}"><table><caption>{escape(caption)}'
        f"</caption><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _figures(figures: dict[str, Any], labels: dict[str, str], shown: Sequence[str], figure: Figure) -> str:
    every = [figures, *figures["by_tenant"].values()]
    rows = [[labels[name], *(figure(name, each[name]) for each in every)] for name in shown]
    return _table("For everybody, and for each tenant", ["", "all", *map(_named, figures["by_tenant"])], rows)


# -- charts ----------------------------------------------------------------------------------------------------------


def _chart(name: str, height: int, parts: Iterable[str], caption: str) -> str:
    return (
        f'<figure><svg viewBox="0 0 {WIDE} {height}" role="img" aria-label="{escape(name)}">{"".join(parts)}</svg>'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def _bars(name: str, bars: Sequence[tuple[str, Sequence[tuple[str, float]], str]], caption: str) -> str:
    """``bars`` are (label, [(class, value)], text behind it); a bar's parts stand one after the other."""
    high = max((sum(value for _, value in parts) for _, parts, _ in bars), default=0.0) or 1.0
    drawn, room = [], WIDE - LEFT - 110
    for row, (label, parts, text) in enumerate(bars):
        y, x = row * 28, float(LEFT)
        short = label if len(label) <= 26 else label[:25] + "…"
        drawn.append(f'<text x="{LEFT - 12}" y="{y + 17}" text-anchor="end">{escape(short)}</text>')
        for kind, value in parts:
            width = room * value / high
            drawn.append(f'<rect class="{kind}" x="{x:.1f}" y="{y + 4}" width="{max(width, 0.5):.1f}" height="18"/>')
            x += width
        drawn.append(f'<text class="mono" x="{x + 8:.1f}" y="{y + 17}">{escape(text)}</text>')
    return _chart(name, 28 * len(bars) + 6, drawn, caption)


def _findings(document: dict[str, Any], figure: Figure) -> Iterable[str]:
    found, culprits = document["findings"], document["culprits"]
    named = [f"{each['kind']}{'' if each['culprit'] is None else ': ' + _named(each['culprit'])}" for each in found]
    pairs = zip(named, found, strict=True)
    bars = [(name, [(each["kind"], each["seconds"])], figure("wait_s", each["seconds"])) for name, each in pairs]
    yield _bars("Seconds of waiting by cause", bars, "Seconds add up over all that waited, one behind the other.")
    yield "<ol>" + "".join(f"<li>{escape(each['text'])}</li>" for each in found) + "</ol>"
    if any(each["tenant"] for each in culprits):
        rows = [
            (_named(each["tenant"]), list(each["by_kind"].items()), figure("wait_s", each["seconds"]))
            for each in culprits
        ]
        yield _bars(
            "Seconds of waiting by tenant", rows, "Whose work it was that others, and they themselves, waited for."
        )
        kinds = sorted({kind for each in culprits for kind in each["by_kind"]})
        marks = "".join(
            f'<span><svg viewBox="0 0 14 10" aria-hidden="true"><rect class="{kind}" width="14" height="10"/></svg>'
            f"{escape(kind)}</span>"
            for kind in kinds
        )
        yield f"<p class=key>{marks}</p>"


def _growth(memory: dict[str, Any], figure: Figure) -> str:
    """Blocks that sequences held, in time, under the roof of all there are."""
    points, top, foot, left = memory["growth"], 14, 190, 64
    if len(points) < 2:
        return ""
    first, last = points[0][0], points[-1][0]
    high = max(memory["num_blocks"] if memory["peak_held"] * 3 > memory["num_blocks"] else 0, memory["peak_held"], 1)
    span = max(last - first, 1e-9)

    def at(time: float, held: float) -> str:
        return f"{left + (WIDE - left - 16) * (time - first) / span:.1f},{foot - (foot - top) * held / high:.1f}"

    line = " ".join(at(*point) for point in points)
    parts = [
        f'<line class="hair" x1="{left}" x2="{WIDE - 16}" y1="{foot}" y2="{foot}"/>',
        f'<polygon class="area" points="{at(first, 0)} {line} {at(last, 0)}"/><polyline class="line" points="{line}"/>',
        f'<text class="soft mono" x="{left - 8}" y="{top + 5}" text-anchor="end">{high:,}</text>',
        f'<text class="soft mono" x="{left - 8}" y="{foot}" text-anchor="end">0</text>',
        f'<text class="soft" x="{left}" y="{foot + 20}">{escape(figure("at_s", first))}</text>',
        f'<text class="soft" x="{WIDE - 16}" y="{foot + 20}" text-anchor="end">{escape(figure("at_s", last))}</text>',
    ]
    if high == memory["num_blocks"]:
        parts.append(f'<line class="roof" x1="{left}" x2="{WIDE - 16}" y1="{top}" y2="{top}"/>')
    said = f"Blocks held by sequences, up to {memory['peak_held']:,} of {memory['num_blocks']:,}"
    return _chart(said, foot + 28, parts, said + ", in seconds after the first process began.")


def _hits(prefix: dict[str, Any]) -> str:
    rows = [("all", prefix["prompt_tokens"], prefix["hit_tokens"])]
    rows += [
        (_named(name), own["prompt_tokens"], own["hit_tokens"]) for name, own in prefix["by_tenant"].items() if name
    ]
    bars = [(name, [("other", hit), ("machine", all_ - hit)], f"{hit:,} of {all_:,}") for name, all_, hit in rows[:12]]
    return _bars("Prompt tokens found in the prefix cache, of all", bars, "Found in the cache, and behind it computed.")


def _what_if(tried: Sequence[dict[str, Any]], simulated: Simulated) -> Iterable[str]:
    for each in tried:
        head, *rows = simulated.rows(each["figures"])
        yield f"<p>{escape(each['text'])}</p>"
        yield _table(f"With {each['label']}", head, rows)
    if tried:
        yield f"<p class=soft>{escape(simulated.marks)}</p>"
