"""Every limit of a request is enforced where it is made, and the error names the parameter."""

import math

import pytest

from openwork import PromptTooLong, RequestError, SamplingParams
from openwork.core.request import Limits, Request

LIMITS = Limits(vocab_size=100, context=32, eos_ids=frozenset({2}))

BAD = [
    ("temperature", -0.1), ("temperature", math.nan), ("temperature", math.inf), ("temperature", "hot"),
    ("temperature", True), ("temperature", 101), ("top_p", 0), ("top_p", 1.5), ("top_p", -1), ("top_k", -1),
    ("top_k", 1.5), ("top_k", True), ("min_p", -0.1), ("min_p", 1.1), ("presence_penalty", 2.1),
    ("presence_penalty", -3), ("frequency_penalty", math.nan), ("repetition_penalty", 0), ("repetition_penalty", -1),
    ("seed", -1), ("seed", 2**64), ("seed", None), ("n", 0), ("n", 129), ("n", 1.0), ("max_tokens", -1),
    ("max_tokens", 2.5), ("min_tokens", -1), ("stop", ""), ("stop", ["a", ""]), ("stop", ["x"] * 17),
    ("stop", ["\ud800"]), ("stop", 5), ("stop", ["é" * 513]), ("stop_token_ids", [-1]), ("stop_token_ids", "12"),
    ("stop_token_ids", [1.5]), ("stop_token_ids", [0] * 129), ("ignore_eos", 1), ("logprobs", -1), ("logprobs", 21),
    ("logprobs", True), ("prompt_logprobs", 21), ("logit_bias", {1: 101}), ("logit_bias", {-1: 1}),
    ("logit_bias", {"1": 1}), ("logit_bias", [1]), ("logit_bias", {1: math.nan}),
    ("logit_bias", dict.fromkeys(range(1025), 0.0)), ("skip_special_tokens", "no"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value"), BAD)
def test_a_parameter_out_of_range_is_refused_by_name(name, value):
    with pytest.raises(RequestError) as caught:
        SamplingParams(**{name: value})
    assert caught.value.param == name
    assert name in str(caught.value)


def test_the_edges_of_every_range_are_allowed():
    SamplingParams(temperature=0, top_p=1e-9, min_p=0, top_k=0, presence_penalty=-2, frequency_penalty=2,
                   repetition_penalty=100, seed=2**64 - 1, n=128, max_tokens=0, stop=["é" * 512] * 16,
                   logprobs=0, prompt_logprobs=20, logit_bias={0: -100, 99: 100.0})  # fmt: skip


def test_min_tokens_may_not_exceed_max_tokens():
    with pytest.raises(RequestError, match="min_tokens"):
        SamplingParams(min_tokens=5, max_tokens=4)


def test_one_stop_string_needs_no_list():
    assert SamplingParams(stop="end").stop == ("end",)


@pytest.mark.parametrize("prompt", [[], [100], [-1], [1, 2, 1.0], [True], ["1"]])
def test_prompts_that_are_empty_or_out_of_range_are_refused(prompt):
    with pytest.raises(RequestError) as caught:
        Request(tuple(prompt), SamplingParams(), LIMITS)
    assert caught.value.param == "prompt"


def test_a_prompt_must_leave_room_for_a_token_unless_none_is_wanted():
    with pytest.raises(PromptTooLong, match="32"):
        Request((1,) * 32, SamplingParams(), LIMITS)
    assert Request((1,) * 32, SamplingParams(max_tokens=0), LIMITS).max_tokens == 0
    assert Request((1,) * 31, SamplingParams(), LIMITS).max_tokens == 1
    with pytest.raises(PromptTooLong):
        Request((1,) * 33, SamplingParams(max_tokens=0), LIMITS)


@pytest.mark.parametrize("name", ["logit_bias", "stop_token_ids"])
def test_ids_outside_the_vocabulary_are_refused(name):
    value = {100: 1.0} if name == "logit_bias" else [100]
    with pytest.raises(RequestError) as caught:
        Request((1,), SamplingParams(**{name: value}), LIMITS)
    assert caught.value.param == name


def test_end_tokens_are_the_model_s_and_the_caller_s():
    assert Request((1,), SamplingParams(stop_token_ids=[7]), LIMITS).stop_ids == {2, 7}
    assert Request((1,), SamplingParams(stop_token_ids=[7], ignore_eos=True), LIMITS).stop_ids == {7}
