"""Who is to blame for a death: a small world of requests, some of which kill, under the rule and nothing else."""

from hypothesis import given
from hypothesis import strategies as st

from openwork.cluster.patience import FRUITLESS, LONGEST_WAIT_S, Patience
from openwork.cluster.suspects import DEATHS, KILLS, Suspects


def come_through(it, request):
    it.gave(request)
    it.gave(request)


def test_one_that_dies_alone_twice_is_guilty():
    it = Suspects()
    assert it.died("itself", {7}) is None
    assert it.on_trial == 7
    assert it.died("itself", {7}) == 7
    assert it.on_trial is None and not it.is_anyone


def test_neighbours_are_tried_one_at_a_time_and_cleared():
    it = Suspects()
    assert it.died("itself", {1, 2, 3}) is None
    assert it.on_trial == 3  # the newest
    come_through(it, 3)
    assert it.on_trial == 2
    assert it.died("hang", {2}) == 2
    assert it.on_trial == 1
    come_through(it, 1)
    assert it.on_trial is None and not it.is_anyone


def test_one_turn_is_not_enough_to_have_come_through():
    it = Suspects()
    it.died("itself", {1, 2})
    it.gave(2)
    assert it.on_trial == 2
    assert it.died("itself", {2}) == 2


def test_a_kill_blames_nobody_at_first():
    it = Suspects()
    assert it.died("outside", {1, 2}) is None
    assert it.on_trial is None


def test_nobody_is_guilty_of_kills_among_others_however_many():
    it = Suspects()
    for _ in range(100):
        assert it.died("outside", {1, 2}) is None


@given(st.lists(st.integers(0, 4), min_size=1))
def test_headway_between_kills_clears(turns):
    """Whoever got on by two turns between any two kills is never quarantined."""
    it = Suspects()
    for extra in turns:
        assert it.died("outside", {1}) is None
        for _ in range(2 + extra):
            it.gave(1)


def test_a_request_that_is_killed_alone_again_and_again_is_guilty():
    it = Suspects()
    assert [it.died("outside", {1}) for _ in range(KILLS)] == [None] * (KILLS - 1) + [1]


@given(st.data())
def test_every_poison_is_found_and_no_neighbour_is_touched(data):
    """Requests run together in steps; a step with a poison that has come to its place kills the process."""
    num = data.draw(st.integers(1, 8))
    at = {i: data.draw(st.none() | st.integers(0, 6), label=f"kills at token {i}") for i in range(num)}
    cause = data.draw(st.sampled_from(["itself", "hang", "outside"]))
    it, given_out, left, guilty, deaths = Suspects(), dict.fromkeys(at, 0), set(at), [], 0
    while left:
        running = left if it.on_trial is None else {it.on_trial}
        width = data.draw(st.integers(1, len(running)))
        step = set(data.draw(st.permutations(sorted(running)))[:width])
        if any(at[i] == given_out[i] for i in step):
            deaths += 1
            found = it.died(cause, step)
            if found is not None:
                guilty.append(found)
                left.discard(found)
            continue
        for i in step:
            given_out[i] += 1
            it.gave(i)
            if given_out[i] == 8:
                left.discard(i)
                it.forget(i)
    assert sorted(guilty) == [i for i in at if at[i] is not None]
    if cause != "outside":
        assert deaths <= DEATHS * len(guilty) + len(guilty)
    assert not it.is_anyone and it.on_trial is None


def test_patience_starts_again_at_once_then_later_and_gives_up_when_nobody_is_to_blame():
    it = Patience()
    waits = [it.died(was_of_use=False, has_suspects=False) for _ in range(FRUITLESS)]
    assert waits[0] == 0 and waits[-1] is None and waits[:-1] == sorted(waits[:-1])


@given(st.lists(st.booleans()))
def test_patience_never_gives_up_while_it_is_of_use_or_somebody_can_be_blamed(uses):
    it = Patience()
    for was_of_use in uses:
        wait = it.died(was_of_use, has_suspects=not was_of_use)
        assert wait is not None and 0 <= wait <= LONGEST_WAIT_S
        assert not was_of_use or wait == 0
