"""From a row of logits to a token: every parameter does what it says, in the order it says, whatever the batch."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openwork import SamplingParams
from openwork.core.step import Draw, Expand
from openwork.ops.cpu import Cpu, available
from openwork.ops.reference import Reference
from openwork.run.sample import _adjust, candidates, choose, logprobs

OPS = {"reference": Reference()} | ({"cpu": Cpu()} if available() else {})


@pytest.fixture(params=OPS)
def ops(request):
    return OPS[request.param]


def draw(position=5, generated=3, history=(), prompt_len=0, stop_ids=(), index=0, **params):
    return Draw(SamplingParams(**params), index, position, generated, frozenset(stop_ids), tuple(history), prompt_len)


def row(*values):
    return np.array(values, np.float32)


def shares(ops, logits, count=4000, **params):
    """How often each token is chosen, over positions."""
    chosen = [choose(ops, logits, draw(position=p, seed=11, **params)).token for p in range(count)]
    return np.bincount(chosen, minlength=len(logits)) / count


def test_temperature_zero_takes_the_highest_and_the_lowest_id_of_equals(ops):
    assert choose(ops, row(0, 3, 3, -1), draw(temperature=0)).token == 1


def test_sampling_follows_the_probabilities(ops):
    logits = np.log(row(0.5, 0.2, 0.3))
    assert np.abs(shares(ops, logits) - [0.5, 0.2, 0.3]).max() < 0.03
    hot = np.exp(logits / 2)
    assert np.abs(shares(ops, logits, temperature=2.0) - hot / hot.sum()).max() < 0.03


def test_top_k_keeps_the_k_most_likely(ops):
    found = shares(ops, np.log(row(0.1, 0.4, 0.2, 0.3)), top_k=2)
    assert found[0] == found[2] == 0
    assert abs(found[1] - 4 / 7) < 0.03


def test_top_k_of_equals_keeps_the_lowest_ids(ops):
    found = shares(ops, row(1, 1, 1, 1), top_k=2)
    assert found[2] == found[3] == 0 and found[0] > 0 and found[1] > 0


def test_top_p_keeps_the_smallest_set_with_that_mass(ops):
    logits = np.log(row(0.1, 0.4, 0.2, 0.3))
    assert np.flatnonzero(shares(ops, logits, top_p=0.6)).tolist() == [1, 3]
    assert np.flatnonzero(shares(ops, logits, top_p=0.75)).tolist() == [1, 2, 3]
    assert np.flatnonzero(shares(ops, logits, top_p=1e-6)).tolist() == [1]


def test_min_p_is_relative_to_the_likeliest(ops):
    logits = np.log(row(0.1, 0.5, 0.2, 0.2))
    assert np.flatnonzero(shares(ops, logits, min_p=0.3)).tolist() == [1, 2, 3]
    assert np.flatnonzero(shares(ops, logits, min_p=0.9)).tolist() == [1]


def test_logit_bias_is_added_first(ops):
    assert choose(ops, row(5, 0, 0), draw(temperature=0, logit_bias={2: 6.0})).token == 2
    assert choose(ops, row(5, 4, 0), draw(temperature=0, logit_bias={0: -100})).token == 1


def test_presence_and_frequency_look_at_the_output_only(ops):
    logits = row(3, 2.5, 0)
    assert choose(ops, logits, draw(temperature=0, presence_penalty=1, history=[0, 0, 1], prompt_len=2)).token == 0
    assert choose(ops, logits, draw(temperature=0, presence_penalty=1, history=[1, 0], prompt_len=1)).token == 1
    twice = draw(temperature=0, frequency_penalty=0.4, history=[0, 0], prompt_len=0)
    assert choose(ops, logits, twice).token == 1, "0.4 twice is more than the 0.5 between them"
    once = draw(temperature=0, frequency_penalty=0.4, history=[0], prompt_len=0)
    assert choose(ops, logits, once).token == 0


@given(
    st.lists(st.integers(0, 7), max_size=30),
    st.integers(0, 30),
    st.sampled_from([1.0, 1.3, 3.0]),
    st.sampled_from([0.0, 0.7, -2.0]),
    st.sampled_from([0.0, 1.5, -0.4]),
)
def test_penalties_are_those_of_each_token_to_the_bit(history, prompt_len, repetition, frequency, presence):
    how = draw(
        history=history,
        prompt_len=min(prompt_len, len(history)),
        repetition_penalty=repetition,
        frequency_penalty=frequency,
        presence_penalty=presence,
    )
    logits = row(0.3, -0.7, 0.0, -0.0, 2.5, 1e-3, -3.0, 0.1)
    wanted = logits.copy()
    for token in range(len(logits)):
        count = np.float32(history[how.prompt_len :].count(token))
        if token in history and repetition != 1:
            by = np.float32(repetition)
            wanted[token] = wanted[token] / by if wanted[token] > 0 else wanted[token] * by
        if count:
            wanted[token] = wanted[token] - np.float32(frequency) * count - np.float32(presence)
    assert _adjust(logits, how, None, withholds=False).tobytes() == wanted.tobytes()


def test_repetition_penalty_looks_at_prompt_and_output(ops):
    how = {"temperature": 0, "repetition_penalty": 2.0}
    assert choose(ops, row(3, 2), draw(**how, history=[0], prompt_len=1)).token == 1
    assert choose(ops, row(-3, -2), draw(**how, history=[1], prompt_len=1)).token == 0, "negative logits are multiplied"


def test_the_pending_token_counts(ops):
    how = draw(temperature=0, presence_penalty=1, history=[2], prompt_len=1)
    assert choose(ops, row(3, 2.5, 0), how, pending=0).token == 1


def test_end_tokens_are_withheld_until_min_tokens(ops):
    logits = row(9, 1, 0)
    assert choose(ops, logits, draw(temperature=0, min_tokens=4, generated=3, stop_ids=[0])).token == 1
    assert choose(ops, logits, draw(temperature=0, min_tokens=3, generated=3, stop_ids=[0])).token == 0
    assert logits.tolist() == [9, 1, 0], "the model's row is left as it was"
    found = shares(ops, logits, count=300, min_tokens=4, stop_ids=[0])
    assert found[0] == 0 and found[1] > found[2] > 0


def test_log_probabilities_are_the_model_s_own(ops):
    logits = np.log(row(0.5, 0.2, 0.3))
    found = choose(ops, logits, draw(temperature=0, logit_bias={1: 50}, logprobs=2)).logprob
    assert found.token == 1 and found.rank == 3
    assert math.isclose(found.logprob, math.log(0.2), rel_tol=1e-5)
    assert [token for token, _ in found.top] == [0, 2]
    assert math.isclose(found.top[0][1], math.log(0.5), rel_tol=1e-5)


def test_no_log_probabilities_unless_asked(ops):
    assert choose(ops, row(1, 2), draw(temperature=0)).logprob is None
    assert choose(ops, row(1, 2), draw(temperature=0, logprobs=0)).logprob.top == ()


def test_ranks_count_equals_with_a_lower_id(ops):
    assert [entry.rank for entry in logprobs(ops, np.tile(row(1, 2, 2), (3, 1)), [0, 1, 2], 0)] == [3, 1, 2]


@given(st.integers(0, 2**64 - 1), st.integers(0, 9), st.integers(0, 9))
def test_a_draw_depends_on_seed_index_and_position_alone(seed, index, position):
    logits = np.random.default_rng(0).normal(size=300).astype(np.float32)
    how = {"seed": seed, "top_p": 0.9, "top_k": 50, "min_p": 0.001}
    for ops in OPS.values():
        one = choose(ops, logits, draw(position=position, index=index, **how))
        again = choose(ops, logits.copy(), draw(position=position, index=index, generated=1, **how))
        assert one == again


@given(st.integers(1, 400), st.integers(0, 10**6), st.floats(0.05, 5), st.integers(0, 60), st.floats(0.01, 1))
def test_the_core_chooses_what_the_reference_chooses(size, seed, temperature, top_k, top_p):
    logits = np.random.default_rng(seed).normal(scale=3, size=size).astype(np.float32)
    how = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "seed": seed}
    # Rounding may move a boundary by a hair, and then both are right; that is rarer than one draw in thousands.
    reference, core = (choose(OPS[name], logits, draw(**how)).token for name in ("reference", list(OPS)[-1]))
    if reference != core:
        near = {choose(OPS["reference"], logits * np.float32(1 + e), draw(**how)).token for e in (-1e-5, 1e-5)}
        assert core in near | {reference}


def test_candidates_are_the_likeliest_of_the_model_s_own_distribution(ops):
    logits = row(1, 3, 3, 0, 2)
    found = candidates(ops, logits, Expand(top=3, among=(4, 0, 4)))
    mass = math.log(sum(math.exp(float(each)) for each in logits))
    assert [token for token, _ in found.top] == [1, 2, 4], "the lowest id of equals first"
    assert [logprob for _, logprob in found.top] == pytest.approx([3 - mass, 3 - mass, 2 - mass], abs=1e-6)
    assert found.among == pytest.approx([2 - mass, 1 - mass, 2 - mass], abs=1e-6)


def test_candidates_leave_out_what_may_not_come_and_stay_what_they_are(ops):
    logits = row(1, 3, 3, 0, 2)
    every = dict(candidates(ops, logits, Expand(top=5)).top)
    found = candidates(ops, logits, Expand(top=2, without=frozenset({1, 4})))
    assert found.top == ((2, every[2]), (0, every[0]))
    assert candidates(ops, logits, Expand()).top == candidates(ops, logits, Expand()).among == ()
    assert len(candidates(ops, logits, Expand(top=99, without=frozenset({0}))).top) == 4


def test_candidates_under_a_constraint_are_fewer_and_no_likelier(ops):
    logits = np.random.default_rng(0).integers(-4, 4, 300).astype(np.float32)
    every = dict(candidates(ops, logits, Expand(top=300)).top)
    allowed = np.zeros(300, np.bool_)
    allowed[[7, 40, 41, 199, 298]] = True
    found = candidates(ops, logits, Expand(top=4, among=(298, 0), without=frozenset({298})), allowed)
    order = sorted((7, 40, 41, 199), key=lambda token: (-every[token], token))
    assert found.top == tuple((token, every[token]) for token in order)
    assert found.among == (every[298], -math.inf)
    ends = candidates(ops, logits, Expand(among=(7,)), allowed)
    assert ends.top == () and ends.among == (every[7],)
    nothing = candidates(ops, logits, Expand(top=4, among=(7,)), np.zeros(300, np.bool_))
    assert nothing.top == () and nothing.among == (-math.inf,)
