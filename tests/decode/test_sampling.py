"""What is drawn, and what becomes of it: go on, fork into n lines, or stop, for the right reason."""

from random import Random

import pytest

from openwork import Repetition, RequestError, SamplingParams
from openwork.core.request import Limits, Request
from openwork.core.sequence import Sequence
from openwork.core.step import Choice
from openwork.decode.sampling import Sampling
from openwork.decode.stop import judge
from openwork.decode.strategy import Continue, Fork, Stop

LIMITS = Limits(vocab_size=50, context=40, eos_ids=frozenset({2}))


def sequence(generated=(), pending=0, fan=1, **params):
    request = Request((5, 6, 7), SamplingParams(**params), LIMITS)
    return Sequence(0, 0, 0, request, Sampling(fan), [5, 6, 7, *generated], pending=pending)


def after(generated):
    return [5, 6, 7, *range(10, 10 + generated)]


def test_a_draw_is_for_the_position_after_everything_known_or_pending():
    (draw,) = sequence(generated=(9,), pending=1).strategy.draws(sequence(generated=(9,), pending=1))
    assert (draw.position, draw.generated, draw.index, draw.history) == (5, 2, 0, ())


def test_history_is_given_only_where_penalties_need_it():
    it = sequence(generated=(9, 8), presence_penalty=0.5)
    (draw,) = it.strategy.draws(it)
    assert draw.history == (5, 6, 7, 9, 8) and draw.prompt_len == 3


def test_a_fan_draws_once_for_each_line_and_forks():
    it = sequence(n=3, fan=3)
    assert it.strategy.may_fork
    assert [draw.index for draw in it.strategy.draws(it)] == [0, 1, 2]
    fork = it.strategy.feed(it, (Choice(9), Choice(2), Choice(8)))
    assert isinstance(fork, Fork)
    assert [branch.index for branch in fork.branches] == [0, 1, 2]
    assert [type(branch.first) for branch in fork.branches] == [Continue, Stop, Continue]
    assert not any(branch.strategy.may_fork for branch in fork.branches)


def test_an_end_token_stops_and_is_named():
    assert judge(sequence().request, after(0), Choice(2)) == Stop(Choice(2), "stop", 2)
    assert judge(sequence(stop_token_ids=[9]).request, after(0), Choice(9)) == Stop(Choice(9), "stop", 9)
    assert judge(sequence(ignore_eos=True).request, after(0), Choice(2)) == Continue(Choice(2))


def test_an_end_token_before_min_tokens_does_not_stop():
    assert judge(sequence(min_tokens=2).request, after(1), Choice(2)) == Continue(Choice(2))
    assert judge(sequence(min_tokens=2).request, after(2), Choice(2)) == Stop(Choice(2), "stop", 2)


def test_length_stops_at_max_tokens_or_at_the_window():
    assert judge(sequence(max_tokens=4).request, after(3), Choice(9)) == Stop(Choice(9), "length")
    assert judge(sequence(max_tokens=4).request, after(2), Choice(9)) == Continue(Choice(9))
    assert judge(sequence().request, after(40 - 3 - 1), Choice(9)) == Stop(Choice(9), "length")


def test_an_end_token_at_the_last_place_counts_as_an_end():
    assert judge(sequence(max_tokens=1).request, after(0), Choice(2)) == Stop(Choice(2), "stop", 2)


LOOPS = [
    # generated before, the token that follows, how, whether that is a loop
    ([9, 9], 9, {"max_pattern_size": 1, "min_count": 3}, True),
    ([9, 9], 9, {"max_pattern_size": 1, "min_count": 4}, False),
    ([8, 9, 8, 9, 8], 9, {"max_pattern_size": 4, "min_count": 3}, True),
    ([8, 9, 8, 9, 8], 9, {"max_pattern_size": 4, "min_pattern_size": 3, "min_count": 3}, False),
    ([8, 9, 8, 9, 9], 9, {"max_pattern_size": 4, "min_count": 3}, True),
    ([8, 9, 7, 9, 8], 9, {"max_pattern_size": 4, "min_count": 2}, False),
    ([1, 2, 3, 1, 2], 3, {"max_pattern_size": 3, "min_count": 2}, True),
    ([7], 7, {"max_pattern_size": 1, "min_count": 3}, False),  # that the prompt ends so does not count
]


@pytest.mark.parametrize(("generated", "token", "how", "is_loop"), LOOPS)
def test_a_loop_ends_a_text(generated, token, how, is_loop):
    request = sequence(repetition_detection=Repetition(**how)).request
    got = judge(request, [5, 6, 7, *generated], Choice(token))
    assert got == (Stop(Choice(token), "repetition") if is_loop else Continue(Choice(token)))


def test_a_loop_is_what_its_definition_says():
    draw = Random(3)
    for _ in range(3000):
        tokens = [draw.randrange(2) for _ in range(draw.randint(1, 14))]
        how = Repetition(max_pattern_size=draw.randint(1, 4), min_count=draw.randint(2, 4))
        runs = [tokens[-size * how.min_count :] for size in range(1, how.max_pattern_size + 1)]
        found = any(
            len(run) == size * how.min_count and run == run[:size] * how.min_count
            for size, run in enumerate(runs, start=1)
        )
        assert how.is_in(tokens) == found


def test_no_loop_ends_a_text_before_min_tokens_and_an_end_token_comes_first():
    loop = Repetition(max_pattern_size=1, min_count=2)
    assert judge(sequence(min_tokens=2, repetition_detection=loop).request, [5, 6, 7, 9], Choice(9)) == Continue(
        Choice(9)
    )
    ended = judge(sequence(min_tokens=1, repetition_detection=loop).request, [5, 6, 7, 2], Choice(2))
    assert ended == Stop(Choice(2), "stop", 2)


@pytest.mark.parametrize(
    "how",
    [{"max_pattern_size": 0}, {"max_pattern_size": 2, "min_pattern_size": 3}, {"max_pattern_size": 2, "min_count": 1}],
)
def test_a_loop_that_makes_no_sense_is_refused(how):
    with pytest.raises(RequestError, match="repetition_detection"):
        Repetition(**how)
