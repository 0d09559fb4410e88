"""Formats and calls that must be: asked for over HTTP, and kept by models of noise, which would not do so unasked."""

import json

import jsonschema
import pytest
from serve.api import USER, Api, events, stories_engine
from serve.test_chat import joined

from openwork.testing.byte_tokenizer import SPECIALS, write_byte_tokenizer
from openwork.testing.checkpoint import write_checkpoint

SCHEMA = {
    "type": "object",
    "properties": {"city": {"enum": ["Oslo", "Rome"]}, "days": {"type": "integer", "minimum": 0, "maximum": 9}},
    "required": ["city"],
    "additionalProperties": False,
}
FORMAT = {"type": "json_schema", "json_schema": {"name": "place", "schema": SCHEMA, "strict": True}}
RESPONSES_FORMAT = {"type": "json_schema", "name": "place", "schema": SCHEMA}
UNSUPPORTED = {"type": "object", "properties": {"a": {"not": {}}}}
SHOWN = {
    "hermes": "<tool_call>",
    "mistral": "[TOOL_CALLS]",
    "llama": '{"name": "x", "parameters": {}}',
    "pythonic": "[func_name1(x=1)]",
}
TEMPLATE = (
    "{%% if tools %%}%s{%% endif %%}{%% for m in messages %%}[{{ m.role }}]{{ m.content }}"
    "{%% if m.reasoning_content %%}%s{%% endif %%}\n{%% endfor %%}{%% if think %%}<think>\n{%% endif %%}"
)


def tool(name="weather", parameters=SCHEMA, **more):
    return {"type": "function", "function": {"name": name, "parameters": parameters, **more}}


def named(name):
    return {"type": "function", "function": {"name": name}}


TOOLS = [tool(), tool("time", None)]


def write_model(directory, form, span="</think>", special=()):
    """A model of noise that writes calls in a form, some of whose marks may be special tokens."""
    size = 259 + len(special)
    write_checkpoint(directory, vocab_size=size, max_position_embeddings=1024)
    write_byte_tokenizer(directory, TEMPLATE % (SHOWN[form], span))
    file = directory / "tokenizer.json"
    tokenizer = json.loads(file.read_text())
    entry = tokenizer["added_tokens"][len(SPECIALS) - 1]
    for place, mark in enumerate(special):
        tokenizer["added_tokens"].append(entry | {"id": 259 + place, "content": mark})
        tokenizer["model"]["vocab"][mark] = 259 + place
    file.write_text(json.dumps(tokenizer))
    return directory


@pytest.fixture(scope="module")
def api(tmp_path_factory):
    """Applications over models of noise, made when they are first asked for."""
    made = {}

    def find(form, span="</think>", special=()):
        key = form, span, special
        if key not in made:
            made[key] = Api(stories_engine(write_model(tmp_path_factory.mktemp(form), form, span, special)))
        return made[key]

    yield find
    for each in made.values():
        each.close()


def liking(text, bias=30):
    """What noise likes to write."""
    return {str(len(SPECIALS) + byte): bias for byte in text}


def check_calls(choice):
    calls = choice["message"]["tool_calls"]
    for call in calls:
        arguments = json.loads(call["function"]["arguments"])
        if call["function"]["name"] == "weather":
            jsonschema.validate(arguments, SCHEMA)
        else:
            assert call["function"]["name"] == "time" and arguments == {}
    return [call["function"]["name"] for call in calls]


@pytest.mark.parametrize("form", SHOWN)
def test_a_call_that_must_be_made_is_made(api, form):
    for name in ("weather", "time"):
        asked = {"tools": TOOLS, "tool_choice": "required", "parallel_tool_calls": False, "max_tokens": 400}
        (choice,) = api(form, "").chat(**asked, logit_bias=liking(name[:1].encode())).json()["choices"]
        assert choice["finish_reason"] == "tool_calls" and choice["message"]["content"] is None
        assert check_calls(choice) == [name]


@pytest.mark.parametrize("form", SHOWN)
def test_a_named_tool_is_called_once_streamed_or_not(api, form):
    asked = {"tools": TOOLS, "tool_choice": named("weather"), "seed": 5, "max_tokens": 400}
    whole = api(form, "").chat(**asked).json()["choices"][0]
    assert check_calls(whole) == ["weather"]
    streamed = joined(api(form, "").chat(**asked, stream=True))[0][0]
    call, same = whole["message"]["tool_calls"][0], streamed["message"]["tool_calls"][0]
    assert call["function"] == same["function"] and streamed["finish_reason"] == "tool_calls"


def test_several_calls_may_be_made(api):
    asked = {"tools": TOOLS, "tool_choice": "required", "max_tokens": 300, "logit_bias": liking(b"t,}", 30)}
    choice = api("mistral", "").chat(**asked).json()["choices"][0]
    assert choice["finish_reason"] == "length" and len(choice["message"]["tool_calls"]) > 3  # noise does not stop


def test_a_call_that_is_cut_says_so(api):
    choice = api("hermes", "").chat(tools=TOOLS, tool_choice="required", max_tokens=30).json()["choices"][0]
    assert choice["finish_reason"] == "length"


@pytest.mark.parametrize(
    ("form", "marks"), [("hermes", ("<tool_call>", "</tool_call>")), ("mistral", ("[TOOL_CALLS]",))]
)
def test_a_mark_that_is_a_special_token_is_written_as_one(api, form, marks):
    model = api(form, "", marks)
    answer = model.chat(tools=TOOLS, tool_choice=named("weather"), max_tokens=400, return_token_ids=True).json()
    assert check_calls(answer["choices"][0]) == ["weather"] and answer["prompt_token_ids"][-1] == 259


@pytest.mark.parametrize("is_stream", [False, True])
@pytest.mark.parametrize(
    ("form", "marks"),
    [("hermes", ("<tool_call>", "</tool_call>")), ("hermes", ("<tool_call>",)), ("mistral", ("[TOOL_CALLS]",))],
)
def test_a_strict_tool_whose_mark_is_a_special_token_is_called_right_or_not_at_all(api, form, marks, is_stream):
    model = api(form, "", marks)
    asked = {"tools": [tool(strict=True)], "max_tokens": 300, "parallel_tool_calls": False}

    def answer(**more):
        said = model.chat(**asked, **more, stream=is_stream)
        assert said.status_code == 200, said.text
        return joined(said)[0][0] if is_stream else said.json()["choices"][0]

    free = answer(logit_bias=liking(b"abc"))
    assert not free["message"].get("tool_calls") and free["message"]["content"]
    assert check_calls(answer(logit_bias={"259": 100, "258": 50})) == ["weather"]
    called = answer(logit_bias={"259": 100, "258": 50}, response_format=FORMAT)
    assert check_calls(called) == ["weather"]
    said = answer(logit_bias=liking(b"{"), response_format=FORMAT)
    jsonschema.validate(json.loads(said["message"]["content"]), SCHEMA)


@pytest.mark.parametrize("form", ["hermes", "pythonic"])
def test_a_strict_tool_is_called_right_or_not_at_all(api, form):
    asked = {"tools": [tool(strict=True)], "max_tokens": 300, "parallel_tool_calls": False}
    free = api(form, "").chat(**asked, logit_bias=liking(b"abc")).json()["choices"][0]
    assert "tool_calls" not in free["message"] and free["message"]["content"]
    if form == "pythonic":
        called = api(form, "").chat(**asked, logit_bias=liking(b"[")).json()["choices"][0]
        assert check_calls(called) == ["weather"]


def test_a_format_beside_tools_is_an_answer_or_a_call(api):
    asked = {"tools": [tool(strict=True)], "response_format": FORMAT, "parallel_tool_calls": False, "max_tokens": 400}
    called = api("hermes", "").chat(**asked, logit_bias=liking(b"<")).json()["choices"][0]
    assert called["finish_reason"] == "tool_calls" and check_calls(called)
    said = api("hermes", "").chat(**asked, logit_bias=liking(b"{")).json()["choices"][0]
    assert said["finish_reason"] == "stop"
    jsonschema.validate(json.loads(said["message"]["content"]), SCHEMA)


@pytest.mark.parametrize("think", [True, False])
def test_reasoning_comes_first_and_is_not_held_to_the_format(api, think):
    model = api("hermes")
    for seed in range(3):
        asked = {"chat_template_kwargs": {"think": think}, "seed": seed, "max_tokens": 900}
        bias = liking(b"</think>", 4)
        for more in ({"response_format": FORMAT}, {"tools": TOOLS, "tool_choice": named("weather")}):
            answer = model.chat(**asked, **more, logit_bias=bias)
            assert answer.status_code == 200, answer.text
            choice = answer.json()["choices"][0]
            said = choice["message"].get("reasoning_content")
            assert (said is not None) or not think
            if choice["finish_reason"] == "stop":
                jsonschema.validate(json.loads(choice["message"]["content"]), SCHEMA)
            elif choice["finish_reason"] == "tool_calls":
                check_calls(choice)


def test_reasoning_whose_marks_no_grammar_has_is_refused_where_it_cannot_be_left_out(api):
    model = api("hermes", special=("<think>", "</think>"))
    refused = model.chat(response_format=FORMAT, chat_template_kwargs={"think": True})
    assert refused.status_code == 400 and refused.json()["error"]["param"] == "response_format.json_schema.schema"
    answer = model.chat(response_format=FORMAT, max_tokens=400).json()["choices"][0]
    jsonschema.validate(json.loads(answer["message"]["content"]), SCHEMA)


def test_formats_of_responses(api):
    model = api("hermes", "")
    answer = model.post("/v1/responses", input="hi", text={"format": RESPONSES_FORMAT}).json()
    jsonschema.validate(json.loads(answer["output"][0]["content"][0]["text"]), SCHEMA)
    assert answer["text"]["format"] == {**RESPONSES_FORMAT, "description": None, "strict": None}
    tools = [{"type": "function", "name": "weather", "parameters": SCHEMA}]
    for choice in ("required", {"type": "function", "name": "weather"}):
        called = model.post("/v1/responses", input="hi", tools=tools, tool_choice=choice, parallel_tool_calls=False)
        (item,) = called.json()["output"]
        assert item["type"] == "function_call" and item["name"] == "weather"
        jsonschema.validate(json.loads(item["arguments"]), SCHEMA)
    streamed = model.post("/v1/responses", input="hi", tools=tools, tool_choice=choice, stream=True)
    assert events(streamed.text)[-1]["type"] == "response.completed"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tools": TOOLS, "tool_choice": named("other")}, "tool_choice"),
        ({"tools": [tool(), tool("b", UNSUPPORTED)], "tool_choice": "required"}, "tools[1].function.parameters"),
        ({"tools": [tool(), tool("b", UNSUPPORTED, strict=True)]}, "tools[1].function.parameters"),
        ({"tools": [tool("b", {"type": "string"})], "tool_choice": "required"}, "tools[0].function.parameters"),
        ({"tools": [tool("b", {"enum": [0] * 2000})], "tool_choice": "required"}, "tools[0].function.parameters"),
        ({"tools": TOOLS, "tool_choice": "required", "response_format": FORMAT}, "response_format.json_schema.schema"),
        ({"tools": TOOLS, "guided_regex": "a"}, "guided_regex"),
        ({"guided_json": UNSUPPORTED}, "guided_json"),
        ({"guided_regex": "("}, "guided_regex"),
    ],
)
def test_what_cannot_be_is_refused_and_named(api, fields, param):
    answer = api("hermes", "").chat(**fields)
    error = answer.json()["error"]
    assert answer.status_code == 400 and error["param"] == param, error
    if "UNSUPPORTED" in str(fields):
        assert '"not"' in error["message"]


def test_tools_that_are_neither_strict_nor_forced_may_have_any_schema(api):
    assert api("hermes", "").chat(tools=[tool("b", UNSUPPORTED)], max_tokens=3).status_code == 200


@pytest.mark.parametrize(
    ("fields", "right"),
    [
        ({"guided_choice": ["cat", "dog"]}, {"cat", "dog"}),
        ({"structured_outputs": {"regex": "[ab]c"}}, {"ac", "bc"}),
        ({"guided_grammar": 'start: "x" ("y" | "z")'}, {"xy", "xz"}),
    ],
)
def test_completions_are_constrained_too(stories, fields, right):
    for answer in (stories.complete(prompt=["a", "b"], n=2, **fields), stories.chat(n=4, **fields)):
        texts = [choice.get("text") or choice["message"]["content"] for choice in answer.json()["choices"]]
        assert len(texts) == 4 and set(texts) <= right
    streamed = events(stories.complete(prompt="a", stream=True, **fields).text)
    assert "".join(event["choices"][0]["text"] for event in streamed[:-1]) in right


def test_a_json_object_is_one_even_when_cut(stories):
    answer = stories.chat(messages=USER, response_format={"type": "json_object"}, max_tokens=3).json()["choices"][0]
    assert answer["finish_reason"] == "length" and answer["message"]["content"].startswith("{")
