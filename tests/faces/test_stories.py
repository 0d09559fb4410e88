"""The embedded model: it tells whole stories, stops by itself, takes any text, and keeps its numbers in bfloat16."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import openwork
from openwork import LLM, SamplingParams

HOME = Path(openwork.__file__).parent / "stories"
OPENINGS = ["once upon a time", "one day, a little dog named max", "Once upon a time, there was a girl named Lily."]


@pytest.fixture(scope="module")
def llm():
    with LLM() as it:
        yield it


def test_it_is_small_and_says_what_it_is(llm):
    assert sum(path.stat().st_size for path in HOME.iterdir()) <= 12 << 20
    assert 2e6 <= llm.spec.num_parameters <= 5e6
    assert llm.info.model == "openwork/stories" and llm.info.dtype == "bfloat16"
    card = (HOME / "README.md").read_text(encoding="utf-8").lower()
    for word in ("data", "licen", "seed", "validation loss", "parameters"):
        assert word in card, f"the model card does not speak of {word}"


@pytest.mark.parametrize("prompt", OPENINGS)
def test_a_greedy_story_ends_by_itself(llm, prompt):
    output = llm.generate(prompt, SamplingParams(temperature=0, max_tokens=300))[0]
    assert output.finish_reason == "stop" and output.token_ids[-1] == llm.tokenizer.eos_id
    assert output.text.rstrip()[-1] in '.!?"', output.text[-40:]
    assert len(output.text.split()) > 20


def test_most_drawn_stories_end_by_themselves(llm):
    params = SamplingParams(temperature=0.7, top_p=0.95, n=32, seed=0, max_tokens=400)
    lines = llm.generate("once upon a time", params)[0].completions
    assert sum(line.finish_reason == "stop" for line in lines) >= 28
    assert len({line.text for line in lines}) == 32


@pytest.mark.parametrize("greedy", [True, False])
def test_the_prompt_of_the_readme_fits_in_two_hundred_tokens(llm, greedy):
    params = replace(llm.defaults, max_tokens=200, **({"temperature": 0.0} if greedy else {}))
    assert llm.generate("once upon a time", params)[0].finish_reason == "stop"


@pytest.mark.parametrize(
    "text", ["naïve café", "東京で", "🙂👩‍👩‍👧", "  two  spaces \n\n\ttab ", "\x00\x7f\u202e", "ДОМ"]
)
def test_any_text_comes_back(llm, text):
    assert llm.tokenizer.decode(llm.tokenizer.encode(text)) == text
    assert len(llm.generate(text, SamplingParams(max_tokens=3, temperature=0, ignore_eos=True))[0].token_ids) == 3


def test_it_can_chat(llm):
    messages = [{"role": "user", "content": "tell me about a cat."}]
    assert llm.chat(messages, SamplingParams(temperature=0, max_tokens=30)).text.strip()


def test_its_defaults_are_those_of_its_generation_config(llm):
    config = json.loads((HOME / "generation_config.json").read_text(encoding="utf-8"))
    assert config["do_sample"] is True
    assert llm.defaults.temperature == config["temperature"]


def test_bfloat16_stays_close_to_float32(llm):
    """Kullback-Leibler divergence, in nats, of the two next-token distributions at every position of some stories."""
    params = SamplingParams(temperature=0.8, seed=5, n=4, max_tokens=150)
    lines = llm.generate("once upon a time", params)[0].completions
    texts = [[*llm.tokenizer.encode("once upon a time"), *line.token_ids] for line in lines]
    rows = {dtype: logits(dtype, texts) for dtype in ("float32", "bfloat16")}
    exact, rounded = log_softmax(rows["float32"]), log_softmax(rows["bfloat16"])
    divergence = (np.exp(exact) * (exact - rounded)).sum(axis=-1)  # (positions,)
    assert len(divergence) > 300
    assert divergence.mean() <= 1e-3
    assert divergence.max() <= 1e-2


def logits(dtype, texts):
    found = []
    with LLM(dtype=dtype, tap=lambda sequence, position, row: found.append(row.astype(np.float64))) as llm:
        for text in texts:
            llm.generate([text], SamplingParams(max_tokens=0, prompt_logprobs=0))
    return np.stack(found)


def log_softmax(rows):
    rows = rows - rows.max(axis=-1, keepdims=True)
    return rows - np.log(np.exp(rows).sum(axis=-1, keepdims=True))
