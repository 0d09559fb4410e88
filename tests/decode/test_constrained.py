"""Searches under a constraint, against every text that it allows: random languages over random tiny models."""

import math
from random import Random

import pytest
from searching import every_legal, remembered, search_alone

from openwork import Constraint, RequestError, SamplingParams
from openwork.core.budget import Budget
from openwork.core.penalty import Penalty
from openwork.core.request import Limits, Request
from openwork.core.search import Beam, BestFirst, Choose, Search
from openwork.testing.echo import hashed

MODELS, MANY = 300, 6_000
ENDS = frozenset({0})
SOMETHING = Constraint.regex("what it says is for the runner to know")


def asking(vocab, search, ends=ENDS, **params):
    return Request((1, 1), SamplingParams(constraint=SOMETHING, **params), Limits(vocab, 100, ends), search=search)


def language(draw, vocab, ends):
    """What a random automaton allows; some of its states lead nowhere, and in some a text is complete."""
    states = range(draw.randint(1, 5))
    moves = [{token: draw.choice(states) for token in range(1, vocab) if draw.random() < 0.6} for _ in states]
    complete = [draw.random() < 0.4 for _ in states]

    def allowed(line):
        at = 0
        for token in line:
            at = moves[at][token]
        return sorted({*moves[at], *(ends if complete[at] else ())} - (ENDS - ends))

    return allowed


def drawn(seed):
    draw = Random(seed)
    vocab = draw.choice([3, 4, 5, 40])
    ends = draw.choice([ENDS, frozenset({0, vocab - 1})])
    longest = draw.randint(1, 5 if vocab < 40 else 2)
    lengths = {"max_tokens": longest, "min_tokens": draw.randint(0, longest)}
    allowed = language(draw, vocab - (len(ends) > 1), ends)
    likelihood = remembered(hashed(vocab, seed, spread=draw.choice([0.5, 4, 12])))
    return draw, vocab, ends, lengths, allowed, likelihood


def penalised(draw):
    if draw.random() < 0.6:
        return None
    how = {"repetition": draw.choice([0, 0.7]), "ngram": draw.choice([1, 2]), "rerank": draw.random() < 0.3}
    phrases = {"coverage": 1.5, "phrases": ((1,), (2, 1))} if draw.random() < 0.5 else {}
    return Penalty(length=draw.choice([None, "power", "gnmt"]), **how, **phrases)


def test_what_is_proved_is_the_mode_of_all_legal_texts(is_long):
    proved = nothing = 0
    for seed in range(MANY if is_long else MODELS):
        draw, vocab, ends, lengths, allowed, likelihood = drawn(seed)
        how = BestFirst(at_once=draw.choice([1, 3]), budget=Budget(nodes=draw.choice([None, None, 4])))
        request = asking(vocab, Search(best_first=how, penalty=penalised(draw)), ends, n=draw.choice([1, 4]), **lengths)
        report, _ = search_alone(request, likelihood, allowed=allowed)
        truth = every_legal(request, likelihood, allowed)
        scores = {line: (score, logprob) for score, line, logprob in truth}
        for found in report.found:
            assert (found.score, found.logprob) == pytest.approx(scores[found.token_ids], abs=1e-9)
            assert math.fsum(found.token_logprobs) == pytest.approx(found.logprob, abs=1e-9)
            assert found.finish_reason == "stop" and found.stop_id == found.token_ids[-1] in ends
        if truth and report.upper_bound is not None:
            assert report.upper_bound >= truth[0][0] - 1e-9, f"seed {seed}"
        if report.proved:
            proved += 1
            nothing += not truth
            assert [found.token_ids for found in report.found] == [line for _, line, _ in truth[: request.params.n]]
        elif report.ended_by != "complete":  # of likelihoods that were ranked anew
            assert report.nodes >= how.budget.nodes
    assert proved > 0.6 * MODELS and nothing, "some languages have no text that short, and that is proved too"


def test_a_masked_beam_as_wide_as_the_language_finds_its_mode():
    for seed in range(60):
        _, vocab, ends, lengths, allowed, likelihood = drawn(seed)
        if vocab == 40:
            continue
        search = Search(beam=Beam(width=64, early_stopping="never", length_penalty=0.0))
        request = asking(vocab, search, ends, **lengths)
        truth = every_legal(request, likelihood, allowed)
        report, told = search_alone(request, likelihood, allowed=allowed)
        if truth and sum(len(allowed(line[:-1])) for _, line, _ in truth) < 64:
            assert report.found[0].token_ids == truth[0][1], f"seed {seed}"
        for found in report.found:
            assert told == list(report.found[0].token_ids[: len(told)])
            is_whole = found.finish_reason == "stop"
            assert is_whole == (found.token_ids in {line for _, line, _ in truth})


def test_a_line_that_is_cut_counts_less_than_any_that_is_complete():
    def likelihood(tokens):
        return [math.log(p) for p in (0.01, 0.9, 0.09)]

    request = asking(3, Search(beam=Beam(width=2)), n=2, max_tokens=3)
    report, _ = search_alone(request, likelihood, allowed=lambda line: [0, 1] if len(line) == 2 else [1])
    assert [(f.token_ids, f.finish_reason) for f in report.found] == [((1, 1, 0), "stop"), ((1, 1, 1), "length")]
    assert report.found[0].score < report.found[1].score


def test_a_dive_that_comes_to_nothing_is_followed_by_another():
    def likelihood(tokens):
        return [math.log(p) for p in (0.01, 0.6, 0.39)]

    def allowed(line):
        return {(): [1, 2], (2,): [0]}.get(line, [1])  # the likeliest line never ends

    how = BestFirst(at_once=1, budget=Budget(nodes=31))
    report, _ = search_alone(asking(3, Search(best_first=how), max_tokens=30), likelihood, allowed=allowed)
    assert [found.token_ids for found in report.found] == [(2, 0)]


def test_no_least_length_is_needed_and_no_greatest():
    request = asking(3, Search(best_first=BestFirst()))
    assert request.params.min_tokens == 0 and request.max_tokens == 98


@pytest.mark.parametrize("params", [{"stop_token_ids": (2,)}, {"ignore_eos": True}])
@pytest.mark.parametrize("search", [Search(best_first=BestFirst()), Search(beam=Beam(width=2))])
def test_what_would_cut_a_text_short_is_refused(params, search):
    with pytest.raises(RequestError) as caught:
        asking(3, search, **params)
    assert caught.value.param == next(iter(params))


def test_options_are_a_constraint_already():
    with pytest.raises(RequestError) as caught:
        asking(3, Search(choose=Choose(options=((1,), (2,)))))
    assert caught.value.param == "constraint"
