"""What-if: under other settings every request is given what it was given, and what is simulated is what comes of it."""

import json
import random
from dataclasses import replace

import pytest
from staged import Stage, chats, words
from taped import drawn

from openwork.core.errors import OpenworkError, RequestError
from openwork.core.event import Token
from openwork.core.settings import ScheduleSettings
from openwork.trace.cost import Lap, Work, fit
from openwork.trace.whatif.change import Change
from openwork.trace.whatif.conversation import conversations
from openwork.trace.whatif.figures import percentile
from openwork.trace.whatif.oracle import Oracle, collect, what_if
from openwork.trace.whatif.sweep import sweep
from openwork.trace.whatif.tempo import Tempo

SEEDS = 8
CHANGES = (
    Change(prefix=False),
    Change(blocks_factor=2.0),
    Change(order="priority", is_fair=True, first="prefill"),
    Change(max_step_tokens=300, max_running=16, unbounded=frozenset({"next_token_s"})),
)


def figures(document):
    return {each["name"]: each for each in document["figures"]}


def test_whatever_the_settings_each_request_gets_the_tokens_that_it_got():
    """Failing steps, cancels, searches, forks, restarts and clocks that jump are in these worlds."""
    told = 0
    for seed in range(SEEDS):
        recorded = collect(drawn(seed))
        if recorded.processes > 1 and any(arrival.request.search for arrival in recorded.arrivals):
            continue  # what a search asks that begins anew is not always in the recording
        try:
            oracle = Oracle(recorded)
            documents = [oracle.answer(change) for change in CHANGES]
        except RequestError:  # it is too short, and says so
            continue
        for document in documents:
            found = figures(document)
            if not found["refused"]["what_if"]:  # queues are bounded in some of them
                assert found["output_tokens"]["what_if"] == found["output_tokens"]["measured"], f"seed {seed}"
                assert found["requests"]["what_if"] == found["requests"]["measured"]
                told += 1
    assert told > SEEDS


def laps_of(works, seconds):
    return [
        Lap(work, float(place), each, each * 0.9) for place, (work, each) in enumerate(zip(works, seconds, strict=True))
    ]


def test_the_cost_of_steps_is_found_again():
    sizes = [(single, chunk) for single in (1, 2, 4, 8, 64) for chunk in (0, 16, 40)] * 20
    works = [Work(single, chunk, single * 300, chunk * chunk, chunk > 0, single) for single, chunk in sizes]
    seconds = [2e-3 + 3e-4 * w.single_rows + 1e-4 * w.chunk_rows + 1e-6 * w.chunk_context for w in works]
    seconds[3] *= 10  # the machine was busy with something else
    found = fit(laps_of(works, seconds))
    for work, measured in zip(works[4:], seconds[4:], strict=True):
        assert found.seconds(work) == pytest.approx(measured, rel=0.25)
    assert found.error < 0.1 and min(found.rates) >= 0 and found.most_rows == 104
    assert found.pause_s == pytest.approx(0.1 * sorted(seconds)[len(seconds) // 2], rel=0.1)


def test_a_recording_that_is_too_short_and_settings_that_cannot_be_are_refused():
    with pytest.raises(RequestError, match="no request"):
        what_if([], Change())
    recorded = collect(drawn(3))
    with pytest.raises(OpenworkError, match="max_running"):
        Oracle(recorded).answer(Change(max_step_tokens=1))
    with pytest.raises(RequestError, match="at least one block"):
        Oracle(recorded).answer(Change(blocks_factor=0.0))


def test_percentiles_are_nearest_rank():
    assert percentile([], 50) is None
    assert percentile([3.0, 1.0, 2.0], 50) == 2.0
    assert percentile([float(i) for i in range(1, 101)], 99) == 99.0
    assert percentile([5.0], 99) == 5.0


# -- on a machine whose speed is known -----------------------------------------------------------------------------

SERVED = ScheduleSettings()
OTHER = {
    "no prefix cache": (Change(prefix=False), {"prefix": False}),
    "a quarter of the memory": (Change(blocks_factor=0.25), {"blocks": 100}),
    "steps that prompts stretch less": (Change(stretch=1.5), {"schedule": replace(SERVED, stretch=1.5)}),
    "few places": (Change(max_running=6), {"schedule": replace(SERVED, max_running=6)}),
    "larger steps": (Change(max_step_tokens=2048), {"schedule": replace(SERVED, max_step_tokens=2048)}),
}
ARRIVALS = chats(count=24) + [(2 + 1.5 * i, "reports", words(random.Random(i), 900), 8) for i in range(3)]
DISTURBED = {
    "quiet": ({}, list(OTHER)),
    "stalls": ({"stalls": [(2, 3, 4.0), (4, 4.5, 50)]}, ["no prefix cache", "few places"]),
    "killed": ({"kills": [(3, 1.0)]}, ["a quarter of the memory", "steps that prompts stretch less"]),
}


@pytest.mark.parametrize("how", DISTURBED)
def test_what_would_have_been_is_what_comes_of_it(how):
    """The same arrivals served under the other settings, on a machine that is as fast at the same moments."""
    disturbed, names = DISTURBED[how]
    oracle = Oracle(collect(Stage(blocks=400, **disturbed).serve(ARRIVALS)))
    missed = []
    for name in names:
        change, differently = OTHER[name]
        came = collect(Stage(**{"blocks": 400, **disturbed, **differently}, seed=9).serve(ARRIVALS))
        real, found = came.counting.figures(), figures(oracle.answer(change))
        for each in ("duration_s", "output_tok_s", "first_token_p50_s", "first_token_p99_s", "gap_p50_s", "gap_p99_s"):
            low, high = found[each]["interval"]
            assert low <= found[each]["what_if"] <= high
            off = found[each]["what_if"] / getattr(real, each) - 1
            if not low * 0.97 <= getattr(real, each) <= high * 1.03 and abs(off) > 0.1:
                missed.append(f"{name}, {each}: {getattr(real, each)} is not in {low} to {high}")
        assert abs(found["hit_rate"]["what_if"] - real.hit_rate) < 0.02
        assert abs(found["preemptions"]["what_if"] - real.preemptions) <= 3
    assert len(missed) <= len(names) / 2, missed  # of six times as many


def test_the_recorded_settings_come_out_as_they_were_measured():
    found = figures(Oracle(collect(Stage(blocks=400, stalls=[(2, 3, 4.0)]).serve(ARRIVALS))).answer(Change()))
    for name in ("duration_s", "first_token_p50_s", "first_token_p99_s", "gap_p50_s", "gap_p99_s"):
        assert abs(found[name]["off"]) < 0.08, name
        assert found[name]["interval"][0] <= found[name]["measured"] <= found[name]["interval"][1]


def test_the_same_question_has_the_same_answer():
    recorded = collect(Stage(blocks=200).serve(ARRIVALS[:20]))
    assert Oracle(recorded).answer(Change(prefix=False)) == Oracle(recorded).answer(Change(prefix=False))


def test_disturbances_can_be_left_out():
    stage = collect(Stage(blocks=400, stalls=[(2, 3.5, 6.0)]).serve(ARRIVALS))
    quiet = collect(Stage(blocks=400).serve(ARRIVALS)).counting.figures()
    disturbed, calm = Oracle(stage).answer(Change()), Oracle(stage, is_calm=True).answer(Change())
    assert disturbed["cost"]["disturbed"] > 0.05
    for name in ("first_token_p99_s", "gap_max_s"):
        assert figures(disturbed)[name]["what_if"] > 4 * getattr(quiet, name)
        assert figures(calm)[name]["what_if"] < 1.3 * getattr(quiet, name)


def test_a_short_recording_is_answered_with_wide_intervals():
    long, short = (Oracle(collect(Stage(blocks=400).serve(ARRIVALS[:count]))) for count in (20, 1))
    change = Change(prefix=False)
    assert short.cost.steps < long.cost.steps
    wide, narrow = (figures(each.answer(change))["first_token_p99_s"] for each in (short, long))
    assert wide["interval"][1] / wide["interval"][0] > narrow["interval"][1] / narrow["interval"][0]


def test_a_tempo_takes_from_each_moment_what_the_machine_gave():
    tempo = Tempo([(1.0, 2.0, 0.5), (2.0, 3.0, 1.0), (5.0, 6.0, 0.1)], mean=1.0)
    assert tempo.end(0.0, 0.5) == 0.5
    assert tempo.end(0.0, 1.25) == pytest.approx(1.5)
    assert tempo.end(1.5, 0.5) == pytest.approx(2.25)
    assert tempo.end(4.5, 0.55) == pytest.approx(5.5)
    assert tempo.end(9.0, 2.0) == 11.0
    assert Tempo([]).end(3.0, 1.0) == 4.0


def test_who_goes_on_from_an_answer_waits_for_it():
    draw = random.Random(3)
    first = words(draw, 100)
    begun = [(0.0, "other", words(draw, 300), 150), (0.1, "chat", first, 40)]
    answer = [each.choice.token for each in tokens_of(Stage(blocks=400).serve(begun)) if each.request == 1]
    asked_on = (3.0, "chat", (*first, *answer, *words(draw, 30)), 40)
    recorded = collect(Stage(blocks=400).serve([*begun, asked_on]))
    found = conversations(recorded.arrivals)
    ended = recorded.arrivals[1].ended_s
    assert {place: each.place for place, each in found.items()} == {2: 1}
    assert found[2].pause_s == pytest.approx(recorded.arrivals[2].at_s - ended)
    slow = Change(max_running=1)
    by_times, by_answers = (figures(Oracle(recorded, clients).answer(slow)) for clients in ("times", "answers"))
    assert by_answers["duration_s"]["what_if"] > by_times["duration_s"]["what_if"]
    assert by_answers["output_tokens"]["what_if"] == by_times["output_tokens"]["what_if"] == 230
    document = Oracle(recorded).answer(slow)
    assert document["assumed"]["conversations"] == 1 and "--clients answers" in document["notes"][-1]


def tokens_of(entries):
    return [event for entry in entries for event in getattr(entry, "events", ()) if isinstance(event, Token)]


def test_tenants_and_doors_can_be_asked_about():
    arrivals = ARRIVALS + [(2 + 0.01 * i, "batch", words(random.Random(i), 60), 40) for i in range(20)]
    oracle = Oracle(collect(Stage(blocks=400).serve(arrivals)))
    bounded = oracle.answer(Change(tenants={"batch": {"max_running": 2}}))
    assert bounded["asked"]["tenant batch"] == "max_running 2"
    chat = {each["name"]: each for each in bounded["by_tenant"]["chat"]}
    batch = {each["name"]: each for each in bounded["by_tenant"]["batch"]}
    assert chat["gap_p99_s"]["what_if"] < chat["gap_p99_s"]["as_recorded"]
    assert batch["first_token_p50_s"]["what_if"] > 2 * batch["first_token_p50_s"]["as_recorded"]
    refused = figures(oracle.answer(Change(max_waiting=1, max_running=4)))
    assert refused["refused"]["what_if"] > 5 and refused["refused"]["measured"] == 0


def test_a_sweep_has_a_row_for_each_value_and_says_what_cannot_be():
    oracle = Oracle(collect(Stage(blocks=400).serve(ARRIVALS)))
    asked = [("half", Change(blocks_factor=0.5)), ("none", Change(max_step_tokens=1)), ("twice", Change(blocks=800))]
    document = json.loads(json.dumps(sweep(oracle, asked), allow_nan=False))
    assert [row["label"] for row in document["rows"]] == ["half", "none", "twice"]
    assert document["rows"][1]["figures"] is None and "max_running" in document["rows"][1]["error"]
    alone = figures(oracle.answer(Change(blocks_factor=0.5)))
    assert document["rows"][0]["figures"]["gap_p99_s"]["what_if"] == alone["gap_p99_s"]["what_if"]
    with pytest.raises(RequestError, match="combinations"):
        sweep(oracle, asked * 20)
