"""The mode of what a constraint allows, on real weights: against every text it allows, each scored by itself."""

import json
import re
from itertools import product
from random import Random

import pytest

from openwork import LLM, Beam, BestFirst, Constraint, SamplingParams
from openwork.core.budget import Budget
from openwork.testing.byte_tokenizer import write_byte_tokenizer
from openwork.testing.checkpoint import write_checkpoint

ENOUGH = Budget(nodes=100_000)
LONGEST = 5  # tokens, the end among them


@pytest.fixture(scope="module")
def llm(tmp_path_factory):
    """A byte a token, so that a text is one line of tokens; its weights are random."""
    directory = write_checkpoint(tmp_path_factory.mktemp("tiny"), vocab_size=259)
    with LLM(write_byte_tokenizer(directory), context=64) as llm:
        yield llm


def pattern(draw, depth=3):
    if depth == 0 or draw.random() < 0.3:
        return draw.choice(["a", "b", "c", "[ab]", "[^a]" if depth == 0 else "[bc]"]).replace("[^a]", "[bc]")
    one, other = pattern(draw, depth - 1), pattern(draw, depth - 1)
    return draw.choice([f"{one}{other}", f"({one}|{other})", f"({one})*", f"({one})?", f"{one}({other}){{1,2}}"])


def texts_of(constraint):
    """Every text that a constraint allows, of so few bytes that an end fits behind it."""
    if constraint.kind == "choice":
        return json.loads(constraint.source)
    if constraint.kind == "regex":
        words = ("".join(word) for size in range(LONGEST) for word in product("abc", repeat=size))
        return [word for word in words if re.fullmatch(constraint.source, word)]
    schema = json.loads(constraint.source)
    if "enum" in schema:
        return [json.dumps(value) for value in schema["enum"]]
    return [str(number) for number in range(schema["minimum"], schema["maximum"] + 1)]


def drawn(seed):
    draw = Random(seed)
    kind = draw.choice(["regex", "regex", "regex", "choice", "enum", "range"])
    if kind == "regex":
        return Constraint.regex(pattern(draw))
    if kind == "range":
        low, high = sorted(draw.randint(1, 90) for _ in range(2))  # "-0" is a way to write 0, so it is left out
        low, high = (-high, -low) if draw.random() < 0.5 else (low, high)
        return Constraint.json_schema({"type": "integer", "minimum": low, "maximum": high})
    words = {"".join(draw.choices("abcd", k=draw.randint(1, 2))) for _ in range(9)}
    if kind == "choice":
        return Constraint.choice(sorted(words))
    return Constraint.json_schema({"enum": [*sorted(words), True, None, 7][draw.randint(0, 5) :]})


def scored(llm, prompt, texts):
    """log Pr of each text and an end behind the prompt, from prefills."""
    lines = [[3 + byte for byte in text.encode()] + [2] for text in texts]
    outputs = llm.generate([[*prompt, *line] for line in lines], SamplingParams(max_tokens=0, prompt_logprobs=0))
    return [
        (sum(entry.logprob for entry in output.prompt_logprobs[len(prompt) :]), tuple(line))
        for output, line in zip(outputs, lines, strict=True)
    ]


def test_the_mode_is_the_one_that_enumeration_finds(llm, is_long):
    compared = 0
    for seed in range(2_000 if is_long else 60):
        constraint = drawn(seed)
        prompt = [3 + seed % 250, 40, 41]
        texts = [text for text in texts_of(constraint) if len(text) < LONGEST]
        if not texts:
            continue
        truth = sorted(scored(llm, prompt, texts), key=lambda each: (-each[0], each[1]))
        params = SamplingParams(constraint=constraint, max_tokens=LONGEST, n=1 + seed % 3)
        output = llm.search(prompt, BestFirst(budget=ENOUGH), params)
        report = output.search
        assert report.proved and report.gap == 0, constraint
        assert [found.token_ids for found in report.found] == [line for _, line in truth[: params.n]], constraint
        for found, completion, (logprob, _) in zip(report.found, output.completions, truth, strict=False):
            assert found.logprob == pytest.approx(logprob, abs=1e-9)
            assert completion.text in texts and completion.finish_reason == "stop"
        beam = llm.search(prompt, Beam(width=4), params).search.found
        legal = {line for _, line in truth}
        assert all(each.token_ids in legal for each in beam if each.finish_reason == "stop")
        compared += len(texts)
    assert compared > 300


def test_token_by_token_masks_miss_what_is_found(llm):
    """Somewhere the likeliest allowed token begins no likeliest text; nowhere is the mode less likely."""
    missed = 0
    for seed in range(30):
        constraint, prompt = drawn(seed), [50 + seed, 60]
        params = SamplingParams(constraint=constraint, max_tokens=30, temperature=0, logprobs=0)
        greedy = llm.generate([prompt], params)[0]
        exact = llm.search(
            prompt, BestFirst(budget=ENOUGH), SamplingParams(constraint=constraint, max_tokens=30)
        ).search
        if greedy.finish_reason == "stop" and exact.proved:
            logprob = sum(entry.logprob for entry in greedy.logprobs)
            assert exact.found[0].logprob >= logprob - 1e-9
            missed += exact.found[0].logprob > logprob + 1e-6
    assert missed


def test_nothing_legal_is_so_short_and_that_is_proved(llm):
    params = SamplingParams(constraint=Constraint.regex("a{9}"), max_tokens=5)
    output = llm.search([40, 41], BestFirst(), params)
    assert output.search.proved and output.search.found == () and output.text == ""
    assert output.finish_reason == "length"


def test_beside_others_it_finds_the_same(llm):
    params = SamplingParams(constraint=Constraint.regex("[a-z]{2,3}"), n=2)
    alone = llm.search([40, 41], BestFirst(), params).search
    with LLM(llm.info.directory, context=64, kv_cache_bytes=24 * llm.info.kv_bytes // llm.info.num_blocks) as small:
        running = [small._request([9, 8, i], SamplingParams(max_tokens=40)) for i in range(4)]
        others = [small._follower.submit(each, each.prompt) for each in running]
        assert small.search([40, 41], BestFirst(), params).search == alone
        for _ in small._follower.follow(others, None):
            pass
