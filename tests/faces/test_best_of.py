"""The best of many: what ranking by hand gives; and texts that end where they loop."""

import pytest

from openwork import LLM, EngineError, Repetition, RequestError, SamplingParams


@pytest.fixture(scope="module")
def llm():
    with LLM() as llm:
        yield llm


def texts(output):
    return [(each.text, each.token_ids, each.finish_reason) for each in output.completions]


def mean(completion):
    return sum(entry.logprob for entry in completion.logprobs) / len(completion.token_ids)


@pytest.mark.parametrize("stop", [(), (".",)])
def test_the_best_are_those_with_the_highest_mean_log_probability(llm, stop):
    every = llm.generate("the cat", SamplingParams(n=8, max_tokens=30, logprobs=0, stop=stop))[0]
    ranked = sorted(every.completions, key=mean, reverse=True)
    best = llm.generate("the cat", SamplingParams(n=3, best_of=8, max_tokens=30, stop=stop))[0]
    assert [each[0] for each in texts(best)] == [each.text for each in ranked[:3]]
    assert [each.token_ids for each in best.completions] == [each.token_ids for each in ranked[:3]]
    assert [each.index for each in best.completions] == [0, 1, 2]
    assert best.logprobs is None, "nobody asked for them"
    shown = llm.generate("the cat", SamplingParams(n=3, best_of=8, max_tokens=30, stop=stop, logprobs=2))[0]
    assert texts(shown) == texts(best) and len(shown.logprobs[0].top) == 2


def test_it_is_one_of_a_batch_like_any_other(llm):
    how = [SamplingParams(best_of=4, max_tokens=12), SamplingParams(max_tokens=9), SamplingParams(n=2, best_of=2)]
    prompts = ["the cat", "a dog", "tom said"]
    together = [texts(output) for output in llm.generate(prompts, how)]
    assert together == [texts(llm.generate(each, it)[0]) for each, it in zip(prompts, how, strict=True)]


def test_what_cannot_be_is_refused(llm):
    for wrong in ({"n": 3, "best_of": 2}, {"best_of": 0}, {"best_of": 129}):
        with pytest.raises(RequestError) as caught:
            SamplingParams(**wrong)
        assert caught.value.param == "best_of"
    with pytest.raises(RequestError, match="streamed"):
        llm.stream("a", SamplingParams(best_of=2))


def test_one_that_failed_is_ranked_last(llm):
    runner = llm._engine._loop._runner
    run = runner.run

    def broken(step):
        result = run(step)
        if len(step.works) > 1 and len(step.works[0].tokens) + step.works[0].is_pending == 1:
            outcomes = (type(result.outcomes[0])(failure="went bad"), *result.outcomes[1:])
            return type(result)(result.step, outcomes, result.elapsed_s)
        return result

    runner.run = broken
    try:
        with pytest.raises(EngineError) as caught:
            llm.generate("the cat", SamplingParams(n=2, best_of=2, max_tokens=6))
    finally:
        runner.run = run
    assert [each.finish_reason for each in caught.value.outputs[0].completions][-1] == "error"


def test_a_text_that_loops_is_ended(llm):
    loop = Repetition(max_pattern_size=20, min_count=2)
    params = SamplingParams(temperature=0, max_tokens=200, ignore_eos=True, repetition_detection=loop)
    free = llm.generate("the cat sat the cat sat", SamplingParams(temperature=0, max_tokens=200, ignore_eos=True))[0]
    ended = llm.generate("the cat sat the cat sat", params)[0]
    tokens = list(free.token_ids)
    first = next((end for end in range(1, len(tokens) + 1) if loop.is_in(tokens[:end])), None)
    assert first is not None, "this prompt is one that leads into a loop"
    assert list(ended.token_ids) == tokens[:first] and ended.finish_reason == "repetition"
    assert list(llm.stream("the cat sat the cat sat", params))[-2].finish_reason == "repetition"
