"""LLM.choose and LLM.search on a real model, against probabilities of whole lines that are scored by themselves."""

import math
import threading

import pytest

from openwork import LLM, RequestError, SamplingParams
from openwork.core.budget import Budget
from openwork.core.event import Token
from openwork.core.penalty import Penalty
from openwork.core.search import Beam, BestFirst, Search


@pytest.fixture(scope="module")
def llm():
    with LLM() as llm:
        yield llm


def scored(llm, prompt_ids, line):
    """Log-probabilities of the tokens of a line, from one prefill."""
    params = SamplingParams(max_tokens=0, prompt_logprobs=0)
    entries = llm.generate([[*prompt_ids, *line]], params)[0].prompt_logprobs
    return [entry.logprob for entry in entries[len(prompt_ids) :]]


QUESTIONS = [
    ("the little girl was very ", ["happy", "sad", "tired", "excited", "hungry"]),
    ("the cat sat on the ", ["mat", "big mat", "chair", "table", "floor", "bed", "roof of the house"]),
    ("once upon a time there was a", [" boy", " boy named tim", " girl", " dog"]),
]


@pytest.mark.parametrize(("prompt", "options"), QUESTIONS)
@pytest.mark.parametrize("score_all", [False, True])
def test_a_choice_is_what_scoring_every_option_says(llm, prompt, options, score_all):
    chosen = llm.choose(prompt, options, score_all=score_all)
    ends = [1] if chosen.end else []
    truth = [math.fsum(scored(llm, chosen.prompt_ids, [*option.token_ids, *ends])) for option in chosen.options]
    total = math.fsum(map(math.exp, truth))
    assert chosen.proved and chosen.index == max(range(len(truth)), key=truth.__getitem__)
    assert chosen.text == options[chosen.index]
    assert chosen.logprob == pytest.approx(max(truth), abs=1e-9), "the bits are those of a prefill"
    for option, logprob in zip(chosen.options, truth, strict=True):
        assert option.probability_low <= math.exp(logprob) / total * (1 + 1e-9)
        assert option.probability_high >= math.exp(logprob) / total * (1 - 1e-9)
        assert option.logprob is None or option.logprob == pytest.approx(logprob, abs=1e-9)
        assert not score_all or option.logprob is not None


def test_where_one_option_begins_another_the_end_counts(llm):
    assert llm.choose("she said ", ["yes", "yes to him"]).end
    assert not llm.choose("she said ", ["yes", "no"]).end
    assert llm.choose("she said ", ["yes", "no"], end=True).end
    with pytest.raises(RequestError, match="beginning of another"):
        llm.choose("she said ", ["yes", "yes to him"], end=False)


def test_a_budget_ends_a_choice_with_what_is_known(llm):
    chosen = llm.choose("the cat ", ["was big", "was red", "had fun"], budget=Budget(nodes=1))
    assert chosen.index is None and chosen.text is None and chosen.logprob is None and not chosen.proved
    assert all(option.probability_low == 0 for option in chosen.options)
    assert chosen.report.ended_by == "nodes"


def test_many_options_share_what_they_have_in_common(llm):
    words = [f"{a} {b}" for a in ("big", "red", "old", "sad") for b in ("cat", "dog", "boy", "man", "car")]
    chosen = llm.choose("there was a ", words, score_all=True)
    assert chosen.report.nodes == chosen.report.num_nodes == 1 + 4
    assert math.fsum(option.probability_low for option in chosen.options) == pytest.approx(1)


def test_best_first_finds_what_no_beam_beats(llm):
    params = SamplingParams(min_tokens=5, max_tokens=5, n=3)
    exact = llm.search("the cat", BestFirst(), params)
    report = exact.search
    assert report.proved and report.gap == 0 and report.upper_bound == report.found[0].logprob
    assert [c.token_ids for c in exact.completions] == [found.token_ids for found in report.found]
    for found in report.found:
        assert list(found.token_logprobs) == pytest.approx(scored(llm, exact.prompt_ids, found.token_ids), abs=1e-9)
    for width in (1, 4, 16):
        beam = llm.search("the cat", Beam(width=width, length_penalty=0.0), SamplingParams(min_tokens=5, max_tokens=5))
        assert beam.search.found[0].logprob <= report.found[0].logprob


def test_penalties_change_what_is_best(llm):
    params = SamplingParams(min_tokens=3, max_tokens=6)
    plain = llm.search("the cat", BestFirst(), params).search
    phrase = tuple(llm.tokenizer.encode(" happy", add_special=False))
    how = Search(best_first=BestFirst(), penalty=Penalty(coverage=20.0, phrases=(phrase,)))
    covered = llm.search("the cat", how, params)
    assert " happy" in covered.text and covered.search.proved
    assert covered.search.found[0].logprob < plain.found[0].logprob


def test_searches_are_the_same_beside_other_work(llm):
    """Threads share one engine: searches, choices and draws in the same steps."""
    params = SamplingParams(min_tokens=4, max_tokens=4)

    def work():
        return (
            llm.search("the dog", BestFirst(), params).search,
            llm.search("the dog", Beam(width=4), SamplingParams(max_tokens=20, n=4)).search,
            llm.choose("the dog was ", ["big", "red", "happy"]).report,
            llm.generate("the dog", SamplingParams(max_tokens=30, seed=1, n=3))[0].completions,
        )

    alone, together = work(), [None] * 3

    def run(place):
        together[place] = work()

    threads = [threading.Thread(target=run, args=(place,)) for place in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert together == [alone] * 3


def test_the_model_s_recommended_sampling_does_not_bend_a_search(llm):
    assert llm.defaults.temperature != 1
    assert llm.search("the cat", Beam(width=2), SamplingParams(max_tokens=3)).search.found
    with pytest.raises(RequestError, match="does not go together with a search"):
        llm.search("the cat", Beam(width=2), llm.defaults)


def test_what_beams_agree_on_is_streamed_before_they_are_done(llm):
    params = SamplingParams(max_tokens=60, n=2)
    whole = llm.search("one day, a little girl named lily", Beam(width=3), params)
    chunks = list(llm.stream("one day, a little girl named lily", params, search=Beam(width=3)))
    assert chunks[-1].output.search == whole.search
    assert "".join(chunk.text for chunk in chunks if chunk.index == 0) == whole.text
    assert [token for chunk in chunks if chunk.index == 0 for token in chunk.token_ids] == list(whole.token_ids)
    with pytest.raises(RequestError, match="temperature"):
        llm.stream("a", SamplingParams(temperature=0), search=Beam(width=2))
    stream = llm._engine.submit(llm._request("one day, a little girl named lily", params, Beam(width=3)))
    early = 0
    while not stream.has_ended:
        llm._engine.turn()
        early += sum(isinstance(event, Token) for event in stream.take()) if not stream.has_ended else 0
    assert early > 10, "most is certain long before the end"
