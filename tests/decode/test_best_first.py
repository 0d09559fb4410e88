"""Best-first search, against every sequence that there is."""

import math
from random import Random

import pytest
from searching import every_sequence, remembered, search_alone

from openwork import RequestError, SamplingParams
from openwork.core.budget import Budget
from openwork.core.penalty import Penalty
from openwork.core.request import Limits, Request
from openwork.core.search import BestFirst, Search
from openwork.decode.best_first import LISTED
from openwork.decode.objective import Objective
from openwork.testing.echo import hashed

MODELS, MANY = 400, 6_000
END = 0


def asking(vocab, penalty=None, trace=0, how=None, **params):
    limits = Limits(vocab, 100, frozenset({END}))
    search = Search(best_first=how or BestFirst(), penalty=penalty, trace=trace)
    return Request((0, 1), SamplingParams(**params), limits, search=search)


def drawn(seed):
    draw = Random(seed)
    vocab = draw.choice([2, 3, 4, 3 * LISTED])
    likelihood = remembered(hashed(vocab, seed, spread=draw.choice([0.5, 4, 12])))
    longest = draw.randint(1, 5 if vocab < 5 else 2)
    budget = Budget(nodes=draw.choice([None, None, 3, 10]), blocks=draw.choice([None, 0]))
    penalty = None
    if draw.random() < 0.5:
        phrases = {"coverage": 1.5, "phrases": ((1,), (1, 1))} if draw.random() < 0.5 else {}
        penalty = Penalty(
            length=draw.choice([None, "power", "gnmt"]),
            alpha=draw.choice([0, 0.5, 2]),
            repetition=draw.choice([0, 0.3, 2]),
            ngram=draw.choice([1, 2]),
            rerank=draw.random() < 0.3,
            **phrases,
        )
    lengths = {"min_tokens": draw.randint(1, longest), "max_tokens": longest}
    how = BestFirst(at_once=draw.choice([1, 2, 5]), budget=budget)
    return asking(vocab, penalty, 30, how, n=draw.choice([1, 1, 3, 9]), **lengths), likelihood


def test_what_is_found_and_proved_is_what_enumeration_finds(is_long):
    endings = {}
    for seed in range(MANY if is_long else MODELS):
        request, likelihood = drawn(seed)
        truth, (report, _) = every_sequence(request, likelihood), search_alone(request, likelihood)
        endings[report.ended_by] = endings.get(report.ended_by, 0) + 1
        scores = {line: (score, logprob) for score, line, logprob in truth}
        for found in report.found:
            score, logprob = scores[found.token_ids]
            assert found.score == pytest.approx(score, abs=1e-9)
            assert found.logprob == pytest.approx(logprob, abs=1e-9)
            assert math.fsum(found.token_logprobs) == pytest.approx(logprob, abs=1e-9)
            assert (found.stop_id == END) == (found.token_ids[-1] == END) == (found.finish_reason == "stop")
        assert report.upper_bound >= truth[0][0] - 1e-9, f"seed {seed}"
        nodes = request.search.best_first.budget.nodes
        if nodes is None or (request.search.penalty is None and nodes >= request.max_tokens):
            assert report.found, "the dive had what it needs"
        if report.found:
            assert report.gap == pytest.approx(report.upper_bound - report.found[0].score)
        assert nodes is None or report.nodes <= nodes
        if report.proved:
            best = [line for _, line, _ in truth[: request.params.n]]
            assert [found.token_ids for found in report.found] == best, f"seed {seed}"
            assert report.gap == 0
    assert endings["proved"] > 0.4 * sum(endings.values()) and endings["nodes"] and endings["complete"]


def test_the_best_line_may_begin_with_an_unlikely_token():
    def likelihood(tokens):
        told = {(): {1: 0.6, 2: 0.4}, (1,): {1: 0.34, 2: 0.33, 3: 0.33}, (2,): {3: 1.0}}[tuple(tokens[2:])]
        return [math.log(told[token]) if token in told else -math.inf for token in range(4)]

    report, _ = search_alone(asking(4, min_tokens=2, max_tokens=2), likelihood)
    assert report.found[0].token_ids == (2, 3) and report.proved
    assert report.found[0].logprob == pytest.approx(math.log(0.4))


def test_a_budget_leaves_an_answer_and_an_honest_gap():
    likelihood = remembered(hashed(40, spread=1.0))
    long = asking(40, min_tokens=8, max_tokens=8, how=BestFirst(at_once=1, budget=Budget(nodes=8)))
    report, _ = search_alone(long, likelihood)
    assert not report.proved and report.ended_by == "nodes" and report.nodes == 8
    greedy = []
    while len(greedy) < 8:
        row = likelihood((0, 1, *greedy))
        greedy.append(max(range(1, 40), key=row.__getitem__))
    assert list(report.found[0].token_ids) == greedy, "the dive"
    assert report.gap == pytest.approx(report.upper_bound - report.found[0].logprob) and report.gap > 0


def test_each_budget_ends_a_search_and_is_named():
    likelihood = remembered(hashed(40, spread=1.0))
    budgets = (
        (Budget(tokens=5), 0, "tokens"),
        (Budget(seconds=2.0), 3.0, "seconds"),
        (Budget(finished=1), 0, "finished"),
    )
    for budget, seconds, name in budgets:
        request = asking(40, min_tokens=8, max_tokens=8, how=BestFirst(budget=budget))
        assert search_alone(request, likelihood, seconds)[0].ended_by == name


def test_more_budget_never_widens_the_gap():
    for seed in range(20):
        likelihood = remembered(hashed(5, seed, spread=2.0))
        gaps = []
        for nodes in (6, 12, 25, 50, 100, 1000):
            how = BestFirst(at_once=1, budget=Budget(nodes=nodes))
            gaps.append(search_alone(asking(5, min_tokens=6, max_tokens=6, how=how), likelihood)[0].gap)
        assert gaps == sorted(gaps, reverse=True)


def test_without_a_least_length_it_is_refused_and_told_why():
    for params in ({}, {"max_tokens": 5}, {"min_tokens": 2}):
        with pytest.raises(RequestError, match=r"less likely.*shortest"):
            asking(4, **params)


@pytest.mark.parametrize("seed", range(60))
def test_a_bound_is_above_the_score_of_everything_that_goes_on(seed):
    draw = Random(seed)
    phrases = tuple(tuple(draw.randrange(2) for _ in range(draw.randint(1, 3))) for _ in range(2))
    penalty = Penalty(
        length=draw.choice([None, "power", "gnmt"]),
        alpha=draw.choice([0.0, 0.7, 1.0, 3.0]),
        repetition=draw.choice([0.0, 1.0]),
        ngram=draw.choice([1, 2, 3]),
        coverage=2.0,
        phrases=phrases,
    )
    objective = Objective(penalty, 6)
    line, logprob = (), 0.0
    bounds = [objective.bound(logprob)]
    for place in range(6):
        line, logprob = (*line, draw.randrange(2)), logprob - draw.random()
        score = objective.score(logprob, line)
        assert score <= min(bounds) + 1e-12
        if place < 5:
            bounds.append(objective.bound(logprob, line))
    assert bounds == sorted(bounds, reverse=True)


def test_penalties_are_what_their_names_say():
    def score(line, logprob=-6.0, **how):
        return Objective(Penalty(**how), 10).score(logprob, line)

    assert score((1, 2, 3)) == -6
    assert score((1, 2, 3), length="power", alpha=1.0) == -2
    assert score((1, 2, 3), length="gnmt", alpha=1.0) == pytest.approx(-6 / (8 / 6))
    assert score((1, 2, 1, 2, 1), repetition=0.5) == -6 - 0.5 * 3
    assert score((1, 2, 1, 2, 1), repetition=0.5, ngram=2) == -6 - 0.5 * 2
    assert score((1, 2, 3), coverage=4.0, phrases=((2, 3), (3, 1))) == -10


@pytest.mark.parametrize(
    ("how", "param"),
    [
        ({"length": "long"}, "penalty.length"),
        ({"alpha": -1}, "penalty.alpha"),
        ({"repetition": -0.5}, "penalty.repetition"),
        ({"coverage": 1.0}, "penalty.coverage"),
        ({"phrases": ((1,),)}, "penalty.coverage"),
        ({"coverage": 1.0, "phrases": ((),)}, "penalty.phrases"),
        ({"ngram": 0}, "penalty.ngram"),
    ],
)
def test_penalties_that_make_no_sense_are_refused(how, param):
    with pytest.raises(RequestError) as caught:
        Penalty(**how)
    assert caught.value.param == param
