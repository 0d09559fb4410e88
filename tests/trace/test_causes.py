"""Incidents whose cause is known, for it was put there: the report names it first, and nothing that was not there."""

import random
from dataclasses import dataclass, field

import pytest
from staged import Stage, chats, words

from openwork.core.settings import ScheduleSettings
from openwork.trace.report.incident import report


@dataclass
class Incident:
    """``first`` is (kind, culprit) of what was put there; ``also`` are kinds that follow from it."""

    first: tuple
    how: dict
    arrivals: list
    also: set = field(default_factory=set)
    says: str = ""


def others(start, count, every, tenant, prompt, tokens):
    draw = random.Random(start)
    return [(start + i * every, tenant, words(draw, prompt), tokens) for i in range(count)]


CALM = chats(count=60)
INCIDENTS = {
    "a flood of one tenant's requests": Incident(
        ("places", "batch"),
        {"blocks": 2000, "schedule": ScheduleSettings(max_running=24)},
        CALM + others(5.0, 50, 0.005, "batch", 100, 120),
        {"prompts"},
    ),
    "huge prompts": Incident(
        ("prompts", "reports"), {"blocks": 2000}, CALM + others(5.0, 3, 2.0, "reports", 3900, 4), says="3,900 tokens"
    ),
    "too little memory": Incident(
        ("memory", "chat"),
        {"blocks": 120},
        chats(count=50, per_s=6.0, shared=16, own=200, tokens=(80, 160)),
        {"prompts"},
    ),
    "a tenant's long answers fill the memory": Incident(
        ("memory", "batch"), {"blocks": 160}, CALM + others(5.0, 12, 0.05, "batch", 100, 300), {"prompts", "evictions"}
    ),
    "others take the cores": Incident(
        ("machine", None), {"blocks": 2000, "stalls": [(4, 9, 5.0)]}, CALM, {"prompts"}, says="something else ran"
    ),
    "a disk that hangs": Incident(
        ("machine", None), {"blocks": 2000, "stalls": [(3 + i, 3.4 + i, 100) for i in range(8)]}, CALM, {"prompts"}
    ),
    "a killed engine": Incident(("restart", None), {"blocks": 2000, "kills": [(7, 3.0)]}, CALM, {"prompts"}),
    "an empty cache after a restart": Incident(
        ("restart", None),
        {"blocks": 4000, "kills": [(40.0, 0.05)]},
        [
            *chats(count=80, per_s=2.0, begins=20, shared=960),
            *chats(count=60, per_s=8.0, begins=20, shared=960, start=40),
        ],
        {"prompts"},
        says="computed a second time",
    ),
    "a cache that somebody else's texts wash away": Incident(
        ("evictions", "crawler"),
        {"blocks": 420},
        chats(count=60, begins=4, shared=960, per_s=3.0)
        + [each for i in range(6) for each in others(3.0 + 3 * i, 4, 0.01, "crawler", 1000, 4)],
        {"prompts", "memory"},
    ),
}


@pytest.mark.parametrize("name", INCIDENTS)
def test_the_cause_that_was_put_there_is_named_first(name):
    incident = INCIDENTS[name]
    document = report(Stage(**incident.how).serve(incident.arrivals), simulates=False)
    found = [(each["kind"], each["culprit"]) for each in document["findings"]]
    kind, culprit = incident.first
    if kind == "evictions":  # the same texts are in the way as prompts, too: who it was stands first all the same
        assert found[0][1] == culprit and incident.first in found[:2], found
    else:
        assert found[0] == incident.first, found
    assert {kind for kind, _ in found} <= {kind, *incident.also}, found
    assert incident.says in document["findings"][0]["text"]
    assert document["headline"].startswith("Tenant " + culprit if culprit else document["findings"][0]["text"])


def test_where_nothing_happened_nothing_is_named():
    document = report(Stage(blocks=2000).serve(CALM), simulates=False)
    assert not document["findings"] and document["headline"] == "Nobody waited long."


def test_what_might_have_helped_is_told_where_it_is_known():
    incident = INCIDENTS["a tenant's long answers fill the memory"]
    document = report(Stage(**incident.how).serve(incident.arrivals))
    twice = next(each for each in document["what_if"] if each["label"] == "twice the blocks")
    counts = next(each for each in twice["figures"] if each["name"] == "preemptions")
    assert counts["what_if"] < counts["measured"] / 2 and counts["is_good"]
    assert twice["text"].startswith("Simulated, with twice the blocks: ") and "of tenant chat alone" in twice["text"]
    assert all(each["text"] for each in document["what_if"])
    assert not report(Stage(blocks=2000).serve(CALM))["what_if"]
