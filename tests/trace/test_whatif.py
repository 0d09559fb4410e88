"""What-if: under other settings every request is given what it was given, and what is simulated is near what was."""

import pytest
from taped import drawn

from openwork.core.errors import OpenworkError, RequestError
from openwork.trace.change import Change
from openwork.trace.cost import Lap, Work, fit
from openwork.trace.figures import percentile
from openwork.trace.whatif import Oracle, collect, what_if

SEEDS = 8
CHANGES = (
    Change(),
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
