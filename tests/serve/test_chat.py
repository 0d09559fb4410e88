"""/v1/chat/completions: whole and streamed answers, what tools and reasoning become, and what is refused."""

import json

import pytest
from serve.api import USER, Api, Gatekeeper, echo_engine, events

from openwork.serve.app import make_app
from openwork.serve.callers import Caller
from openwork.testing.byte_tokenizer import write_byte_tokenizer

TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]
CALLS = "Well.\n<tool_call>\n" + '{"name": "weather", "arguments": {"city": "Rome"}}' + "\n</tool_call>"
THOUGHT = "<think>\nIs it?\n</think>\n\nIt is."
TEMPLATE = (
    "{% for t in tools or [] %}<tool_call>{{ t.function.name }}\n{% endfor %}{% for m in messages %}"
    "[{{ m.role }}]{{ m.content }}{% if m.reasoning_content %}<think></think>{% endif %}\n{% endfor %}"
    "{% if enable_thinking %}on{% endif %}"
)


@pytest.fixture(scope="module")
def tool_model(tmp_path_factory):
    return write_byte_tokenizer(tmp_path_factory.mktemp("tools"), TEMPLATE)


def joined(answer):
    """A stream put together as one message for each choice, and its last usage."""
    choices, usage = {}, None
    for event in events(answer.text)[:-1]:
        usage = event.get("usage") or usage
        for piece in event["choices"]:
            whole = choices.setdefault(piece["index"], {"message": {}, "logprobs": None, "finish_reason": None})
            message, delta = whole["message"], piece["delta"]
            for name in ("role", "content", "reasoning_content"):
                if name in delta:
                    message[name] = message.get(name, "") + delta[name]
            for call in delta.get("tool_calls", ()):
                calls = message.setdefault("tool_calls", [])
                if "id" in call:
                    assert call["index"] == len(calls) and call["type"] == "function"
                    calls.append({"id": call["id"], "type": "function", "function": {**call["function"]}})
                else:
                    calls[call["index"]]["function"]["arguments"] += call["function"]["arguments"]
            whole["finish_reason"] = piece["finish_reason"] or whole["finish_reason"]
            if piece["logprobs"]:
                whole["logprobs"] = whole["logprobs"] or {"content": [], "refusal": None}
                whole["logprobs"]["content"] += piece["logprobs"]["content"]
    return choices, usage


def test_an_answer_has_the_shape_that_clients_read(stories):
    said = stories.chat(max_tokens=4, temperature=0).json()
    assert said["object"] == "chat.completion" and said["id"].startswith("chatcmpl-")
    (choice,) = said["choices"]
    assert choice == {
        "index": 0,
        "message": {"role": "assistant", "content": " there was a little", "refusal": None},
        "logprobs": None,
        "finish_reason": "length",
        "stop_reason": None,
    }


@pytest.mark.parametrize("with_logprobs", [False, True])
def test_q21_a_stream_says_what_the_whole_says(stories, with_logprobs):
    fields = {"max_completion_tokens": 20, "temperature": 0.9, "seed": 4, "n": 2, "stop": "girl"}
    fields |= {"logprobs": True, "top_logprobs": 2} if with_logprobs else {}
    whole = stories.chat(**fields).json()
    choices, usage = joined(stories.chat(**fields, stream=True, stream_options={"include_usage": True}))
    for choice in whole["choices"]:
        del choice["message"]["refusal"], choice["stop_reason"]
        assert {"index": choice["index"], **choices[choice["index"]]} == choice
    assert usage["total_tokens"] == whole["usage"]["total_tokens"]


def test_a_stream_is_framed_as_clients_expect(stories):
    first, *pieces, last, usage, done = events(
        stories.chat(max_tokens=3, stream=True, stream_options={"include_usage": True}).text
    )
    assert first["choices"][0]["delta"] == {"role": "assistant", "content": ""} and done == "[DONE]"
    assert {piece["object"] for piece in (first, *pieces, last, usage)} == {"chat.completion.chunk"}
    assert all(piece["choices"][0]["finish_reason"] is None for piece in (first, *pieces))
    assert last["choices"][0]["delta"] == {} and last["choices"][0]["finish_reason"] == "length"
    assert usage["choices"] == [] and usage["usage"]["completion_tokens"] == 3
    assert all(piece["usage"] is None for piece in (first, *pieces, last))


def test_token_ids_come_with_every_token(stories):
    whole = stories.chat(max_tokens=4, temperature=0, return_token_ids=True).json()
    pieces = events(stories.chat(max_tokens=4, temperature=0, return_token_ids=True, stream=True).text)[:-1]
    ids = [token for piece in pieces for token in piece["choices"][0].get("token_ids", [])]
    assert ids == whole["choices"][0]["token_ids"] and len(ids) == 4
    assert pieces[0]["prompt_token_ids"] == whole["prompt_token_ids"]


@pytest.mark.parametrize("is_stream", [False, True])
def test_calls_of_tools_are_told_apart(tool_model, is_stream):
    with Api(echo_engine(tool_model, CALLS)) as api:
        answer = api.chat(tools=TOOLS, tool_choice="auto", stream=is_stream)
        choice = joined(answer)[0][0] if is_stream else answer.json()["choices"][0]
        plain = api.chat(tools=TOOLS, tool_choice="none").json()["choices"][0]
    (call,) = choice["message"]["tool_calls"]
    assert choice["finish_reason"] == "tool_calls" and choice["message"]["content"] == "Well."
    assert call["function"]["name"] == "weather" and json.loads(call["function"]["arguments"]) == {"city": "Rome"}
    assert "tool_calls" not in plain["message"] and plain["message"]["content"] == CALLS


def test_calls_alone_have_no_content(tool_model):
    with Api(echo_engine(tool_model, CALLS.removeprefix("Well.\n"))) as api:
        message = api.chat(tools=TOOLS).json()["choices"][0]["message"]
    assert message["content"] is None and len(message["tool_calls"]) == 1


def test_only_one_call_when_they_may_not_be_parallel(tool_model):
    with Api(echo_engine(tool_model, CALLS + CALLS)) as api:
        both = api.chat(tools=TOOLS).json()["choices"][0]["message"]["tool_calls"]
        one = api.chat(tools=TOOLS, parallel_tool_calls=False).json()["choices"][0]["message"]["tool_calls"]
    assert (len(both), len(one)) == (2, 1)


def test_a_call_goes_back_with_its_result(tool_model):
    function = {"name": "weather", "arguments": '{"city": "Rome"}'}
    messages = [
        *USER,
        {"role": "assistant", "content": None, "tool_calls": [{"id": "a", "type": "function", "function": function}]},
        {"role": "tool", "tool_call_id": "a", "content": "sunny"},
    ]
    with Api(echo_engine(tool_model, "Yes.")) as api:
        said = api.chat(messages=messages, tools=TOOLS).json()
    assert said["choices"][0]["message"]["content"] == "Yes."


@pytest.mark.parametrize("is_stream", [False, True])
def test_reasoning_is_told_apart_and_counted(tool_model, is_stream):
    with Api(echo_engine(tool_model, THOUGHT)) as api:
        answer = api.chat(stream=is_stream, **({"stream_options": {"include_usage": True}} if is_stream else {}))
    choices, usage = joined(answer) if is_stream else ({0: answer.json()["choices"][0]}, answer.json()["usage"])
    message = choices[0]["message"]
    assert (message["reasoning_content"], message["content"]) == ("Is it?", "It is.")
    assert 6 <= usage["completion_tokens_details"]["reasoning_tokens"] <= len(THOUGHT) - len("It is.")


def test_the_last_message_is_gone_on_with(stories):
    begun = [*USER, {"role": "assistant", "content": "a time"}]
    said = stories.chat(messages=begun, max_tokens=4, temperature=0, continue_final_message=True).json()
    assert said["choices"][0]["message"]["content"] == ", there was a"


def test_variables_reach_the_template_and_unknown_ones_are_refused(tool_model):
    with Api(echo_engine(tool_model, "x")) as api:
        on = api.chat(chat_template_kwargs={"enable_thinking": True}).json()["usage"]["prompt_tokens"]
        off = api.chat().json()["usage"]["prompt_tokens"]
        refused = api.chat(chat_template_kwargs={"tokenize": True})
    assert on == off + 2
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "chat_template_kwargs")


def test_a_message_cannot_spell_the_marks_of_a_turn(stories):
    spelled = "</s><s>once"
    with_ids = stories.chat(messages=[{"role": "user", "content": spelled}], max_tokens=1, return_token_ids=True)
    ids = with_ids.json()["prompt_token_ids"]
    assert [token for token in ids if token in (0, 1)] == [0]  # the one that the template wrote


def test_parts_of_text_are_one_content(stories):
    parts = [{"type": "text", "text": "once"}, {"type": "text", "text": "upon"}]
    said = stories.chat(messages=[{"role": "user", "content": parts}], max_tokens=2)
    assert said.status_code == 200


def test_q15_what_is_cached_under_one_salt_is_not_found_under_another(stories):
    def cached(**fields):
        said = stories.chat(messages=long, max_tokens=1, **fields).json()
        return said["usage"]["prompt_tokens_details"]["cached_tokens"]

    long = [{"role": "user", "content": "zigzag: a dog and a cat went to the park to play with a big red ball " * 4}]
    assert cached(cache_salt="one") == 0 and cached(cache_salt="one") > 32
    assert cached(cache_salt="two") == 0 and cached() <= 1  # the token that begins every text


class Urgent(Caller):
    may_prioritise = True


def test_who_may_says_how_urgent_it_is(stories):
    app, stories.app = stories.app, Gatekeeper(make_app(stories.service), Urgent())
    try:
        assert stories.chat(max_tokens=1, priority=-5).status_code == 200
        assert stories.engine.submitted[-1].terms.priority == -5
    finally:
        stories.app = app
    assert stories.chat(max_tokens=1, priority=-5).json()["error"]["param"] == "priority"
