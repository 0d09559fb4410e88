"""Beam search, against a plain one that keeps whole lines; groups, patience, and what is told on the way."""

import math
from random import Random

import pytest
from searching import every_sequence, remembered, search_alone

from openwork import RequestError, SamplingParams
from openwork.core.budget import Budget
from openwork.core.penalty import Penalty
from openwork.core.request import Limits, Request
from openwork.core.search import Beam, Search
from openwork.testing.echo import hashed

MODELS, MANY = 150, 2_000
END = 0


def asking(vocab, how, ends=(END,), **params):
    return Request((1, 1), SamplingParams(**params), Limits(vocab, 100, frozenset(ends)), search=Search(beam=how))


def plain(request, likelihood):
    """The definition, over the whole vocabulary: diverse groups after Vijayakumar et al. 2018, figure 2."""
    how, most, stops = request.search.beam, request.max_tokens, request.stop_ids
    size = how.width // how.groups
    groups = [{"running": [((), 0.0, 0.0)], "finished": [], "done": False} for _ in range(how.groups)]
    for length in range(1, most + 1):
        taken = []
        for group in groups:
            if group["done"]:
                continue
            found = []
            for place, (line, logprob, value) in enumerate(group["running"]):
                for token, own in enumerate(likelihood((*request.prompt, *line))):
                    if token not in stops or len(line) >= request.params.min_tokens:
                        worth = value + own - how.diversity * taken.count(token)
                        found.append((worth, -place, -token, (*line, token), logprob + own))
            found.sort(reverse=True)
            running = []
            for rank, (worth, _, token, line, logprob) in enumerate(found[: max(2, 1 + len(stops)) * size]):
                if -token in stops or length == most:
                    if rank < size:
                        group["finished"].append((logprob / length**how.length_penalty, line))
                        taken.append(-token)
                elif len(running) < size:
                    running.append((line, logprob, worth))
            group["finished"] = sorted(group["finished"], key=lambda each: -each[0])[: math.ceil(how.patience * size)]
            group["running"] = running
            taken += [line[-1] for line, _, _ in running]
            is_full = len(group["finished"]) == math.ceil(how.patience * size)
            best = max((logprob for _, logprob, _ in running), default=0.0)
            longest = most if how.early_stopping == "never" and how.length_penalty > 0 else length
            is_hopeless = is_full and best / longest**how.length_penalty <= group["finished"][-1][0]
            group["done"] = not running or (is_full and how.early_stopping is True) or is_hopeless
    finished = [each for group in groups for each in group["finished"]]
    return sorted(finished, key=lambda each: -each[0])[: request.params.n]


def drawn(seed):
    draw = Random(seed)
    vocab = draw.choice([4, 6, 30])
    likelihood = remembered(hashed(vocab, seed, spread=draw.choice([1, 4, 10])))
    width, groups = draw.choice([(1, 1), (2, 1), (5, 1), (4, 2), (6, 3)])
    how = Beam(
        width=width,
        groups=groups,
        diversity=draw.choice([0.3, 2.0]) if groups > 1 else 0.0,
        length_penalty=draw.choice([0.0, 1.0, 2.0, -1.0]),
        early_stopping=draw.choice([True, False, "never"]),
        patience=draw.choice([1.0, 1.0, 1.5, 3.0]),
    )
    params = {"n": draw.randint(1, width), "max_tokens": draw.randint(1, 7)}
    params["min_tokens"] = draw.randint(0, params["max_tokens"])
    return asking(vocab, how, draw.choice([(END,), (END, 2), ()]), **params), likelihood


def test_lines_and_scores_are_those_of_the_definition(is_long):
    for seed in range(MANY if is_long else MODELS):
        request, likelihood = drawn(seed)
        report, told = search_alone(request, likelihood)
        want = plain(request, likelihood)
        assert [found.token_ids for found in report.found] == [line for _, line in want], f"seed {seed}"
        for found, (score, _) in zip(report.found, want, strict=True):
            assert found.score == pytest.approx(score, abs=1e-9)
            assert math.fsum(found.token_logprobs) == pytest.approx(found.logprob, abs=1e-9)
        assert told == list(report.found[0].token_ids[: len(told)]), "nothing is taken back"
        assert not report.proved and report.upper_bound is None


def test_a_beam_as_wide_as_the_world_finds_the_best():
    for seed in range(10):
        likelihood = remembered(hashed(3, seed, spread=3.0))
        request = asking(3, Beam(width=64, early_stopping="never", length_penalty=0.0), max_tokens=4)
        report, _ = search_alone(request, likelihood)
        assert report.found[0].token_ids == every_sequence(request, likelihood)[0][1]


def test_what_all_agree_on_is_told_before_the_end():
    def likelihood(tokens):
        sure = {2: 4, 3: 5, 4: 4}.get(len(tokens))
        return [math.log(0.97 if token == sure else 0.03 / 5) if sure else math.log(1 / 6) for token in range(6)]

    report, told = search_alone(asking(6, Beam(width=3), max_tokens=7, min_tokens=7), likelihood)
    assert told[:1] == [4] and len(report.found[0].token_ids) == 7


def test_groups_differ_where_beams_alone_do_not():
    def likelihood(tokens):
        return [math.log(p) for p in (0.01, 0.5, 0.3, 0.1, 0.09)]

    alone, _ = search_alone(asking(5, Beam(width=2), n=2, max_tokens=1), likelihood)
    same = {found.token_ids for found in alone.found}
    apart, _ = search_alone(
        asking(5, Beam(width=2, groups=2, diversity=5.0), n=2, max_tokens=3, min_tokens=3), likelihood
    )
    assert same == {(1,), (2,)}
    assert {found.token_ids for found in apart.found} == {(1, 1, 1), (2, 2, 2)}


def test_a_budget_ends_a_beam_with_what_has_finished_first():
    def likelihood(tokens):
        return [math.log(p) for p in (0.2, 0.5, 0.3)]

    free, _ = search_alone(asking(3, Beam(width=3, patience=9), n=3, max_tokens=9), likelihood)
    assert free.ended_by == "complete"
    for budget, name in ((Budget(nodes=4), "nodes"), (Budget(finished=1), "finished"), (Budget(tokens=7), "tokens")):
        request = asking(3, Beam(width=3, patience=9, budget=budget), n=3, max_tokens=9)
        report, told = search_alone(request, likelihood)
        assert report.ended_by == name and len(report.found) == 3
        reasons = [found.finish_reason for found in report.found]
        assert reasons == sorted(reasons, reverse=True) and "length" in reasons, "what was cut comes last"
        assert told == list(report.found[0].token_ids[: len(told)])
        for found in report.found:
            assert found.logprob == pytest.approx(sum(likelihood(())[token] for token in found.token_ids))


@pytest.mark.parametrize(
    ("how", "param"),
    [
        ({"width": 0}, "width"),
        ({"width": 65}, "width"),
        ({"width": 4, "early_stopping": "always"}, "early_stopping"),
        ({"width": 4, "patience": 0.5}, "patience"),
        ({"width": 4, "groups": 3, "diversity": 1.0}, "groups"),
        ({"width": 4, "groups": 2}, "diversity"),
        ({"width": 4, "diversity": 1.0}, "diversity"),
        ({"width": 4, "length_penalty": float("nan")}, "length_penalty"),
    ],
)
def test_beams_that_make_no_sense_are_refused(how, param):
    with pytest.raises(RequestError) as caught:
        Beam(**how)
    assert caught.value.param == param


@pytest.mark.parametrize(
    "params", [{"temperature": 0.5}, {"top_k": 3}, {"stop": ("x",)}, {"logprobs": 1}, {"n": 5}, {"max_tokens": 0}]
)
def test_what_does_not_go_with_a_search_is_refused_by_name(params):
    with pytest.raises(RequestError) as caught:
        asking(6, Beam(width=4), **params)
    assert caught.value.param == next(iter(params))


def test_a_search_is_one_thing_and_a_penalty_belongs_to_best_first():
    for wrong in ({}, {"beam": Beam(width=1), "penalty": Penalty(repetition=1.0)}):
        with pytest.raises(RequestError):
            Search(**wrong)
