"""Exports: what others read is what was recorded."""

import json
import math
import sys
from pathlib import Path

import pytest
from recorded import simulated
from taped import drawn

from openwork.core.event import Token
from openwork.trace import export, log
from openwork.trace.entry import Pictured, Planned, Ran, Submitted
from openwork.trace.gather import gather
from openwork.trace.recording import Recording

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
    from openwork.trace.whatif.arrivals import Arrival

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
    named = {event["tid"] for event in events if event["name"] == "thread_name" and event["tid"] >= export.LINES}
    assert len(named) == sum(len(asked.lines) for asked in course.requests if not asked.error)
    assert {"queued", "running"} <= {event["name"] for own in by_thread.values() for event in own}


REQUIRED = {"X": {"name", "cat", "ph", "ts", "dur", "pid", "tid"}, "M": {"name", "ph", "pid", "tid", "args"}}
REQUIRED |= {"C": {"name", "ph", "ts", "pid", "args"}, "i": {"name", "ph", "ts", "pid", "tid", "s"}}


def read_strictly(text):
    """The document "Trace Event Format" taken at its word -> {(pid, tid): [(start, end, name)]} of complete events.

    Fields that each phase needs, numbers that are finite, names for all tracks that have events, counters of numbers,
    and slices of a track that nest: one that begins in another ends in it, else viewers draw something else.
    """
    document = json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))
    assert document["displayTimeUnit"] in ("ms", "ns")
    tracks, named, processes = {}, set(), set()
    for event in document["traceEvents"]:
        assert REQUIRED[event["ph"]] <= event.keys(), event
        assert isinstance(event["pid"], int) and isinstance(event["name"], str) and event["name"]
        if event["ph"] == "M":
            assert event["name"] in ("process_name", "thread_name") and isinstance(event["args"]["name"], str)
            (processes if event["name"] == "process_name" else named).add((event["pid"], event["tid"]))
            continue
        assert math.isfinite(event["ts"]) and event["ts"] >= 0
        if event["ph"] == "i":
            assert event["s"] in ("g", "p", "t")
        elif event["ph"] == "C":
            assert event["args"] and all(isinstance(value, int | float) for value in event["args"].values())
        else:
            assert math.isfinite(event["dur"]) and event["dur"] >= 0
            own = tracks.setdefault((event["pid"], event["tid"]), [])
            own.append((event["ts"], event["ts"] + event["dur"], event["name"]))
    assert tracks.keys() <= named and {pid for pid, _ in tracks} <= {pid for pid, _ in processes}
    for own in tracks.values():
        around = []
        for start, end, name in sorted(own, key=lambda slice: (slice[0], -slice[1])):
            while around and start >= around[-1] - 0.0015:  # three decimals of a microsecond
                around.pop()
            assert not around or end <= around[-1] + 0.0015, (name, start, end, around)
            around.append(end)
    return tracks


@pytest.mark.parametrize("seed", range(12))
def test_a_strict_reader_finds_every_slice_nested(seed):
    entries = drawn(seed)
    tracks = read_strictly(b"".join(export.as_perfetto(entries)))
    assert any(tid == export.STEPS for _, tid in tracks)


@pytest.mark.parametrize("keeps_prompts", [True, False])
def test_a_recording_that_begins_at_a_picture_has_all_three_forms(keeps_prompts, tmp_path, monkeypatch):
    monkeypatch.setattr(log, "LEAST_SEGMENT_BYTES", 6000)
    monkeypatch.setattr(log, "SEGMENTS", 1 << 20)
    num_joined = 0
    for seed in range(8):
        directory = tmp_path / str(seed)
        simulated(seed, directory, keeps_prompts=keeps_prompts)
        files = sorted(directory.glob("*.flight"))
        for path in files[: len(files) // 2]:
            path.unlink()
        entries = list(Recording.open(directory).entries())
        lines = [json.loads(line) for line in export.as_json(entries)]
        assert [line["line"] for line in lines] == [type(entry).__name__.lower() for entry in entries]
        for line, entry in zip(lines, entries, strict=True):
            if isinstance(entry, Pictured):
                known = {each.name: list(each.request.prompt) for each in entry.known or ()}
                told = {each["name"]: each["request"]["prompt"] for each in line["known"] or ()}
                assert told == known and line["step"] == entry.picture.step
                assert (line["known"] is None) == (entry.known is None)
                num_joined += len(known)
        read_strictly(b"".join(export.as_perfetto(entries)))
        path = tmp_path / f"{seed}.jsonl"
        path.write_bytes(b"".join(export.as_mooncake(entries)))
        assert not path.stat().st_size or trace.read(path)
    assert num_joined > 0, "somebody was under way where a recording begins"
