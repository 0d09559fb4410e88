"""What an answer tells of guesses: the same text, and how many of its tokens were foretold."""

import pytest
from serve.api import MODEL, Api, events

from openwork.build import build
from openwork.core.event import Ended
from openwork.core.request import Request, SamplingParams
from openwork.core.settings import LoadSettings, ScheduleSettings, SpeculationSettings
from openwork.engine.face import Facts
from openwork.serve.metered import Metered
from openwork.serve.metrics import Metrics
from openwork.testing.local import LocalEngine

# Said again and again, this text is foretold from its own beginning.
FIELDS = {"prompt": "the cat and the dog", "max_tokens": 90, "temperature": 0, "logit_bias": {"9": 100, "12": 99.5}}
FIELDS |= {"frequency_penalty": 0.3, "ignore_eos": True}


@pytest.fixture(scope="module")
def guessing():
    load = LoadSettings(kv_cache_bytes=32 << 20, threads=1)
    built = build(None, load, ScheduleSettings(speculation=SpeculationSettings(max_draft=5)))
    built.engine._loop.scheduler._planner._speculation._pace.learn_gap = lambda seconds: None  # as if it cost nothing
    info = built.info
    facts = Facts(MODEL, built.limits, built.generation.as_params(), info.directory, info.contract_id)
    with Api(LocalEngine(built.engine, facts)) as api:
        yield api


def test_the_text_is_the_same_and_what_was_guessed_is_told(stories, guessing):
    plain = stories.complete(**FIELDS).json()
    told = guessing.complete(**FIELDS, timings=True).json()
    assert told["choices"] == plain["choices"]
    (timing,) = told["timings"]
    assert 0 < timing["accepted_tokens"] <= timing["drafted_tokens"] <= 5 * timing["verify_steps"]
    details = told["usage"]["completion_tokens_details"]
    assert details["accepted_prediction_tokens"] == timing["accepted_tokens"]
    assert sum(details.values()) == timing["drafted_tokens"]
    assert plain["usage"]["completion_tokens"] == told["usage"]["completion_tokens"] == 90


def test_each_token_of_a_stream_is_an_event_also_when_many_come_at_once(guessing):
    whole = guessing.complete(**FIELDS, return_token_ids=True).json()["choices"][0]
    said = events(guessing.complete(**FIELDS, return_token_ids=True, stream=True).text)
    pieces = [each["choices"][0] for each in said[:-1] if each["choices"]]
    assert "".join(piece["text"] for piece in pieces) == whole["text"]
    tokens = [piece.get("token_ids") or [] for piece in pieces]
    assert [token for ids in tokens for token in ids] == whole["token_ids"]
    assert max(map(len, tokens)) == 1


def test_a_stop_string_among_right_guesses_ends_the_answer_there(stories, guessing):
    text = stories.complete(**FIELDS).json()["choices"][0]["text"]
    stop = text[len(text) // 2 : len(text) // 2 + 6]
    plain = stories.complete(**FIELDS, stop=stop).json()
    told = guessing.complete(**FIELDS, stop=stop).json()
    assert told["choices"] == plain["choices"] and told["choices"][0]["stop_reason"] == stop
    assert told["usage"]["completion_tokens"] == plain["usage"]["completion_tokens"]


def test_guesses_are_counted_for_who_watches(guessing):
    metrics = Metrics(MODEL)

    async def run():
        params = SamplingParams(temperature=0, max_tokens=60, logit_bias={9: 100.0}, ignore_eos=True)
        stream = await Metered(guessing.engine, metrics).submit(
            Request((5, 6, 7), params, guessing.engine.facts.limits)
        )
        while not isinstance((events := await stream.take())[-1], Ended):
            pass
        return events[-1].account.guessed

    guessed = guessing.run(run())
    page = metrics.page().decode()
    assert guessed.accepted > 0
    for name, count in (
        ("drafts", guessed.verify_steps),
        ("draft_tokens", guessed.drafted),
        ("accepted_tokens", guessed.accepted),
    ):
        assert f'vllm:spec_decode_num_{name}_total{{engine="0",model_name="{MODEL}"}} {float(count)}' in page
