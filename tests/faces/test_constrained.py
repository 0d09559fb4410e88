"""Constrained texts through the whole engine: the same alone, in any batch, after a preemption and a restart."""

import json
import re

import jsonschema
import pytest

from openwork import LLM, Constraint, EngineError, RequestError, SamplingParams
from openwork.core.event import Finished, Preempted, Token
from openwork.core.request import Request
from openwork.testing.byte_tokenizer import write_byte_tokenizer
from openwork.testing.checkpoint import write_checkpoint

SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "age": {"type": "integer", "minimum": 0, "maximum": 99},
    },
    "required": ["name", "age"],
    "additionalProperties": False,
}
PERSON = Constraint.json_schema(SCHEMA)
KINDS = [
    PERSON,
    Constraint.regex("[a-z]{3,8}( [a-z]{2,5}){2}"),
    Constraint.choice(["a cat", "a dog", "a caterpillar"]),
    Constraint.lark('start: ("ha" | "ho")~2..6 "!"'),
]


def params(constraint=PERSON, **other):
    return SamplingParams(**{"temperature": 1.0, "max_tokens": 90, "constraint": constraint, **other})


def texts(output):
    return [(each.text, each.token_ids, each.finish_reason) for each in output.completions]


@pytest.fixture(scope="module")
def stories():
    with LLM() as llm:
        yield llm


def follows(text, constraint):
    if constraint.kind == "json_schema":
        jsonschema.validate(json.loads(text), SCHEMA)
    elif constraint.kind == "choice":
        assert text in json.loads(constraint.source)
    else:
        assert re.fullmatch(constraint.source if constraint.kind == "regex" else "(ha|ho){2,6}!", text), text


@pytest.mark.parametrize("constraint", KINDS, ids=lambda constraint: constraint.kind)
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_what_is_finished_is_what_was_asked_for(stories, constraint, temperature):
    outputs = stories.generate(["Once", "The cat", "Tom said"], params(constraint, temperature=temperature, n=2))
    finished = [each for output in outputs for each in output.completions if each.finish_reason == "stop"]
    assert len(finished) > 3
    for each in finished:
        follows(each.text, constraint)
        assert each.stop_reason == stories.tokenizer.eos_id


def test_alone_in_a_batch_and_streamed_are_one(stories):
    how = [params(KINDS[i % 4], seed=i, n=1 + i % 3, temperature=i % 2) for i in range(9)] + [params(None, seed=3)] * 3
    prompts = [f"Once upon a time {i}" for i in range(len(how))]
    together = [texts(output) for output in stories.generate(prompts, how)]
    assert together == [texts(stories.generate(prompt, each)[0]) for prompt, each in zip(prompts, how, strict=True)]
    streamed = list(stories.stream(prompts[2], how[2]))[-1].output
    assert texts(streamed) == together[2]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A byte tokenizer over random weights: texts of many tokens, and a cache as small as one likes."""
    directory = write_checkpoint(tmp_path_factory.mktemp("tiny"))
    return write_byte_tokenizer(directory)


def test_a_preempted_text_goes_on_as_it_was(tiny):
    # Room for everybody, and room for two: some give way, lose their blocks and are computed again.
    how = [params(PERSON, seed=i, max_tokens=70) for i in range(6)]
    prompts = ["abc" * 5 + str(i) for i in range(6)]
    with LLM(tiny, context=112) as llm:
        wide = [texts(output) for output in llm.generate(prompts, how)]
        block_bytes = llm.info.kv_bytes // llm.info.num_blocks
    with LLM(tiny, context=112, kv_cache_bytes=14 * block_bytes) as llm:
        seen = []
        original = llm._engine._deliver
        llm._engine._deliver = lambda events: (seen.extend(events), original(events))[1]
        narrow = [texts(output) for output in llm.generate(prompts, how)]
    assert any(isinstance(event, Preempted) for event in seen)
    assert narrow == wide


def test_another_engine_goes_on_from_the_tokens(tiny):
    request = None
    said = []
    for lives in (1, 2):
        with LLM(tiny, context=112) as llm:
            request = Request((40, 50, 60), params(PERSON, n=2, max_tokens=60), llm._limits)
            stream = llm._engine.submit(request, dict(enumerate(said[0])) if lives == 2 else None)
            tokens = [[], []] if lives == 1 else [list(line) for line in said[0]]
            while not stream.has_ended and (lives == 2 or min(map(len, tokens)) < 20):
                llm._engine.turn()
                for event in stream.take():
                    if isinstance(event, Token):
                        tokens[event.index].append(event.choice.token)
            said.append(tokens)
            if lives == 2:
                whole = llm.generate([list(request.prompt)], request.params)[0]
    assert [tuple(line) for line in said[1]] == [each.token_ids for each in whole.completions]


def test_a_stop_string_ends_the_text_where_it_appears_complete_or_not(stories):
    cut = stories.generate("Once", params(PERSON, stop=('"age"',)))[0]
    assert cut.completions[0].stop_reason == '"age"'
    assert cut.text.startswith("{") and '"age"' not in cut.text
    whole = stories.generate("Once", params(PERSON))[0]
    assert whole.text.startswith(cut.text)
    assert texts(stories.generate("Once", params(PERSON, stop=('"age"',)))[0]) == texts(cut)


def test_a_stop_token_ends_the_text_too(stories):
    quote = stories.tokenizer.token_id('"')
    output = stories.generate("Once", params(Constraint.regex('a+"b'), stop_token_ids=(quote,)))[0]
    assert output.completions[0].stop_reason == quote


def test_an_end_comes_late_when_it_is_wished_for_and_at_once_when_nothing_else_is_allowed(stories):
    letters = Constraint.regex("[ab]{1,30}")
    for wish in ({"min_tokens": 20}, {"ignore_eos": True}):
        output = stories.generate("Once", params(letters, temperature=0, **wish))[0]
        assert len(output.token_ids) > 15 and output.finish_reason == "stop"
        short = stories.generate("Once", params(Constraint.choice(["ab"]), min_tokens=50, max_tokens=60))[0]
        assert (short.text, short.finish_reason) == ("ab", "stop")


def test_no_bias_and_no_penalty_can_choose_what_is_not_allowed(stories):
    letter, digit = stories.tokenizer.token_id("x"), stories.tokenizer.token_id("7")
    how = params(
        Constraint.regex("[0-9]{5}"), logit_bias={letter: 100, digit: -100}, presence_penalty=2, repetition_penalty=2
    )
    output = stories.generate("x x x x", how)[0]
    assert re.fullmatch("[0-689]{5}", output.text)


def test_log_probabilities_are_the_models_own(stories):
    free = stories.generate("Once upon a", SamplingParams(temperature=0, max_tokens=1, logprobs=5))[0]
    bound = stories.generate("Once upon a", params(Constraint.regex("[0-9]"), temperature=0, logprobs=5))[0]
    assert bound.logprobs[0].top == free.logprobs[0].top
    assert bound.logprobs[0].rank > 1 and bound.logprobs[0].logprob < free.logprobs[0].logprob


def test_what_cannot_be_used_is_refused_before_anything_is_computed(stories):
    with pytest.raises(RequestError, match="uniqueItems"):
        stories.generate(["a", "b"], [params(), params(Constraint.json_schema({"uniqueItems": True}))])


def test_a_dead_end_fails_that_text_alone(stories):
    class Broken:
        """Nothing is left after the first token."""

        def __init__(self, matcher):
            self.matcher, self.count = matcher, 0

        def take(self, tokens):
            self.count += len(tokens)
            return self.matcher.take(tokens)

        def mask(self):
            return None if self.count else self.matcher.mask()

    guide = stories._engine._loop._runner._masks._guide
    begin = guide.begin
    try:
        guide.begin = lambda constraint: Broken(begin(constraint)) if constraint.kind == "regex" else begin(constraint)
        how = [params(Constraint.regex("[a-z]{5,9}")), params(PERSON, temperature=0)]
        with pytest.raises(EngineError, match="no token") as caught:
            stories.generate(["Once", "Once"], how)
    finally:
        del guide.begin
    failed, good = caught.value.outputs
    assert failed.finish_reason == "error" and len(failed.token_ids) == 1
    assert texts(good) == texts(stories.generate("Once", how[1])[0])


def test_a_dead_end_has_a_kind_of_its_own(tiny):
    with LLM(tiny) as llm:
        llm._engine._loop._runner._masks._guide = None
        stream = llm._engine.submit(Request((40,), params(PERSON), llm._limits))
        llm._engine.drain()
        ends = [event for event in stream.take() if isinstance(event, Finished)]
        assert [(event.reason, event.failure) for event in ends] == [("error", "grammar")]


def test_a_checkpoint_without_a_tokenizer_refuses(tmp_path):
    with LLM(write_checkpoint(tmp_path)) as llm, pytest.raises(RequestError, match="constraint"):
        llm.generate([[1, 2]], params(Constraint.regex("a")))
