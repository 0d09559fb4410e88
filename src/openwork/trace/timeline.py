"""Timeline: a recording as one document that a page can draw: steps, requests, where every block went, and why.

The document is plain JSON and bounded: a window of steps in full, and all steps in short as an overview. Its shape:

    kind, version     "openwork.timeline", 1
    replay            is_equal, steps (replayed and equal), of (all), difference (text or null)
    processes[]       began_s, unix_s, model, contract_id, version, block_size, num_blocks, prefix, schedule{},
                      tenants[]
    window            first, count, total: places of steps in the whole recording; step lists below are these
    requests[]        those with something to show in the window:
                      id, name, tenant, prompt, cached, most, arrived_s, admitted_s, first_token_s, ended_s, error,
                      preemptions, miss (why no more was cached) | null, is_search, stalls {cause: seconds}
                      lines[]: index, generated, finish, spans [[since_s, state, cause]], each until the next:
                      queued, running, preempted, finished
    steps[]           place, process, number, planned_s, landed_s, elapsed_s, rows, context, chunk_rows, again_rows,
                      copies, order, bound, budget, failed, moves {what: count}
                      works [[request, index, start, rows, kind, blocks]]: kind prompt|decode|again|search
                      left_out [[request, index, cause]]
    events[]          step (place), time_s, request | null, what, and what there is to say of it:
                      admitted (index, cached, miss), preempted (index, cause, by, forgotten, kept),
                      finished (index, reason), cancel (index, reason), failed (message)
    memory            null unless replayed; else
                      num_blocks, block_size, start [[state, owner]] of each block as the first step was planned,
                      moves [[step, what, block, request, index, tenant, owner, source, cause, state]] after that, in
                      the order in which they were made; state is the block's afterwards,
                      in_time [{step, time_s, free, evictable, pinned, private, shared, wasted, tables, distinct, runs,
                      moves (how many of them had been made), by_tenant {name: {evictable, pinned, private, shared,
                      wasted}}}], num_left_out (of moves)
    overview[]        at most 400 stretches of steps: first, count, from_s, to_s, rows, chunk_rows, decode_rows,
                      again_rows, busy_s, preempted, evicted, failed

Times are seconds after the first process began, measured by the engine's clock; ``request`` is a requests[].id. State
is free, cached, private or shared; what is take, copy, share, give, evict or drop (trace/watch.py tells what each is).
A tenant's name stands here as the operator knows it: whoever shows this to one tenant leaves the others out.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from openwork.trace.course import Asked, Course, Sample, Stepped
from openwork.trace.entry import Began, Entry
from openwork.trace.gather import gather

VERSION = 1
MOST_STEPS = 1000
MOST_MOVES = 50_000
MOST_STRETCHES = 400


def timeline(entries: Iterable[Entry], first: int | None = None, count: int = 400) -> dict[str, Any]:
    """The document of a recording; ``first`` is the place of the window's first step, None: from the beginning.

    ``count`` above MOST_STEPS is MOST_STEPS. Never raises for what a recording says: what cannot be known is null.
    """
    window = range(max(0, first or 0), max(0, first or 0) + max(1, min(count, MOST_STEPS)))
    return document(gather(entries, window), window)


def document(course: Course, window: range) -> dict[str, Any]:
    """The facts of a recording that was gathered with this window, as a document."""
    steps = range(window.start, min(window.stop, len(course.steps)))
    return {
        "kind": "openwork.timeline",
        "version": VERSION,
        "replay": {
            "is_equal": course.is_replayed,
            "steps": course.replayed,
            "of": len(course.steps),
            "difference": course.differences[0] if course.differences else None,
        },
        "processes": [_process(at, began) for at, began in course.processes],
        "window": {"first": steps.start, "count": len(steps), "total": len(course.steps)},
        "requests": _requests(course, steps),
        "steps": [_step(course, place) for place in steps],
        "events": [
            {"step": h.step, "time_s": h.time_s, "request": h.request, "what": h.what, **h.about}
            for h in course.detail.happened
        ],
        "memory": _memory(course, steps),
        "overview": _overview(course),
    }


def _process(at: float, began: Began) -> dict[str, Any]:
    return {
        "began_s": at,
        "unix_s": began.unix_s,
        "model": began.model,
        "contract_id": began.contract_id,
        "version": began.version,
        "block_size": began.cache.block_size,
        "num_blocks": began.cache.num_blocks,
        "prefix": began.cache.prefix,
        "schedule": asdict(began.schedule),
        "tenants": sorted(began.tenants),
    }


def _requests(course: Course, steps: range) -> list[dict[str, Any]]:
    """Requests that lived at some time of the window."""
    if not steps:
        return [_request(place, asked, course) for place, asked in enumerate(course.requests[:MOST_STEPS])]
    begin, last = course.steps[steps.start], course.steps[steps.stop - 1]
    since, until = begin.planned_s, last.planned_s if last.landed_s is None else last.landed_s
    return [
        _request(place, asked, course)
        for place, asked in enumerate(course.requests)
        if asked.arrived_s <= until and (asked.ended_s is None or asked.ended_s >= since) and not asked.error
    ]


def _request(place: int, asked: Asked, course: Course) -> dict[str, Any]:
    firsts = [line.tokens[0] for line in asked.lines.values() if line.tokens and not line.before]
    stalls = {} if asked.account is None else dict(asked.account.stalls)
    return {
        "id": place,
        "name": asked.name,
        "tenant": asked.tenant,
        "prompt": asked.prompt,
        "cached": asked.cached,
        "most": asked.most,
        "arrived_s": asked.arrived_s,
        "admitted_s": asked.admitted_s,
        "first_token_s": course.steps[min(firsts)].landed_s if firsts else None,
        "ended_s": asked.ended_s,
        "error": asked.error,
        "preemptions": len(asked.preempted),
        "miss": None if asked.miss is None else asked.miss.cause,
        "is_search": asked.is_search,
        "stalls": stalls,
        "lines": [
            {
                "index": index,
                "generated": line.before + len(line.tokens),
                "finish": line.finish,
                "spans": [list(s) for s in line.spans],
            }
            for index, line in sorted(asked.lines.items())
        ],
    }


def _step(course: Course, place: int) -> dict[str, Any]:
    step = course.steps[place]
    return {
        "place": place,
        "process": step.process,
        "number": step.number,
        "planned_s": step.planned_s,
        "landed_s": step.landed_s,
        "elapsed_s": step.elapsed_s,
        "rows": step.rows,
        "context": step.work.single_context + step.work.chunk_context,
        "chunk_rows": step.chunk_rows,
        "again_rows": step.again,
        "copies": step.copies,
        "order": step.order,
        "bound": step.bound,
        "budget": step.budget,
        "failed": step.failed,
        "moves": dict(step.moves),
        "works": [list(work) for work in course.detail.works.get(place, [])],
        "left_out": [list(each) for each in step.left_out],
    }


def _memory(course: Course, steps: range) -> dict[str, Any] | None:
    if not course.detail.start or not steps:
        return None
    began = course.processes[course.steps[steps.start].process][1]
    moves = [
        [step, m.what, m.block, m.request, m.index, m.tenant, m.owner, m.source, m.cause, m.state]
        for step, m in course.detail.moves[:MOST_MOVES]
    ]
    return {
        "num_blocks": began.cache.num_blocks,
        "block_size": began.cache.block_size,
        "start": [list(each) for each in course.detail.start],
        "moves": moves,
        "num_left_out": len(course.detail.moves) - len(moves),
        "in_time": [_sample(sample, course.steps[sample.step]) for sample in course.samples],
    }


def _sample(sample: Sample, step: Stepped) -> dict[str, Any]:
    return {
        "step": sample.step,
        "time_s": step.planned_s,
        **asdict(sample.total),
        "tables": sample.entries,
        "distinct": sample.distinct,
        "runs": sample.runs,
        "moves": sample.moves,
        "by_tenant": {name: _charged(asdict(gauges)) for name, gauges in sample.by_tenant.items()},
    }


def _charged(gauges: dict[str, int]) -> dict[str, int]:
    """Nobody is charged for what is free."""
    return {name: count for name, count in gauges.items() if name != "free"}


def _overview(course: Course) -> list[dict[str, Any]]:
    """Stretches of as many steps each, so that there are at most MOST_STRETCHES."""
    preempted = [place for asked in course.requests for place, _, _ in asked.preempted]
    each = max(1, -(-len(course.steps) // MOST_STRETCHES))
    found = []
    for first in range(0, len(course.steps), each):
        steps = course.steps[first : first + each]
        chunks = sum(step.chunk_rows for step in steps)
        found.append(
            {
                "first": first,
                "count": len(steps),
                "from_s": steps[0].planned_s,
                "to_s": max(step.planned_s if step.landed_s is None else step.landed_s for step in steps),
                "rows": sum(step.rows for step in steps),
                "chunk_rows": chunks,
                "decode_rows": sum(step.rows for step in steps) - chunks,
                "again_rows": sum(step.again for step in steps),
                "busy_s": sum(step.elapsed_s for step in steps),
                "preempted": sum(first <= place < first + each for place in preempted),
                "evicted": sum(step.moves["evict"] for step in steps),
                "failed": sum(bool(step.failed) for step in steps),
            }
        )
    return found
