"""/v1/responses: items, typed events, what is kept and for whom."""

import json

import pytest
from serve.api import USER, Api, Client, Gatekeeper, echo_engine, events
from serve.test_chat import CALLS, TEMPLATE, THOUGHT, TOOLS

from openwork.serve.app import make_app
from openwork.serve.bounds import Bounds
from openwork.serve.callers import Caller
from openwork.serve.errors import ApiError
from openwork.serve.kept import Shelf
from openwork.testing.byte_tokenizer import write_byte_tokenizer

ASKED = {"input": "once upon", "temperature": 0, "max_output_tokens": 8}
FLAT = [{"type": "function", **TOOLS[0]["function"]}]


@pytest.fixture(scope="module")
def tool_model(tmp_path_factory):
    return write_byte_tokenizer(tmp_path_factory.mktemp("tools"), TEMPLATE)


def ask(api, **fields):
    return api.post("/v1/responses", {**ASKED, **fields})


def rebuilt(told):
    """The items that the events of a stream describe, from their deltas alone."""
    items = []
    for event in told:
        kind = event["type"]
        if kind == "response.output_item.added":
            assert event["output_index"] == len(items)
            items.append({**event["item"], "status": "completed"})
        elif kind == "response.content_part.added":
            items[event["output_index"]]["content"].append({**event["part"]})
        elif kind in ("response.output_text.delta", "response.reasoning_text.delta"):
            items[event["output_index"]]["content"][event["content_index"]]["text"] += event["delta"]
        elif kind == "response.function_call_arguments.delta":
            items[event["output_index"]]["arguments"] += event["delta"]
    return items


def without_ids(items):
    return [{name: value for name, value in item.items() if name not in ("id", "call_id")} for item in items]


def test_a_response_has_the_shape_that_clients_read(stories):
    said = ask(stories).json()
    assert said["object"] == "response" and said["id"].startswith("resp_") and said["status"] == "incomplete"
    assert said["incomplete_details"] == {"reason": "max_output_tokens"} and said["error"] is None
    (message,) = said["output"]
    assert message["type"] == "message" and message["role"] == "assistant" and message["status"] == "incomplete"
    text = " there was a little girl named lily."
    assert message["content"] == [{"type": "output_text", "text": text, "annotations": [], "logprobs": []}]
    assert said["usage"]["output_tokens"] == 8 and said["usage"]["total_tokens"] == 13


@pytest.mark.parametrize("says", [CALLS + CALLS, THOUGHT, THOUGHT + CALLS, "plain"])
def test_q21_events_make_the_items_of_the_whole(tool_model, says):
    with Api(echo_engine(tool_model, says)) as api:
        whole = ask(api, tools=FLAT, max_output_tokens=None).json()
        told = events(ask(api, tools=FLAT, max_output_tokens=None, stream=True).text)
    assert [event["sequence_number"] for event in told] == list(range(len(told)))
    assert [event["type"] for event in told[:2]] == ["response.created", "response.in_progress"]
    final = told[-1]["response"]
    assert told[-1]["type"] == "response.completed" and final["status"] == "completed"
    assert rebuilt(told) == final["output"] == [e["item"] for e in told if e["type"] == "response.output_item.done"]
    assert without_ids(final["output"]) == without_ids(whole["output"])
    for name in ("input_tokens", "output_tokens", "output_tokens_details", "total_tokens"):
        assert final["usage"][name] == whole["usage"][name]


def test_calls_and_reasoning_are_items(tool_model):
    with Api(echo_engine(tool_model, THOUGHT + CALLS)) as api:
        reasoning, message, call = ask(api, tools=FLAT, max_output_tokens=None).json()["output"]
    assert reasoning["content"] == [{"type": "reasoning_text", "text": "Is it?"}]
    assert message["content"][0]["text"] == "It is.Well."
    assert call["name"] == "weather" and json.loads(call["arguments"]) == {"city": "Rome"}


def test_items_that_came_out_go_in_again(tool_model):
    with Api(echo_engine(tool_model, THOUGHT + CALLS)) as api:
        output = ask(api, tools=FLAT, max_output_tokens=None).json()["output"]
        result = {"type": "function_call_output", "call_id": output[-1]["call_id"], "output": "sunny"}
        again = ask(api, tools=FLAT, max_output_tokens=None, input=[{"role": "user", "content": "x"}, *output, result])
    assert again.status_code == 200, again.text


def test_a_conversation_goes_on_from_what_is_kept(stories):
    first = ask(stories).json()
    second = ask(stories, input="and then", previous_response_id=first["id"], return_token_ids=None)
    assert second.status_code == 400 and second.json()["error"]["param"] == "return_token_ids"
    second = ask(stories, input="and then", previous_response_id=first["id"]).json()
    text = first["output"][0]["content"][0]["text"]
    messages = [*USER, {"role": "assistant", "content": text}, {"role": "user", "content": "and then"}]
    assert second["usage"]["input_tokens"] == stories.post("/tokenize", {"messages": messages}).json()["count"]
    assert stories.get(f"/v1/responses/{first['id']}").json() == first
    assert stories.run(stories.send(f"/v1/responses/{first['id']}", method="DELETE")).json()["deleted"] is True
    assert stories.get(f"/v1/responses/{first['id']}").status_code == 404
    gone = ask(stories, previous_response_id=first["id"]).json()["error"]
    assert (gone["param"], gone["code"]) == ("previous_response_id", "previous_response_not_found")


def test_what_is_not_stored_cannot_be_read(stories):
    said = ask(stories, store=False).json()
    assert said["store"] is False and stories.get(f"/v1/responses/{said['id']}").status_code == 404


class Ann(Caller):
    tenant = "ann"


def test_nobody_reads_or_cancels_what_another_tenant_was_told(stories):
    said = ask(stories).json()
    app, stories.app = stories.app, Gatekeeper(make_app(stories.service), Ann())
    try:
        assert stories.get(f"/v1/responses/{said['id']}").status_code == 404
        assert stories.post(f"/v1/responses/{said['id']}/cancel", b"").status_code == 404
        assert ask(stories, previous_response_id=said["id"]).status_code == 400
    finally:
        stories.app = app


def test_a_stream_is_cancelled_from_elsewhere(stories):
    async def scene():
        body = {**ASKED, "max_output_tokens": 400, "ignore_eos": True, "stream": True}
        async with Client(stories, "/v1/responses", body) as client:
            await client.until(b"response.output_text.delta")
            id = events(client.sent.decode())[0]["response"]["id"]
            cancelled = await stories.send(f"/v1/responses/{id}/cancel", b"")
            await client.until(b"event: response.incomplete")
            await client.task
        await stories.rest()
        again = await stories.send(f"/v1/responses/{id}/cancel", b"")
        return cancelled, events(client.sent.decode())[-1]["response"], again

    cancelled, final, again = stories.run(scene())
    assert cancelled.json()["status"] == final["status"] == "cancelled"
    assert again.status_code == 400 and 0 < final["usage"]["output_tokens"] < 400


def test_a_response_whose_client_left_is_under_way_no_longer(stories):
    async def scene():
        body = {**ASKED, "max_output_tokens": 400, "ignore_eos": True, "stream": True}
        async with Client(stories, "/v1/responses", body) as client:
            await client.until(b"response.output_text.delta")
            client.leave()
            await client.task
        id = events(client.sent.decode())[0]["response"]["id"]
        return await stories.send(f"/v1/responses/{id}/cancel", b"")

    assert stories.run(scene()).status_code == 404


def test_the_progress_of_a_long_prompt_is_an_event(byte_model):
    with Api(echo_engine(byte_model, "x")) as api:
        told = events(ask(api, input="a" * 2000, stream=True).text)
    progress = [(e["computed"], e["known"]) for e in told if e["type"] == "openwork.prefill"]
    assert progress == [(512, 2007), (1024, 2007), (1536, 2007)]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": []}, "input"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "input[0].type"),
        ({"input": [{"role": "user", "content": [{"type": "input_image"}]}]}, "input[0].content[0].type"),
        ({"input": [{"role": "tool", "content": "x"}]}, "input[0].role"),
        ({"input": "a" * 10**6}, "input"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"max_output_tokens": 600}, "input"),
        ({"background": True}, "background"),
        ({"text": {"format": {"type": "xml"}}}, "text.format.type"),
        ({"text": {"format": {"type": "json_schema", "name": "a", "schema": {"not": {}}}}}, "text.format.schema"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"include": ["reasoning.encrypted_content"]}, "include"),
        ({"conversation": "c"}, "conversation"),
        ({"truncation": "auto"}, "truncation"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"reasoning": {"effort": "high"}}, "reasoning_effort"),
        ({"stream_options": {}}, "stream_options"),
        ({"nonsense": 1}, "nonsense"),
    ],
)
def test_what_is_wrong_is_named(stories, fields, param):
    refused = ask(stories, **fields)
    assert refused.status_code == 400 and refused.json()["error"]["param"] == param, refused.text


def test_the_shelf_is_bounded_in_number_and_bytes():
    shelf = Shelf(Bounds(stored_responses=2, stored_bytes=1000))
    for id in "abc":
        shelf.keep("t", id, b"x" * 100, ())
    with pytest.raises(ApiError):
        shelf.find("t", "a")
    shelf.find("t", "b")
    shelf.keep("t", "d", b"x" * 850, ())  # c was not looked at since
    assert shelf.find("t", "b") and shelf.find("t", "d")
    shelf.keep("t", "e", b"x" * 1001, ())
    assert shelf.find("t", "d")
    shelf.delete("t", "d")
    shelf.keep("t", "f", b"x" * 850, ())
    assert shelf.find("t", "b")
