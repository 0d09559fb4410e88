"""Export: a recording in forms that others read.

    json       every line as it is, one JSON object a line, "line" saying what it is
    perfetto   the trace event format of Chrome, which ui.perfetto.dev opens: steps, requests and their states, blocks
    mooncake   JSON lines of the Mooncake traces: timestamp (ms), input_length, output_length, hash_ids of 512 tokens

Mooncake: Qin et al. 2024, "Mooncake: A KVCache-centric Disaggregated Architecture for LLM Serving". Its hash ids are
counted in order of appearance, and equal where the prompts are, up to there, and would share a cache. What it cannot
say is left out: a request of several sequences stands with its longest.

Trace event format: the document "Trace Event Format" by the Chromium project. Times there are microseconds.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import count
from typing import Any

import msgspec

from openwork.trace.course import Asked, Course, Stepped
from openwork.trace.entry import Entry, Pictured
from openwork.trace.gather import gather
from openwork.trace.whatif.arrivals import Arrival, collect

MOONCAKE_BLOCK = 512  # tokens that one hash id stands for
STEPS, LINES = 1, 1000  # threads of a process: all steps in one, each sequence in its own, since slices must nest

_encode = msgspec.json.Encoder().encode


def as_json(entries: Iterable[Entry]) -> Iterator[bytes]:
    """Every line of the recording as a JSON object and a newline; of a picture, which requests are under way there."""
    for entry in entries:
        told = _pictured(entry) if isinstance(entry, Pictured) else msgspec.to_builtins(entry, str_keys=True)
        yield _encode({"line": type(entry).__name__.lower(), **told}) + b"\n"


def _pictured(entry: Pictured) -> dict[str, Any]:
    """``step`` is the number of the next one. ``known`` is null where the lines before tell as much."""
    known = (
        None
        if entry.known is None
        else [
            {
                "number": each.number,
                "name": each.name,
                "arrived": each.arrived,
                "request": msgspec.to_builtins(each.request, str_keys=True),
                "answers": {str(index): list(tokens) for index, tokens in each.answers.items()},
            }
            for each in entry.known
        ]
    )
    return {"time": entry.time, "step": entry.picture.step, "known": known}


def as_mooncake(entries: Iterable[Entry]) -> Iterator[bytes]:
    """Every request that was accepted, by its arrival, as a line of a Mooncake trace."""
    arrivals = sorted(collect(entries).arrivals, key=lambda arrival: arrival.at_s)
    ids: dict[tuple[int | None, Any], int] = {}  # (the block before, tokens or namespace) -> hash id
    began = arrivals[0].at_s if arrivals else 0.0
    for arrival in arrivals:
        line = {
            "timestamp": round((arrival.at_s - began) * 1000),
            "input_length": len(arrival.request.prompt),
            "output_length": max([1, *map(len, arrival.tokens.values())]),
            "hash_ids": _hash_ids(arrival, ids),
        }
        tenant = arrival.request.terms.tenant
        yield _encode(line | ({"tenant": tenant} if tenant else {})) + b"\n"


def _hash_ids(arrival: Arrival, ids: dict[tuple[int | None, Any], int]) -> list[int]:
    prompt, before = arrival.request.prompt, None
    found: list[int] = []
    for at in range(0, len(prompt), MOONCAKE_BLOCK):
        tokens = prompt[at : at + MOONCAKE_BLOCK]
        place = (before, tokens if found else (arrival.request.terms.realm, tokens))
        before = ids.setdefault(place, len(ids))
        found.append(before)
    return found


def as_perfetto(entries: Iterable[Entry]) -> Iterator[bytes]:
    """One JSON object, in pieces: {"traceEvents": [...]}."""
    course = gather(entries)
    first = True
    yield b'{"displayTimeUnit":"ms","traceEvents":['
    for event in _events(course):
        yield (b"\n" if first else b",\n") + _encode(event)
        first = False
    yield b"\n]}\n"


def _events(course: Course) -> Iterator[dict[str, Any]]:
    for process, (_, began) in enumerate(course.processes):
        yield _named("process_name", process, 0, f"engine {process}: {began.model}")
        yield _named("thread_name", process, STEPS, "steps")
    ended: dict[int, float] = {}  # when each process's step before ended
    for step in course.steps:
        yield from _step(step, ended.get(step.process, 0.0))
        if step.landed_s is not None:
            ended[step.process] = max(ended.get(step.process, 0.0), step.landed_s)
    threads = count(LINES)
    for asked in course.requests:
        yield from _request(asked, course, threads)
    for sample in course.samples:
        step, total = course.steps[sample.step], sample.total
        counts = {"shared": total.shared, "private": total.private, "pinned": total.pinned}
        counts |= {"cached": total.evictable, "free": total.free}
        yield {"ph": "C", "name": "blocks", "pid": step.process, "ts": _us(step.planned_s), "args": counts}


def _named(what: str, process: int, thread: int, name: str) -> dict[str, Any]:
    return {"ph": "M", "name": what, "pid": process, "tid": thread, "args": {"name": name}}


def _step(step: Stepped, ended: float) -> Iterator[dict[str, Any]]:
    """One is planned while the one before runs; it begins when that has ended."""
    if step.landed_s is None:
        return
    began = max(step.planned_s, step.landed_s - step.elapsed_s) if step.elapsed_s else step.planned_s
    began = min(max(began, ended), step.landed_s)
    kind = "prompts" if step.chunks else "decode"
    about = {
        "step": step.number,
        "rows": step.rows,
        "prompt_rows": step.chunk_rows,
        "computed_again": step.again,
        "works": step.works,
        "left_out": len(step.left_out),
        "evicted": step.moves["evict"],
        "order": step.order,
        "bound": step.bound,
    }
    yield _lasting(
        f"{kind} {step.rows}", "step", step.process, STEPS, began, step.landed_s, {"step": step.number, **about}
    )
    if step.failed:
        where = {"pid": step.process, "tid": STEPS, "ts": _us(step.landed_s)}
        yield {"ph": "i", "s": "t", "name": "failed", "cat": "step", **where, "args": {"message": step.failed}}


def _request(asked: Asked, course: Course, threads: Iterator[int]) -> Iterator[dict[str, Any]]:
    tenant = f" ({asked.tenant})" if asked.tenant else ""
    about = {"prompt": asked.prompt, "cached": asked.cached, "tenant": asked.tenant}
    for index, line in sorted(asked.lines.items()):
        thread = next(threads)
        of = f" · {index}" if len(asked.lines) > 1 else ""
        yield _named("thread_name", asked.process, thread, f"request {asked.name}{of}{tenant}")
        ends = [span[0] for span in line.spans[1:]]
        for (since, state, cause), until in zip(line.spans, ends, strict=False):
            yield _lasting(state, "request", asked.process, thread, since, until, {**about, "cause": cause})
        for token in line.tokens[:1]:
            landed = course.steps[token].landed_s
            if landed is not None:
                where = {"pid": asked.process, "tid": thread, "ts": _us(landed)}
                yield {"ph": "i", "s": "t", "name": "first token", "cat": "request", **where}


def _lasting(
    name: str, kind: str, process: int, thread: int, since: float, until: float, about: dict[str, Any]
) -> dict[str, Any]:
    duration = max(0.0, round(_us(until) - _us(since), 3))
    where = {"pid": process, "tid": thread, "ts": _us(since), "dur": duration}
    return {"ph": "X", "name": name, "cat": kind, **where, "args": about}


def _us(seconds: float) -> float:
    return round(seconds * 1e6, 3)
