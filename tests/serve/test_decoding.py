"""``decoding`` over HTTP: the same results as from the library, each with its certificate, and nothing ignored."""

import math
import re

import pytest
from serve.api import Api, events, stories_engine
from serve.test_chat import joined

from openwork import LLM, Beam, BestFirst, Constraint, SamplingParams, Search
from openwork.core.penalty import Penalty
from openwork.serve.bounds import Bounds
from openwork.serve.callers import Caller, Reservation

PROMPT = "one day, tim found a "
OPTIONS = ["big box", "big dog", "red ball", "little bird", "shiny rock", "old key"]
CHOOSE = {"strategy": "choose", "options": OPTIONS}
BEAM = {"strategy": "beam", "width": 4}
BEST = {"strategy": "best_first"}
FOUR = {"min_tokens": 4, "max_tokens": 4}


@pytest.fixture(scope="module")
def llm():
    with LLM() as made:
        yield made


def test_a_choice_is_the_librarys_with_its_certificate(stories, llm):
    chosen = llm.choose(PROMPT, OPTIONS, at_once=1)
    answer = stories.complete(prompt=PROMPT, decoding={**CHOOSE, "at_once": 1, "tree": 50}).json()
    (choice,), (search,) = answer["choices"], answer["search"]
    assert (choice["text"], choice["finish_reason"]) == (chosen.text, "stop") and choice["text"] == "big box"
    assert search["strategy"] == "choose" and search["winner"] == chosen.index == 0 and search["end"] is False
    report = chosen.report
    for name in ("proved", "upper_bound", "gap", "nodes", "num_nodes", "ended_by"):
        assert search[name] == getattr(report, name), name
    for shown, option in zip(search["options"], chosen.options, strict=True):
        assert shown == {name: getattr(option, name) for name in shown if name != "token_ids"} | {
            "token_ids": list(option.token_ids)
        }
    assert search["tree"][0]["parent"] is None and {each["state"] for each in search["tree"]} >= {"expanded", "found"}
    assert "tree" in search and stories.complete(prompt=PROMPT, decoding=CHOOSE).json()["search"][0]["tree"] is None


def test_a_choice_in_a_chat_is_one_of_the_options_and_nothing_else(stories):
    asked = {"decoding": {**CHOOSE, "score_all": True}}
    whole = stories.chat(**asked).json()
    assert whole["choices"][0]["message"]["content"] in OPTIONS
    probabilities = [option["probability_low"] for option in whole["search"]["options"]]
    assert math.isclose(sum(probabilities), 1, abs_tol=1e-6) and whole["search"]["proved"]
    streamed = stories.chat(stream=True, **asked)
    assert joined(streamed)[0][0]["message"]["content"] == whole["choices"][0]["message"]["content"]
    last = events(streamed.text)[-2]
    assert last["choices"] == [] and last["search"]["options"] == whole["search"]["options"]


def test_options_may_be_ids_and_look_like_anything(stories):
    ids = stories.complete(prompt=[1, 400], decoding={"strategy": "choose", "options": [[403, 839], [403, 683]]}).json()
    assert ids["search"][0]["options"][0]["text"] is None and ids["choices"][0]["text"].strip() in (
        "big box",
        "big dog",
    )
    odd = stories.chat(decoding={"strategy": "choose", "options": ["<think>", '{"name": "f"}', "a</s>b"]})
    assert odd.status_code == 200 and odd.json()["choices"][0]["message"]["content"] in (
        "<think>",
        '{"name": "f"}',
        "a</s>b",
    )


def test_each_prompt_has_its_own_search(stories):
    answer = stories.complete(prompt=["the cat", "the dog"], n=2, max_tokens=5, decoding=BEAM).json()
    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2, 3]
    assert [len(search["found"]) for search in answer["search"]] == [2, 2]


@pytest.mark.parametrize("is_chat", [False, True])
def test_beams_are_the_librarys_streamed_or_not(stories, llm, is_chat):
    asked = {"n": 2, "max_tokens": 6, "decoding": {**BEAM, "length_penalty": 0.5, "early_stopping": "never"}}
    ask = stories.chat if is_chat else lambda **fields: stories.complete(prompt="the cat", **fields)
    prompt = llm.chat_prompt([{"role": "user", "content": "once upon"}]) if is_chat else "the cat"
    how = Beam(width=4, length_penalty=0.5, early_stopping="never")
    expected = llm.search(prompt, how, SamplingParams(n=2, max_tokens=6))
    whole = ask(**asked).json()
    texts = [choice["message"]["content"] if is_chat else choice["text"] for choice in whole["choices"]]
    assert texts == [completion.text for completion in expected.completions]
    search = whole["search"] if is_chat else whole["search"][0]
    assert [found["score"] for found in search["found"]] == [found.score for found in expected.search.found]
    assert (search["proved"], search["upper_bound"], search["ended_by"]) == (False, None, "complete")
    pieces = events(ask(**asked, stream=True).text)
    streamed = ["", ""]
    for piece in (each for event in pieces[:-1] for each in event["choices"]):
        streamed[piece["index"]] += (piece["delta"].get("content") or "") if is_chat else piece["text"]
    assert streamed == texts and pieces[-2]["search"] == whole["search"]


def test_best_first_is_the_librarys(stories, llm):
    expected = llm.search("the cat", BestFirst(), SamplingParams(**FOUR, n=3)).search
    (search,) = stories.complete(prompt="the cat", n=3, decoding=BEST, **FOUR).json()["search"]
    assert search["proved"] and [each["logprob"] for each in search["found"]] == [
        each.logprob for each in expected.found
    ]
    assert search["found"][0]["token_logprobs"] == list(expected.found[0].token_logprobs)
    penalised = {"length": "gnmt", "repetition": 2.0, "coverage": 1.5, "phrases": [" dog"]}
    phrase = tuple(llm.tokenizer.encode(" dog", add_special=False))
    how = Search(best_first=BestFirst(), penalty=Penalty(**penalised | {"phrases": (phrase,)}))
    expected = llm.search("the cat", how, SamplingParams(**FOUR)).search
    (search,) = stories.complete(prompt="the cat", decoding={**BEST, "penalty": penalised}, **FOUR).json()["search"]
    assert search["found"][0]["score"] == expected.found[0].score


def test_the_likeliest_text_that_a_constraint_allows(stories, llm):
    wanted = {"guided_regex": "[a-c]{2,4}"}
    params = SamplingParams(constraint=Constraint.regex(wanted["guided_regex"]), max_tokens=8, n=2)
    expected = llm.search("the cat", BestFirst(), params)
    answer = stories.complete(prompt="the cat", n=2, max_tokens=8, decoding=BEST, **wanted).json()
    assert [choice["text"] for choice in answer["choices"]] == [each.text for each in expected.completions]
    assert answer["search"][0]["proved"] and {choice["finish_reason"] for choice in answer["choices"]} == {"stop"}
    beam = stories.chat(max_tokens=8, decoding=BEAM, **wanted).json()["choices"][0]["message"]["content"]
    assert re.fullmatch(wanted["guided_regex"], beam)
    refused = stories.complete(prompt="a", decoding=CHOOSE, **wanted)
    assert refused.status_code == 400 and refused.json()["error"]["param"] == "guided_regex"


def test_a_budget_ends_a_search_and_the_answer_says_so(stories):
    (search,) = stories.complete(prompt="the cat", decoding={**BEST, "budget": {"nodes": 6}}, **FOUR).json()["search"]
    assert search["ended_by"] == "nodes" and not search["proved"] and search["gap"] > 0
    (search,) = stories.complete(prompt="a", max_tokens=9, decoding={**BEAM, "budget": {"nodes": 5}}).json()["search"]
    assert search["ended_by"] == "nodes" and search["nodes"] < 12
    nothing = stories.complete(prompt=PROMPT, decoding={**CHOOSE, "budget": {"seconds": 0}}).json()
    assert nothing["search"][0]["winner"] is None and nothing["choices"][0]["text"] == ""
    assert nothing["choices"][0]["finish_reason"] == "length"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"decoding": {"strategy": "sampling"}}, "decoding.strategy"),
        ({"decoding": {"width": 4}}, "decoding.strategy"),
        ({"decoding": {**BEAM, "width": 65}}, "decoding.width"),
        ({"decoding": {**BEAM, "groups": 3}}, "decoding.groups"),
        ({"decoding": {**BEAM, "groups": 2}}, "decoding.diversity"),
        ({"decoding": {**BEAM, "options": ["a"]}}, "decoding.options"),
        ({"decoding": BEAM, "n": 5}, "n"),
        ({"decoding": BEAM, "prompt": ["a"] * 20}, "decoding.width"),
        ({"decoding": BEAM, "best_of": 2}, "best_of"),
        ({"decoding": BEST}, "min_tokens"),
        ({"decoding": {**BEST, "budget": {"nodes": 100_001}}, **FOUR}, "decoding.budget.nodes"),
        ({"decoding": {**BEST, "budget": {"seconds": -1}}, **FOUR}, "decoding.budget.seconds"),
        ({"decoding": {**BEST, "tree": 10_001}, **FOUR}, "decoding.tree"),
        ({"decoding": {**BEST, "penalty": {"coverage": 1}}, **FOUR}, "decoding.penalty.coverage"),
        ({"decoding": {**BEST, "penalty": {"coverage": 1, "phrases": [[5000]]}}, **FOUR}, "decoding.penalty.phrases"),
        ({"decoding": {"strategy": "choose", "options": []}}, "decoding.options"),
        ({"decoding": {"strategy": "choose", "options": ["a", "a"]}}, "decoding.options"),
        ({"decoding": {"strategy": "choose", "options": ["a", [1]]}}, "decoding.options"),
        ({"decoding": {"strategy": "choose", "options": [[2048]]}}, "decoding.options"),
        ({"decoding": {"strategy": "choose", "options": ["a"] * 10_001}}, "decoding.options"),
        ({"decoding": {"strategy": "choose", "options": ["a", "ab"], "end": False}}, None),
        ({"decoding": {"strategy": "choose", "options": ["word " * 600]}}, "decoding.options"),
        ({"decoding": CHOOSE, "max_tokens": 5}, "max_tokens"),
        ({"decoding": CHOOSE, "n": 2}, "n"),
        *(
            ({"decoding": BEAM, name: value}, name)
            for name, value in {
                "temperature": 0,
                "top_p": 0.5,
                "top_k": 3,
                "seed": 7,
                "stop": "x",
                "presence_penalty": 1,
                "repetition_penalty": 1.1,
                "logit_bias": {"5": 1},
                "logprobs": 1,
                "prompt_logprobs": 1,
            }.items()
        ),
    ],
)
def test_what_does_not_go_together_is_refused_and_named(stories, fields, param):
    answer = stories.complete(**{"prompt": "a", **fields})
    if param is None:
        assert answer.status_code in (200, 400)
        return
    error = answer.json()["error"]
    assert answer.status_code == 400 and error["param"] == param, error
    assert error["message"].startswith(param) and stories.is_at_rest


def test_what_is_plain_is_not_refused(stories):
    plain = {"temperature": 1, "top_p": 1, "presence_penalty": 0, "stop": None, "seed": 0}
    assert stories.complete(prompt="a", max_tokens=3, decoding=BEAM, **plain).status_code == 200


class Till(Caller):
    """Notes what was reserved and settled."""

    def __init__(self):
        self.notes = []

    def reserve(self, tokens):
        till = self

        class Held(Reservation):
            def settle(self, used):
                till.notes.append((tokens, used))

        return Held()


def test_a_search_is_charged_for_what_it_computes(llm):
    till = Till()
    with Api(stories_engine(), caller=till) as api:
        report = llm.search("the cat", BestFirst(), SamplingParams(**FOUR)).search
        api.complete(prompt="the cat", decoding=BEST, **FOUR)
        api.complete(prompt="the cat", decoding={**BEST, "budget": {"tokens": 50}}, **FOUR)
        api.complete(prompt="the cat", max_tokens=5, decoding=BEAM)
        api.complete(prompt=PROMPT, decoding=CHOOSE)
    (most, took), (few, _), (beam, used), (choice, _) = till.notes
    assert most == 3 + 10_000 and report.nodes <= took < 3 + 2 * report.nodes
    assert few == 50 and beam == 3 + 4 * 5 and 3 + 5 < used <= beam and choice < 30


def test_bounds_are_the_operators(llm):
    with Api(stories_engine(), Bounds(options=2, search_nodes=5, tree=1)) as api:
        assert api.complete(prompt="a", decoding=CHOOSE).json()["error"]["param"] == "decoding.options"
        assert (
            api.complete(prompt="a", decoding={**BEST, "tree": 2}, **FOUR).json()["error"]["param"] == "decoding.tree"
        )
        cut = api.complete(prompt="the cat", decoding={**BEST, "budget": {"seconds": 60}}, **FOUR).json()["search"][0]
        assert cut["ended_by"] == "nodes"
        cut = api.complete(prompt="the cat", decoding=BEST, **FOUR).json()["search"][0]
        assert cut["ended_by"] == "nodes"
