"""/v1/completions: prompts of every form, the legacy log-probabilities, and that a stream says the same as a whole."""

import pytest
from serve.api import Api, echo_engine, events

from openwork.serve.logprobs import LegacyLines
from openwork.text.tokenizer import Tokenizer

PROMPT = "once upon a time"


def joined(answer):
    """A stream put together: text, log-probabilities, reasons and usage by choice."""
    choices, usage = {}, None
    for event in events(answer.text)[:-1]:
        usage = event.get("usage") or usage
        for piece in event["choices"]:
            whole = choices.setdefault(piece["index"], {"text": "", "logprobs": None, "finish_reason": None})
            whole["text"] += piece["text"]
            whole["finish_reason"] = piece["finish_reason"] or whole["finish_reason"]
            if piece["logprobs"]:
                lists = whole["logprobs"] or {name: [] for name in piece["logprobs"]}
                whole["logprobs"] = {name: lists[name] + values for name, values in piece["logprobs"].items()}
    return choices, usage


def test_a_completion_has_the_shape_that_clients_read(stories):
    said = stories.complete(prompt=PROMPT, max_tokens=8, temperature=0).json()
    assert said["object"] == "text_completion" and said["id"].startswith("cmpl-") and said["model"] == stories.model
    (choice,) = said["choices"]
    assert choice == {
        "index": 0,
        "text": ", there was a little girl named lily",
        "logprobs": None,
        "finish_reason": "length",
        "stop_reason": None,
    }
    assert said["usage"] == {
        "prompt_tokens": 5,
        "completion_tokens": 8,
        "total_tokens": 13,
        "prompt_tokens_details": {"cached_tokens": said["usage"]["prompt_tokens_details"]["cached_tokens"]},
        "completion_tokens_details": {
            "reasoning_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def test_choices_are_numbered_over_prompts_and_n(stories):
    said = stories.complete(prompt=["once", "the dog"], n=2, max_tokens=3, temperature=0.7, seed=5).json()
    assert [choice["index"] for choice in said["choices"]] == [0, 1, 2, 3]
    alone = stories.complete(prompt="the dog", n=2, max_tokens=3, temperature=0.7, seed=5).json()
    assert [c["text"] for c in said["choices"][2:]] == [c["text"] for c in alone["choices"]]


def test_token_ids_and_text_are_the_same_prompt(stories):
    by_text = stories.complete(prompt=PROMPT, max_tokens=4, temperature=0, return_token_ids=True).json()
    ids = by_text["choices"][0]["prompt_token_ids"]
    for prompt in (ids, [ids]):
        by_ids = stories.complete(prompt=prompt, max_tokens=4, temperature=0, return_token_ids=True).json()
        assert by_ids["choices"] == by_text["choices"]


@pytest.mark.parametrize("with_logprobs", [False, True])
@pytest.mark.parametrize("n", [1, 3])
def test_q21_a_stream_says_what_the_whole_says(stories, n, with_logprobs):
    fields = {"prompt": PROMPT, "max_tokens": 24, "temperature": 0.9, "seed": 11, "n": n, "stop": ["lily", "the "]}
    fields |= {"logprobs": 2} if with_logprobs else {}
    whole = stories.complete(**fields).json()
    choices, usage = joined(stories.complete(**fields, stream=True, stream_options={"include_usage": True}))
    for choice in whole["choices"]:
        assert choices[choice["index"]] == {name: choice[name] for name in ("text", "logprobs", "finish_reason")}
    assert len(choices) == n
    counts = ("prompt_tokens", "completion_tokens", "total_tokens")
    assert [usage[name] for name in counts] == [whole["usage"][name] for name in counts]


def test_a_stream_is_framed_as_clients_expect(stories):
    answer = stories.complete(prompt=PROMPT, max_tokens=3, stream=True, stream_options={"include_usage": True})
    assert answer.headers["content-type"].startswith("text/event-stream")
    *pieces, usage, done = events(answer.text)
    assert done == "[DONE]" and answer.text.endswith("data: [DONE]\n\n")
    assert usage["choices"] == [] and usage["usage"]["completion_tokens"] == 3
    assert {piece["usage"] for piece in pieces} == {None}
    assert {(piece["id"], piece["created"], piece["model"]) for piece in pieces} == {
        (usage["id"], usage["created"], usage["model"])
    }
    assert [piece["choices"][0]["finish_reason"] for piece in pieces][-1] == "length"
    without = stories.complete(prompt=PROMPT, max_tokens=3, stream=True)
    assert all("usage" not in piece for piece in events(without.text)[:-1])


def test_s13_scoring_twice_gives_the_same_numbers(stories):
    fields = {"prompt": "The dog ran to the park and sat.", "max_tokens": 0, "echo": True, "logprobs": 3}
    first, second = stories.complete(**fields).json(), stories.complete(**fields).json()
    assert first["choices"] == second["choices"]
    (choice,) = first["choices"]
    lists = choice["logprobs"]
    assert choice["text"] == fields["prompt"] and choice["finish_reason"] == "length"
    assert first["usage"]["completion_tokens"] == 0
    assert lists["token_logprobs"][0] is None and lists["top_logprobs"][0] is None
    assert all(value <= 0 for value in lists["token_logprobs"][1:])
    assert len({len(values) for values in lists.values()}) == 1


def test_offsets_are_places_in_the_text(stories):
    for echo in (False, True):
        (choice,) = stories.complete(prompt=PROMPT, max_tokens=6, temperature=0, echo=echo, logprobs=0).json()[
            "choices"
        ]
        text, lists = choice["text"], choice["logprobs"]
        assert text.startswith(PROMPT) == echo
        for token, start in zip(lists["tokens"], lists["text_offset"], strict=True):
            assert token == "<s>" or text[start : start + len(token)] == token


def test_a_part_of_a_character_is_written_as_bytes_and_stands_where_the_character_does(byte_model):
    tokenizer = Tokenizer.load(byte_model)
    lines = LegacyLines(tokenizer, 0, True, continues=True)
    said = lines.take(tokenizer.encode("aé!", add_special=False), [None] * 4)
    assert said.tokens == ["a", "bytes:\\xc3", "bytes:\\xa9", "!"] and said.text_offset == [0, 1, 1, 2]


def test_echo_streams_the_prompt_first(stories):
    choices, _ = joined(stories.complete(prompt=["once", "the"], max_tokens=2, echo=True, stream=True, temperature=0))
    assert choices[0]["text"].startswith("once") and choices[1]["text"].startswith("the")
    whole = stories.complete(prompt=["once", "the"], max_tokens=2, echo=True, temperature=0).json()
    assert [choice["text"] for choice in whole["choices"]] == [choices[0]["text"], choices[1]["text"]]


def test_best_of_gives_the_likeliest(stories):
    fields = {"prompt": PROMPT, "max_tokens": 6, "temperature": 1.5, "seed": 3, "logprobs": 0}
    drawn = stories.complete(**fields, n=6).json()["choices"]
    best = stories.complete(**fields, n=2, best_of=6).json()
    means = sorted((sum(c["logprobs"]["token_logprobs"]) / 6 for c in drawn), reverse=True)
    assert [sum(c["logprobs"]["token_logprobs"]) / 6 for c in best["choices"]] == means[:2]
    assert best["usage"]["completion_tokens"] == 36
    quiet = stories.complete(**fields | {"logprobs": None}, n=2, best_of=6).json()
    assert [c["text"] for c in quiet["choices"]] == [c["text"] for c in best["choices"]]
    assert {c["logprobs"] for c in quiet["choices"]} == {None}


def test_log_probabilities_of_a_prompt(stories):
    (choice,) = stories.complete(prompt=PROMPT, max_tokens=1, prompt_logprobs=1, return_token_ids=True).json()[
        "choices"
    ]
    first, *others = choice["prompt_logprobs"]
    assert first is None
    for token, entry in zip(choice["prompt_token_ids"][1:], others, strict=True):
        assert entry[str(token)]["rank"] >= 1 and entry[str(token)]["logprob"] <= 0


def test_a_seed_repeats_and_no_seed_does_not(stories):
    fields = {"prompt": PROMPT, "max_tokens": 24, "temperature": 2}
    seeded = {stories.complete(**fields, seed=-7).json()["choices"][0]["text"] for _ in range(2)}
    free = {stories.complete(**fields).json()["choices"][0]["text"] for _ in range(4)}
    assert len(seeded) == 1 and len(free) > 1


def test_timings_are_told_when_asked_for(stories):
    fields = {"prompt": ["once there was", "the cat"], "max_tokens": 2}
    assert "timings" not in stories.complete(**fields).json()
    timings = stories.complete(**fields, timings=True).json()["timings"]
    streamed = events(stories.complete(**fields, timings=True, stream=True).text)[-2]["timings"]
    for record in (*timings, *streamed):
        assert record["prefill_chunks"] >= 1 and record["queued_s"] >= 0 and record["preemptions"] == 0
        assert record["cache_miss"] in (None, "cold", "diverged", "partial", "evicted")
    assert len(timings) == len(streamed) == 2


def test_stop_strings_and_tokens_say_which(stories):
    text = stories.complete(prompt=PROMPT, max_tokens=16, temperature=0, stop="little").json()["choices"][0]
    assert text["text"] == ", there was a " and (text["finish_reason"], text["stop_reason"]) == ("stop", "little")
    ids = stories.complete(prompt=PROMPT, max_tokens=4, temperature=0, return_token_ids=True).json()["choices"][0]
    third = ids["token_ids"][2]
    by_id = stories.complete(prompt=PROMPT, max_tokens=4, temperature=0, stop_token_ids=[third]).json()["choices"][0]
    assert (by_id["finish_reason"], by_id["stop_reason"]) == ("stop", third)


def test_separators_of_lines_are_escaped_in_events(byte_model):
    odd = "a\u2028b\u0085c\nd"
    with Api(echo_engine(byte_model, odd)) as api:
        answer = api.complete(prompt="x", max_tokens=20, stream=True)
    assert len(answer.text.splitlines()) == answer.text.count("\n")
    assert joined(answer)[0][0]["text"] == odd
