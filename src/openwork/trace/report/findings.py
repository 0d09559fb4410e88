"""Findings: what went wrong in a recording, the costliest first, each with its culprit and a sentence that says why.

    memory     sequences gave their blocks back, or waited for some: who held them
    prompts    tokens, or a place in a step, waited while long prompts were computed: whose
    evictions  what had been computed was computed again, because it was evicted: for whose sake
    places     requests waited because as many ran as may
    restart    an engine process ended: its requests waited for the next, and what had been cached was computed again
    failures   steps failed
    machine    steps took longer than their size explains, as when something else ran beside

Seconds are those that requests waited, all together. A prompt that was computed again keeps its own request and others
waiting; of evictions, it is the part of that which falls on what had been evicted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from openwork.trace.course import Course
from openwork.trace.report.blame import Blame

KIND_OF = {
    "preempted": "memory",
    "blocks": "memory",
    "tenant": "memory",
    "evicted": "evictions",
    "prompts": "prompts",
    "rows": "prompts",
    "places": "places",
    "restart": "restart",
    "lost": "restart",
    "machine": "machine",
}  # causes that pass by themselves, "prefix" and "result", are nobody's fault
LEAST_SHARE = 0.05  # of all that was waited: less is no finding
LEAST_OF_ALL = 0.01  # of the time that requests took, all together: less is no finding either
MOST_NAMED = 3  # requests that are named as being in the way


@dataclass(frozen=True, slots=True)
class Finding:
    """``culprit`` is a tenant, None where there is none. ``requests`` were most in the way, by place."""

    kind: str
    culprit: str | None
    seconds: float
    waits: int
    victims: tuple[tuple[str, float], ...]  # (tenant, seconds), most first
    requests: tuple[int, ...]
    worst_s: float
    worst: tuple[int, int] | None  # (place of the request that waited, place of the step that ended it)
    text: str


def findings(course: Course, blames: Sequence[Blame]) -> list[Finding]:
    """What is worth saying, the costliest first."""
    grouped = _grouped(blames)
    total = sum(blame.seconds for own in grouped.values() for blame in own)
    took = sum(asked.ended_s - asked.arrived_s for asked in course.requests if asked.ended_s is not None)
    least = max(LEAST_SHARE * total, LEAST_OF_ALL * took)
    found = [_merged(kind, culprit, own, course) for (kind, culprit), own in grouped.items()]
    kept = [each for each in found if each.seconds >= least or each.kind == "restart"]
    return sorted([*kept, *_failures(course)], key=lambda each: -each.seconds)


def culprits(found: Sequence[Finding]) -> list[dict[str, Any]]:
    """Every tenant that was in somebody's way, with the seconds by kind, and how many of them others waited."""
    by_tenant: dict[str, dict[str, Any]] = {}
    for finding in found:
        if finding.culprit is not None:
            own = by_tenant.setdefault(finding.culprit, {"seconds": 0.0, "of_others": 0.0, "by_kind": {}})
            own["seconds"] += finding.seconds
            own["of_others"] += sum(seconds for victim, seconds in finding.victims if victim != finding.culprit)
            own["by_kind"][finding.kind] = finding.seconds
    ordered = sorted(by_tenant.items(), key=lambda each: -each[1]["seconds"])
    return [{"tenant": tenant, **own} for tenant, own in ordered]


def headline(found: Sequence[Finding]) -> str:
    """Who cost most, in a sentence or two."""
    if not found:
        return "Nobody waited long."
    first = next(iter(culprits(found)), None)
    if first is None or not first["tenant"] or first["seconds"] < found[0].seconds:
        return found[0].text
    kinds = ", ".join(f"{kind} {span(seconds)}" for kind, seconds in first["by_kind"].items())
    who = whose(first["tenant"])
    others = f", {span(first['of_others'])} of them others" if first["of_others"] else ""
    worst = next(each for each in found if each.culprit == first["tenant"])
    return (
        f"{who[0].upper()}{who[1:]} kept requests waiting for {span(first['seconds'])}{others} ({kinds}). {worst.text}"
    )


def _grouped(blames: Iterable[Blame]) -> dict[tuple[str, str | None], list[Blame]]:
    found: dict[tuple[str, str | None], list[Blame]] = {}
    for blame in blames:
        kind = KIND_OF.get(blame.cause)
        if kind is not None and blame.seconds > 0:
            found.setdefault((kind, blame.culprit), []).append(blame)
    return found


def _merged(kind: str, culprit: str | None, own: list[Blame], course: Course) -> Finding:
    victims: dict[str, float] = {}
    by = Counter[int]()
    for blame in own:
        victims[blame.victim] = victims.get(blame.victim, 0.0) + blame.seconds
        by.update(blame.by)
    worst = max(own, key=lambda blame: blame.worst_s)
    finding = Finding(
        kind=kind,
        culprit=culprit,
        seconds=sum(blame.seconds for blame in own),
        waits=sum(blame.waits for blame in own),
        victims=tuple(sorted(victims.items(), key=lambda each: -each[1])),
        requests=tuple(place for place, _ in by.most_common(MOST_NAMED)),
        worst_s=worst.worst_s,
        worst=worst.worst,
        text="",
    )
    return _told(finding, course)


def _told(finding: Finding, course: Course) -> Finding:
    who = whose(finding.culprit)
    if finding.kind == "evictions":
        text = _evicted(finding, course)
    elif finding.kind == "memory":
        preempted = Counter(event.tenant for asked in course.requests for _, event, _ in asked.preempted)
        split = f" ({_by_tenant(preempted)})" if len(preempted) > 1 else ""
        again = sum(step.again for step in course.steps)
        done = (
            f"sequences were preempted {preempted.total()} times{split}, {again:,} positions were computed again, and "
        )
        held = f" while {who} held most of them" if finding.culprit else ""
        text = (
            f"The cache ran out of blocks{held}: {done if preempted else ''}waiting for blocks took "
            f"{span(finding.seconds)}."
        )
    elif finding.kind == "prompts":
        rows = Counter[int]()
        for step in course.steps:
            for place, count in step.chunks:
                if course.requests[place].tenant == finding.culprit:
                    rows[place] += count
        longest = max((course.requests[place].prompt for place in rows), default=0)
        text = (
            f"{f'Prompts of {who}' if finding.culprit else 'Prompts'} filled the steps in which others waited for "
            f"their tokens: {len(rows)} requests, "
            f"{sum(rows.values()):,} rows, the longest prompt {longest:,} tokens; that took {span(finding.seconds)}."
        )
    elif finding.kind == "places":
        text = (
            f"As many sequences ran as may (max_running), most of them of {who}; waiting took {span(finding.seconds)}."
        )
    elif finding.kind == "restart":
        text = (
            f"The engine's process ended and another took over; requests waited {span(finding.seconds)}{_lost(course)}."
        )
    else:
        text = (
            f"Steps took longer than their size explains, {span(finding.seconds)} of waiting in all: something else "
            "ran on the machine."
        )
    return replace(finding, text=f"{text}{_worst(finding, course)}")


def _lost(course: Course) -> str:
    """What had been cached when a process ended, and was asked for again."""
    lost = [asked.lost for asked in course.requests if asked.lost]
    if not lost:
        return ""
    return (
        f" for it and for what had been in its prefix cache: {sum(lost):,} prompt tokens of {len(lost)} requests were "
        "computed a second time"
    )


def _worst(finding: Finding, course: Course) -> str:
    if finding.worst is None:
        return ""
    place, step = finding.worst
    asked = course.requests[place]
    of = f" of {whose(asked.tenant)}" if asked.tenant else ""
    return (
        f" The longest wait was {span(finding.worst_s)}: request {asked.name}{of}, up to step "
        f"{course.steps[step].number}."
    )


def _evicted(finding: Finding, course: Course) -> str:
    culprit = finding.culprit or ""
    tokens: Counter[str] = Counter()
    times = 0
    for asked in course.requests:
        if culprit in asked.again:
            tokens[asked.tenant] += asked.again[culprit]
            times += 1
    blocks = sum(count for (sake, _), count in course.evicted.items() if sake == culprit)
    return (
        f"{blocks:,} cached blocks were evicted to make room for {whose(culprit)}. Of what had been in them, "
        f"{tokens.total():,} prompt tokens ({_by_tenant(tokens)}) were asked for again in {times} requests and "
        f"computed a second time, which kept people waiting for {span(finding.seconds)}."
    )


def _failures(course: Course) -> list[Finding]:
    failed = [step for step in course.steps if step.failed]
    if not failed:
        return []
    text = f"{len(failed)} steps failed, the first with: {failed[0].failed}"
    return [Finding("failures", None, 0.0, len(failed), (), (), 0.0, None, text)]


def _by_tenant(counts: Counter[str]) -> str:
    return ", ".join(f"{count:,} of {whose(name)}" for name, count in counts.most_common(MOST_NAMED))


def whose(tenant: str | None) -> str:
    """A tenant as a sentence names it."""
    return f"tenant {tenant}" if tenant else "nobody in particular"


def span(seconds: float) -> str:
    """A time as a sentence says it."""
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1e3:.3g} ms"
