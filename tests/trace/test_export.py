"""Exports: what others read is what was recorded."""

import json
import sys
from pathlib import Path

from taped import drawn

from openwork.core.event import Token
from openwork.trace import export
from openwork.trace.entry import Planned, Ran, Submitted
from openwork.trace.gather import gather

sys.path.append(str(Path(__file__).parents[2] / "bench"))

from traffic import trace

SEED = 3


def test_every_line_is_a_json_object():
    entries = drawn(SEED)
    lines = [json.loads(line) for line in export.as_json(entries)]
    assert len(lines) == len(entries) and lines[0]["line"] == "began"
    for line, entry in zip(lines, entries, strict=True):
        assert line["line"] == type(entry).__name__.lower() and line["time"] == entry.time
        if isinstance(entry, Planned):
            blocks = [list(work.blocks) for work in entry.step.works]
            assert [work["blocks"] for work in line["step"]["works"]] == blocks


def test_the_benchmark_reads_the_arrivals_again(tmp_path):
    for seed in range(10):
        entries = drawn(seed)
        accepted = [entry for entry in entries if isinstance(entry, Submitted) and not entry.error]
        accepted = {entry.number: entry for entry in reversed(accepted)}  # a restart submits again
        if not accepted:
            continue
        path = tmp_path / f"{seed}.jsonl"
        path.write_bytes(b"".join(export.as_mooncake(entries)))
        arrivals = trace.read(path)
        first = min(entry.time for entry in accepted.values())
        asked = sorted((round(entry.time - first, 3), len(entry.request.prompt)) for entry in accepted.values())
        told = sorted((round(each.at_s, 3), each.prompt_length) for each in arrivals)
        assert [length for _, length in told] == [length for _, length in asked]
        for one, other in zip(told, asked, strict=True):
            assert abs(one[0] - other[0]) <= 0.0021
        given = {}
        for entry in entries:
            for event in getattr(entry, "events", ()):
                if isinstance(event, Token):
                    given[event.request, event.index] = given.get((event.request, event.index), 0) + 1
        longest = max(given.values(), default=1)
        assert max(arrival.max_tokens for arrival in arrivals) == longest


def test_equal_blocks_have_equal_ids_and_namespaces_share_none():
    from openwork.core.request import Limits, Request, SamplingParams
    from openwork.core.terms import Terms
    from openwork.trace.arrivals import Arrival

    limits = Limits(50, 4096)

    def ids(known, prompt, tenant):
        request = Request(tuple(prompt), SamplingParams(), limits, Terms(tenant=tenant))
        return export._hash_ids(Arrival(0.0, "", request), known)

    known, long = {}, [i % 50 for i in range(1100)]
    first = ids(known, long, "ann")
    assert len(first) == 3 and len(set(first)) == 3
    assert ids(known, [*long[:1024], *long[:100]], "ann")[:2] == first[:2]
    assert ids(known, [*long[:1024], *long[:100]], "ann")[2] != first[2]
    assert ids(known, [7, *long[1:]], "ann")[1] != first[1], "a block stands on those before it"
    assert not set(ids(known, long, "bob")) & set(first)


def test_the_trace_event_format_is_kept_to():
    entries = drawn(SEED)
    document = json.loads(b"".join(export.as_perfetto(entries)))
    course, events = gather(entries), document["traceEvents"]
    for event in events:
        assert event["ph"] in {"M", "X", "i", "C"} and isinstance(event["pid"], int) and isinstance(event["name"], str)
        if event["ph"] != "M":
            assert event["ts"] >= 0
        if event["ph"] == "X":
            assert event["dur"] >= 0 and isinstance(event["tid"], int)
        if event["ph"] == "C":
            assert all(isinstance(count, int) for count in event["args"].values())
    steps = [event for event in events if event.get("cat") == "step" and event["ph"] == "X"]
    assert len(steps) == sum(isinstance(entry, Ran) for entry in entries) + sum(bool(s.failed) for s in course.steps)
    by_thread = {}
    for event in events:
        if event.get("cat") == "request" and event["ph"] == "X":
            by_thread.setdefault(event["tid"], []).append(event)
    assert len(by_thread) == sum(not asked.error for asked in course.requests)
    assert {"queued", "running"} <= {event["name"] for own in by_thread.values() for event in own}
