"""The report names culprit and cause: incidents staged on the real scheduler and the embedded model, and recorded."""

import json
import sys
from pathlib import Path

import pytest
from taped import drawn

from openwork.cli.report import as_text
from openwork.core.errors import RequestError
from openwork.trace.entry import Began
from openwork.trace.recording import Recording
from openwork.trace.replay.schedule import check
from openwork.trace.report.incident import report

sys.path.append(str(Path(__file__).parents[2] / "examples"))

import incident


@pytest.fixture(scope="module")
def staged(tmp_path_factory):
    """name -> the recording of an incident."""
    found = {}

    def stage(name):
        if name not in found:
            directory = tmp_path_factory.mktemp(name)
            incident.serve(directory, *incident.INCIDENTS[name]())
            found[name] = Recording.open(directory)
        return found[name]

    return stage


def of_kind(document, kind):
    return next(each for each in document["findings"] if each["kind"] == kind)


@pytest.mark.parametrize("name", incident.INCIDENTS)
def test_what_was_staged_replays_and_is_written_up(name, staged):
    recording = staged(name)
    assert not recording.damage and check(recording.entries()).is_equal
    document = json.loads(json.dumps(report(recording.entries(), simulates=False), allow_nan=False))
    assert document["recording"]["replayed"] == document["recording"]["steps"]
    text = as_text(document)
    assert document["headline"] in text and all(each["text"] in text for each in document["findings"])
    everything = sum(each["seconds"] for each in document["findings"] if each["culprit"] is not None)
    assert sum(each["seconds"] for each in document["culprits"]) == pytest.approx(everything)


def test_a_tenant_that_holds_the_memory_is_named(staged):
    document = report(staged("memory").entries(), simulates=False)
    found = of_kind(document, "memory")
    assert found["culprit"] == "batch" and "preempted" in found["text"]
    assert document["culprits"][0]["tenant"] == "batch"
    assert set(found["victims"]) == {"batch", "chat"}
    assert document["figures"]["preemptions"] > 0
    assert document["memory"]["peak_held"] == document["memory"]["num_blocks"] == 96
    held = document["memory"]["by_tenant"]
    assert held["batch"]["held_mean"] > held["chat"]["held_mean"]


def test_a_tenant_whose_long_prompts_stall_others_is_named(staged):
    document = report(staged("prompts").entries(), simulates=False)
    found = of_kind(document, "prompts")
    # A machine that others keep busy while this is served may be the larger part.
    assert next(each for each in document["findings"] if each["kind"] != "machine") == found
    assert found["culprit"] == "reports" and found["victims"]["chat"] == max(found["victims"].values())
    assert "the longest prompt 500 tokens" in found["text"] and set(found["requests"]) <= {str(n) for n in range(4, 10)}
    assert document["culprits"][0]["tenant"] == "reports" and document["culprits"][0]["of_others"] > 0


def test_a_tenant_for_whose_sake_others_lose_their_cache_is_named(staged):
    document = report(staged("evictions").entries(), simulates=False)
    found = of_kind(
        document, "evictions"
    )  # whose share of the time is largest is held in test_causes.py, by its own clock
    assert found["culprit"] == "crawler" and found["victims"]["chat"] > 0
    assert "of tenant chat) were asked for again" in found["text"]
    evicted = {(each["sake"], each["owner"]): each["blocks"] for each in document["prefix"]["evicted"]}
    assert evicted["crawler", "chat"] > 100
    assert document["prefix"]["misses"]["evicted"] > 5
    assert document["prefix"]["by_tenant"]["chat"]["again_tokens"] > 1000


def test_any_world_can_be_written_up():
    """With failures, restarts, searches, cancels; and without a beginning."""
    kinds = set()
    for seed in range(12):
        entries = drawn(seed)
        for lines in (entries, [entry for entry in entries if not isinstance(entry, Began)]):
            try:
                document = report(lines, simulates=False)
            except RequestError:
                assert not any(type(entry).__name__ == "Submitted" for entry in lines)
                continue
            kinds |= {each["kind"] for each in document["findings"]}
            assert as_text(json.loads(json.dumps(document, allow_nan=False)))
            assert (document["memory"] is None) == (not document["recording"]["replayed"])
    assert {"memory", "prompts", "failures"} <= kinds


def test_nothing_is_no_report():
    with pytest.raises(RequestError, match="no request"):
        report([])
