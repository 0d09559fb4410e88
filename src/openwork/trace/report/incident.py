"""Report: what happened, written for people after an incident: who was in whose way, where memory and hits went.

    the recorded lines -> Course (replayed) -> Blame -> Findings     what is measured
                       -> simulate, a few settings that might help   what is simulated, and named so

The document is plain JSON. Tenants stand in it by the names the operator
gave them: it is for the operator alone. Every number is measured, counted in the replay, or said to be simulated.

    kind, version   "openwork.report", 1
    headline        who cost most, in a sentence or two
    recording       model, version, processes, steps, requests, refused, duration_s, replayed (steps), why_not | null
    figures         as measured (trace/whatif/figures.py), by_tenant among them
    findings[]      kind, culprit (tenant) | null, seconds, waits, victims {tenant: seconds}, requests (names of those
                    in the way), worst {request, step, process, seconds} | null, text: the costliest first
    culprits[]      tenant, seconds, of_others (of these, those of other tenants), by_kind {kind: seconds}
    memory          null unless replayed; num_blocks, peak_held, peak_step, peak_s, full_share (of samples with nothing
                    free), waste_share (of held slots), saved_share (of table entries that sharing saves), run_blocks
                    (blocks in a stretch of neighbours), by_tenant {held_mean, held_peak}, growth [[s, held]], text[]
    prefix          prompt_tokens, hit_tokens, evicted [{sake, owner, blocks}], misses {cause: requests}, by_tenant,
                    text[]
    what_if[]       label, figures (see trace/whatif/oracle.py), text: only what is worth acting on
    notes[]
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from openwork.core.errors import RequestError
from openwork.trace import cost
from openwork.trace.course import Course
from openwork.trace.entry import Entry
from openwork.trace.gather import Gathering
from openwork.trace.replay.schedule import rerun
from openwork.trace.report.blame import Blaming
from openwork.trace.report.findings import Finding, culprits, findings, headline, whose
from openwork.trace.report.remedies import remedies
from openwork.trace.report.vain import guesses_document
from openwork.trace.watch import WatchedCache
from openwork.trace.whatif.arrivals import Collecting, Recorded

VERSION = 1
MOST_SIMULATED = 100_000  # steps of a recording whose settings are tried out unasked
GROWTH_POINTS = 64
MOST_PAIRS = 8  # of tenants, in the text


def report(entries: Iterable[Entry], simulates: bool = True) -> dict[str, Any]:
    """The document. Raises RequestError when there is no request in the recording."""
    gathering, collecting = Gathering(), Collecting()
    for entry, process in rerun(entries, WatchedCache):
        collecting.take(entry, process)
        gathering.take(entry, process)
    course, recorded = gathering.course, collecting.close()
    if not course.requests:
        raise RequestError("the recording holds no request", "Nothing was asked, or it is gone.", param="record")
    try:
        costs = cost.fit(recorded.laps, cost.usual(recorded.began))
    except RequestError as error:
        return _document(course, recorded, [], [], [*recorded.notes, str(error)])
    found = findings(course, Blaming(course, costs).lay())
    tried, notes = [], list(recorded.notes)
    if simulates and len(course.steps) <= MOST_SIMULATED:
        tried = remedies(found, recorded)
    elif simulates:
        notes.append(f"With more than {MOST_SIMULATED:,} steps other settings are simulated only when asked for.")
    return _document(course, recorded, found, tried, notes)


def _document(
    course: Course, recorded: Recorded, found: list[Finding], tried: list[dict[str, Any]], notes: list[str]
) -> dict[str, Any]:
    figures = asdict(recorded.counting.figures())
    began = course.processes[0][1] if course.processes else None
    return {
        "kind": "openwork.report",
        "version": VERSION,
        "headline": headline(found),
        "recording": {
            "model": None if began is None else began.model,
            "version": None if began is None else began.version,
            "processes": len(course.processes),
            "steps": len(course.steps),
            "requests": len(course.requests),
            "refused": sum(bool(asked.error) for asked in course.requests),
            "duration_s": figures["duration_s"],
            "replayed": course.replayed,
            "why_not": course.differences[0] if course.differences else None,
        },
        "figures": figures,
        "culprits": culprits(found),
        "findings": [_finding(each, course) for each in found],
        "memory": _memory(course),
        "prefix": _prefix(course),
        "guesses": guesses_document(course),
        "what_if": tried,
        "notes": notes,
    }


def _finding(finding: Finding, course: Course) -> dict[str, Any]:
    worst = None
    if finding.worst is not None:
        asked, step = course.requests[finding.worst[0]], course.steps[finding.worst[1]]
        worst = {"request": asked.name, "step": step.number, "process": step.process, "seconds": finding.worst_s}
    return {
        "kind": finding.kind,
        "culprit": finding.culprit,
        "seconds": finding.seconds,
        "waits": finding.waits,
        "victims": dict(finding.victims),
        "requests": [course.requests[place].name for place in finding.requests],
        "worst": worst,
        "text": finding.text,
    }


# -- where memory and hits went --------------------------------------------------------------------------------------


def _memory(course: Course) -> dict[str, Any] | None:
    if not course.samples:
        return None
    size = course.processes[0][1].cache.block_size
    held = [sample.total.total - sample.total.free for sample in course.samples]
    used = [sample.total.private + sample.total.shared + sample.total.pinned for sample in course.samples]
    peak = max(range(len(used)), key=used.__getitem__)
    total = course.samples[0].total.total
    full = sum(sample.total.free + sample.total.evictable == 0 for sample in course.samples) / len(used)
    slots = sum(held) * size
    waste = sum(sample.total.wasted for sample in course.samples) / slots if slots else 0.0
    entries, distinct = (sum(getattr(s, name) for s in course.samples) for name in ("entries", "distinct"))
    runs = sum(sample.runs for sample in course.samples)
    by_tenant = _held_by(course)
    every = max(1, len(used) // GROWTH_POINTS)
    at = course.steps[course.samples[peak].step]
    means = sorted(by_tenant.items(), key=lambda each: -each[1]["held_mean"])[:MOST_PAIRS]
    held_by = ", ".join(f"{whose(name)} held {own['held_mean']:.0f}" for name, own in means)
    text = [
        f"Sequences held up to {used[peak]:,} of {total:,} blocks, at step {at.number}; in {full:.0%} of the moments "
        "looked at nothing was free and nothing could be evicted.",
        f"Of the slots in held blocks {waste:.1%} held nothing (the ends of last blocks). Sharing saved "
        f"{1 - distinct / entries:.0%} of the entries of block tables; a stretch of neighbouring blocks was "
        f"{entries / runs:.1f} long."
        if entries and runs
        else "",
        f"On average {held_by} blocks." if any(by_tenant) else "",
    ]
    return {
        "num_blocks": total,
        "block_size": size,
        "peak_held": used[peak],
        "peak_step": at.number,
        "peak_s": at.planned_s,
        "full_share": full,
        "waste_share": waste,
        "saved_share": 1 - distinct / entries if entries else 0.0,
        "run_blocks": entries / runs if runs else None,
        "by_tenant": by_tenant,
        "growth": [[course.steps[course.samples[i].step].planned_s, used[i]] for i in range(0, len(used), every)],
        "text": [each for each in text if each],
    }


def _held_by(course: Course) -> dict[str, dict[str, float]]:
    names = sorted({name for sample in course.samples for name in sample.by_tenant})
    found = {}
    for name in names:
        held = [g.private + g.shared for s in course.samples if (g := s.by_tenant.get(name)) is not None]
        found[name] = {"held_mean": sum(held) / len(course.samples), "held_peak": max(held)}
    return found


def _prefix(course: Course) -> dict[str, Any]:
    begun = [asked for asked in course.requests if asked.admitted_s is not None]
    prompt, hits = sum(asked.prompt for asked in begun), sum(asked.cached for asked in begun)
    misses = Counter(asked.miss.cause for asked in begun if asked.miss is not None)
    by_tenant: dict[str, dict[str, int]] = {}
    for asked in begun:
        own = by_tenant.setdefault(asked.tenant, {"prompt_tokens": 0, "hit_tokens": 0, "again_tokens": 0})
        own["prompt_tokens"] += asked.prompt
        own["hit_tokens"] += asked.cached
        own["again_tokens"] += asked.again.total()
    evicted = course.evicted.most_common()
    text = [f"Of {prompt:,} prompt tokens {hits:,} were in the prefix cache ({hits / prompt:.0%})."] if prompt else []
    if misses:
        causes = ", ".join(f"{cause} {count}" for cause, count in misses.most_common())
        text.append(f"Why no more was, by requests: {causes}.")
    for (sake, owner), n in evicted[:MOST_PAIRS]:
        of, by = (f" of {whose(owner)}", f" for {whose(sake)}") if sake or owner else ("", "")
        text.append(f"{n:,} {'block' if n == 1 else 'blocks'}{of} {'was' if n == 1 else 'were'} evicted{by}.")
    return {
        "prompt_tokens": prompt,
        "hit_tokens": hits,
        "evicted": [{"sake": sake, "owner": owner, "blocks": n} for (sake, owner), n in evicted],
        "misses": dict(misses),
        "by_tenant": by_tenant,
        "text": [each[0].upper() + each[1:] for each in text],
    }
