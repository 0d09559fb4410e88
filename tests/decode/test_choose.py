"""Choosing among options, against the probability of every one of them."""

import math
from random import Random

import pytest
from searching import option_logprobs, remembered, search_alone

from openwork import RequestError, SamplingParams
from openwork.core.budget import Budget
from openwork.core.request import Limits, Request
from openwork.core.search import Choose, Search
from openwork.testing.echo import hashed

MODELS, MANY = 300, 4_000
VOCAB = 7
END = 0


def asking(options, prompt=(1, 2), ends=(END,), trace=0, **how):
    choose = Choose(options=tuple(options), **how)
    return Request(
        prompt, SamplingParams(), Limits(VOCAB, 200, frozenset(ends)), search=Search(choose=choose, trace=trace)
    )


def drawn(seed):
    """A random model and question."""
    draw = Random(seed)
    likelihood = remembered(hashed(VOCAB, seed, spread=draw.choice([0.5, 4, 12])))
    lengths = draw.choice([[1, 2, 3], [0, 1, 2, 5], [3], [1, 20, 40]])
    options = {tuple(draw.randrange(1, VOCAB) for _ in range(draw.choice(lengths))) for _ in range(draw.randint(1, 12))}
    options = sorted(options)
    draw.shuffle(options)
    how = {"at_once": draw.choice([1, 2, 5]), "score_all": draw.random() < 0.3}
    if draw.random() < 0.2:
        how["budget"] = Budget(nodes=draw.randint(1, 6))
    if draw.random() < 0.2:
        how["end"] = True
    ends = draw.choice([(END,), (END, VOCAB - 1)])
    options = [option for option in options if not set(option) & set(ends)] or [(1,)]
    return asking(options, ends=ends, trace=1000, **how), likelihood


def test_winner_bound_and_intervals_are_those_of_enumeration(is_long):
    proved = 0
    for seed in range(MANY if is_long else MODELS):
        request, likelihood = drawn(seed)
        truth, (report, _) = option_logprobs(request, likelihood), search_alone(request, likelihood)
        best = max(range(len(truth)), key=lambda option: (truth[option], -option))
        total = math.fsum(map(math.exp, truth))
        if report.proved:
            proved += 1
            assert report.winner == best, f"seed {seed}"
            assert report.gap == 0 and report.upper_bound == report.found[0].score
        assert report.upper_bound >= truth[best] - 1e-9
        for found in report.found:
            own = truth[report.winner]
            assert found.logprob == pytest.approx(own, abs=1e-9)
            assert math.fsum(found.token_logprobs) == pytest.approx(own, abs=1e-9)
            assert report.gap == pytest.approx(report.upper_bound - own, abs=1e-9)
        for option, share in enumerate(report.shares):
            probability = math.exp(truth[option]) / total
            assert share.low <= probability * (1 + 1e-9) and probability <= share.high * (1 + 1e-9), f"seed {seed}"
            assert share.logprob_high >= truth[option] - 1e-9
            assert share.logprob is None or share.logprob == pytest.approx(truth[option], abs=1e-9)
        assert report.nodes <= report.num_nodes
        if request.search.choose.score_all and report.proved:
            assert report.nodes == report.num_nodes
            assert [share.low for share in report.shares] == [share.high for share in report.shares]
            assert math.fsum(share.low for share in report.shares) == pytest.approx(1)
    assert proved > 0.8 * (MANY if is_long else MODELS)


def model_of(tree):
    """A distribution from {beginning: {token: probability}}; what is not named shares the rest."""

    def likelihood(tokens):
        named = tree.get(tuple(tokens[2:]), {})
        rest = (1 - sum(named.values())) / (VOCAB - len(named))
        return [math.log(named.get(token, rest)) for token in range(VOCAB)]

    return likelihood


LURE = model_of({(): {1: 0.6, 2: 0.3}, (1,): {3: 0.2, 4: 0.2}, (2,): {3: 0.9}})


def test_the_likeliest_token_is_not_the_likeliest_answer():
    request = asking([(1, 3), (1, 4), (2, 3)], trace=100)
    greedy_first = max((1, 2), key=lambda token: LURE((1, 2))[token])
    report, _ = search_alone(request, LURE)
    assert greedy_first == 1 and report.winner == 2, "0.27 is more than 0.12, though 0.6 is more than 0.3"
    assert report.proved and report.found[0].logprob == pytest.approx(math.log(0.27))
    assert report.shares[2].low <= 0.27 / 0.51 <= report.shares[2].high


def test_what_cannot_win_any_more_is_not_looked_at():
    sure = model_of({(): {1: 0.97, 2: 0.01}, (1,): {3: 0.9}})
    request = asking([(1, 3), (1, 4), (2, 3), (2, 4)], at_once=1)
    report, _ = search_alone(request, sure)
    assert (report.nodes, report.num_nodes) == (2, 3), (
        "the second branch is not; and after a last token nothing is asked"
    )
    assert report.shares[2].logprob is None
    assert report.shares[2].logprob_high == pytest.approx(math.log(0.01))
    assert report.shares[2].high == pytest.approx(0.01 / (0.01 + 0.97 * 0.9 + 0.97 * 0.1 / 6), rel=1e-6)
    assert report.shares[0].low < 1 - 0.01


def test_an_option_that_begins_another_needs_an_end():
    yes, more = (1,), (1, 2, 3)
    likelihood = model_of({(): {1: 0.9}, (1,): {END: 0.1, 2: 0.8}, (1, 2): {3: 0.9}, (1, 2, 3): {END: 0.9}})
    request = asking([yes, more])
    assert request.search.choose.end, "by itself"
    report, _ = search_alone(request, likelihood)
    assert report.winner == 1, "0.9 * 0.1 is less than 0.9 * 0.8 * 0.9 * 0.9: the answer is not just yes"
    with pytest.raises(RequestError, match="beginning of another"):
        asking([yes, more], end=False)
    with pytest.raises(RequestError, match="end token"):
        asking([yes, more], ends=())
    assert not asking([(1, 4), more]).search.choose.end


def test_equal_options_are_settled_by_their_order():
    flat = model_of({})
    assert search_alone(asking([(3,), (1,), (2,)]), flat)[0].winner == 0
    assert search_alone(asking([(3, 1), (1, 2), (2, 2)], at_once=1), flat)[0].winner == 0


def test_long_lone_rests_are_looked_at_at_once():
    request = asking([(1, *[2] * 12), (3, *[4] * 12)])
    likelihood = remembered(hashed(VOCAB))
    report, _ = search_alone(request, likelihood)
    assert report.generations == 2


def test_impossible_options_have_no_probability():
    def likelihood(tokens):
        return [math.log(1 / 2) if token in (1, 2) else -math.inf for token in range(VOCAB)]

    report, _ = search_alone(asking([(3, 1), (1, 2), (1, 4)], score_all=True), likelihood)
    assert report.winner == 1
    assert [(share.low, share.high) for share in report.shares] == [(0, 0), (1, 1), (0, 0)]


@pytest.mark.parametrize(
    ("how", "param"),
    [
        ({"options": ()}, "options"),
        ({"options": ((1,), (1,))}, "options"),
        ({"options": ((VOCAB,),)}, "options"),
        ({"options": ((1,) * 300,)}, "options"),
        ({"options": ((1,),), "at_once": 0}, "at_once"),
        ({"options": ((1,),), "budget": Budget(nodes=1), "end": 3}, "end"),
    ],
)
def test_questions_that_make_no_sense_are_refused(how, param):
    with pytest.raises(RequestError) as caught:
        asking(**how)
    assert caught.value.param == param
