"""The timeline: what it says of steps is what was recorded, and its moves add up to where the blocks were."""

import json
from collections import Counter

from taped import drawn

from openwork.core.event import Finished, Preempted, Token
from openwork.trace.entry import Began, Planned, Ran
from openwork.trace.timeline import MOST_STRETCHES, timeline

SEEDS = 12


def test_moves_lead_from_each_state_of_the_pool_to_the_next():
    told = Counter()
    for seed in range(SEEDS):
        entries = drawn(seed)
        if sum(isinstance(entry, Began) for entry in entries) > 1:
            continue  # a new process begins with an empty pool
        document = timeline(entries, count=1000)
        memory = document["memory"]
        if memory is None:
            assert not document["steps"]
            continue
        states = [state for state, _ in memory["start"]]
        done = 0
        for sample in memory["in_time"]:
            if sample["step"] >= document["window"]["count"]:
                break
            for move in memory["moves"][done : sample["moves"]]:
                told[move[1]] += 1
                states[move[2]] = move[9]
            done = sample["moves"]
            counts = Counter(states)
            assert counts["free"] == sample["free"], f"seed {seed}, step {sample['step']}"
            assert counts["private"] == sample["private"] and counts["shared"] == sample["shared"]
            assert counts["cached"] == sample["evictable"] + sample["pinned"]
    assert set(told) == {"take", "copy", "share", "give", "evict", "drop"}, "every kind was seen"


def test_steps_and_requests_are_those_of_the_recording():
    for seed in range(SEEDS):
        entries = drawn(seed)
        document = json.loads(json.dumps(timeline(entries, count=1000), allow_nan=False))
        steps = [entry.step for entry in entries if isinstance(entry, Planned)]
        assert document["replay"]["is_equal"] and document["window"]["total"] == len(steps)
        for step, told in zip(steps, document["steps"], strict=False):
            assert (told["number"], told["rows"]) == (step.number, step.num_rows)
            assert [(w[2], w[3], w[5]) for w in told["works"]] == [
                (w.start, w.count, len(w.blocks)) for w in step.works
            ]
        events = [event for entry in entries for event in getattr(entry, "events", ())]
        lines = [line for request in document["requests"] for line in request["lines"]]
        assert sum(line["generated"] for line in lines) == sum(isinstance(event, Token) for event in events)
        preempted = sum(isinstance(event, Preempted) for event in events)
        assert sum(request["preemptions"] for request in document["requests"]) == preempted
        for line in lines:
            since = [round(span[0], 5) for span in line["spans"]]  # calendars are less exact than clocks
            assert since == sorted(since)


def test_a_window_is_what_it_says_and_the_overview_is_of_everything():
    entries = max((drawn(seed) for seed in range(8)), key=len)
    whole, part = timeline(entries, count=1000), timeline(entries, first=100, count=10)
    assert part["steps"] == whole["steps"][100:110]
    assert part["window"] == {"first": 100, "count": 10, "total": whole["window"]["total"], "requests_left_out": 0}
    assert part["overview"] == whole["overview"] and len(part["overview"]) <= MOST_STRETCHES
    assert sum(each["rows"] for each in part["overview"]) == sum(
        e.step.num_rows for e in entries if isinstance(e, Planned)
    )
    assert timeline(entries, first=10**6)["steps"] == []


def test_without_its_beginning_steps_are_told_and_memory_is_not():
    entries = [entry for entry in drawn(3) if not isinstance(entry, Began)]
    document = json.loads(json.dumps(timeline(entries)))
    assert not document["replay"]["is_equal"] and document["memory"] is None
    assert [step["rows"] for step in document["steps"]] == [
        entry.step.num_rows for entry in entries if isinstance(entry, Planned)
    ]
    tokens = [e for entry in entries if isinstance(entry, Ran) for e in entry.events if isinstance(e, Token)]
    assert sum(line["generated"] for r in document["requests"] for line in r["lines"]) == len(tokens)
    reasons = Counter(e.reason for entry in entries for e in getattr(entry, "events", ()) if isinstance(e, Finished))
    told = Counter(line["finish"] for r in document["requests"] for line in r["lines"])
    assert reasons and told - Counter({"": told[""]}) == reasons
