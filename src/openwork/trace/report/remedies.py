"""Remedies: what might have helped against the costliest findings, simulated, where that can be said.

    Finding -> other settings -> what-if -> a sentence, or nothing

A sentence holds only figures whose interval is narrow enough to act on, and says of each whether it would have been
another at all. What no setting mends (a machine that others use, a process that was killed) has no remedy here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from openwork.core.errors import OpenworkError
from openwork.trace.report.findings import Finding, span, whose
from openwork.trace.whatif.arrivals import Recorded
from openwork.trace.whatif.change import Change, Settings
from openwork.trace.whatif.oracle import Oracle

MOST_TRIED = 3  # findings
STRETCH = 1.5
CHANGED = {
    "first_token_p99_s": "waits for the first token, 99th percentile,",
    "gap_p99_s": "waits between tokens, 99th percentile,",
    "preemptions": "preemptions",
}
OF_VICTIM = ("first_token_p99_s", "gap_p99_s")


def remedies(found: Sequence[Finding], recorded: Recorded) -> list[dict[str, Any]]:
    """Each thing once: label, figures, text."""
    if recorded.began is None:
        return []
    settings = Settings.of(recorded.began)
    tenants = {arrival.request.terms.tenant for arrival in recorded.arrivals}
    asked: dict[str, Change] = {}
    for finding in found[:MOST_TRIED]:
        asked |= _against(finding.kind, settings, len(tenants) > 1)
    tried: list[dict[str, Any]] = []
    try:
        oracle = Oracle(recorded)
    except OpenworkError:  # there is too little to go by
        return tried
    for label, change in asked.items():
        try:
            document = oracle.answer(change)
        except OpenworkError:  # such settings cannot be
            continue
        text = _would(label, document, _victim(found))
        tried.append({"label": label, "figures": document["figures"], "text": text})
    return [each for each in tried if each["text"]]


def _against(kind: str, settings: Settings, has_tenants: bool) -> dict[str, Change]:
    """Other settings than those there were, by what they are called."""
    schedule, found = settings.schedule, dict[str, Change]()
    if kind in ("memory", "evictions"):
        found["twice the blocks"] = Change(blocks_factor=2.0)
    if kind == "prompts" and (schedule.stretch is None or schedule.stretch > STRETCH):
        found[f"steps stretched by prompts to {STRETCH} times at most"] = Change(stretch=STRETCH)
    if kind == "places" and 2 * schedule.max_running < schedule.max_step_tokens:
        found["twice the places"] = Change(max_running=2 * schedule.max_running)
    if kind in ("memory", "places") and has_tenants and not schedule.is_fair:
        found["tenants taking turns"] = Change(is_fair=True)
    return found


def _victim(found: Sequence[Finding]) -> str | None:
    """The tenant that waited most for another."""
    for finding in found[:MOST_TRIED]:
        for tenant, _ in finding.victims:
            if finding.culprit is not None and tenant and tenant != finding.culprit:
                return tenant
    return None


def _would(label: str, document: dict[str, Any], victim: str | None) -> str:
    """What would have been otherwise, of what is known well enough; empty: nothing is."""
    parts = [_part(each, CHANGED[each["name"]]) for each in document["figures"] if each["name"] in CHANGED]
    for each in document["by_tenant"].get(victim, ()):
        if each["name"] in OF_VICTIM:
            parts.append(_part(each, f"of {whose(victim)} alone: {CHANGED[each['name']]}"))
    said = [part for part in parts if part]
    return f"Simulated, with {label}: {'; '.join(said)}." if said else ""


def _part(each: dict[str, Any], title: str) -> str:
    was, would, interval = each["as_recorded"], each["what_if"], each["interval"]
    if not each["is_good"] or None in (was, would, each["measured"]) or not (was or would):
        return ""
    say = span if each["name"].endswith("_s") else "{:.0f}".format
    if interval[0] <= was <= interval[1]:
        return f"{title} about as they were ({say(was)})"
    low, high = map(say, interval)
    how = say(would) if low == high else f"{say(would)} ({low} to {high})"
    return f"{title} {how} instead of {say(was)} (measured: {say(each['measured'])})"
