"""G: constraints, tools and template variables."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import jsonschema
from incidents.case import CHAT, COMPLETIONS, Table, chat, completion
from incidents.serving import as_bytes, eventually, is_alive, request

table = Table("Constraints and tools")


def tool(**function) -> dict:
    return {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}, **function}}


def deep(levels: int) -> dict:
    inner: dict = {}
    for _ in range(levels):
        inner = {"properties": inner}
    return inner


def formatted(schema, **fields) -> dict:
    """A chat whose answer has a schema."""
    named = {"name": "answer", "schema": schema}
    return chat(response_format={"type": "json_schema", "json_schema": named}, **{"max_tokens": 200, **fields})


def content(answer) -> str:
    return answer.json["choices"][0]["message"]["content"]


def is_json(answer) -> None:
    """A whole document, or the beginning of one that says that it is cut."""
    choice = answer.json["choices"][0]
    if choice["finish_reason"] == "stop":
        json.loads(choice["message"]["content"])
    else:
        assert choice["finish_reason"] == "length"


# -- schemas, patterns and grammars

SCHEMA = "response_format.json_schema.schema"
for shown, schema in {'"x"': "x", "null": None, "[]": [], "5": 5}.items():
    table.refused("G01", f"the schema {shown}", formatted(schema), 400, SCHEMA)
table.refused("G01", "no schema", chat(response_format={"type": "json_schema", "json_schema": {"name": "a"}}), 400)
for shown, schema in {"true": True, "{}": {}}.items():
    table.accepted("G01", f"the schema {shown}: any JSON", formatted(schema), is_json)
for shown, keyword in {"not": {}, "if": {}, "uniqueItems": True, "contains": {}, "x-guidance": {}}.items():
    table.refused("G02", f"a keyword that is not supported: {shown}", formatted({shown: keyword}), 400, SCHEMA)
for pattern in ("(", "[", "*", "(?<=a)b", r"\1", "(?P<", "", "(" * 4000):
    shown = pattern if len(pattern) < 20 else f"{pattern[:3]}... of {len(pattern)} characters"
    body = completion(guided_regex=pattern)
    table.refused("G03", f"the regex {shown!r}", body, 400, "guided_regex", path=COMPLETIONS)
body = completion(guided_regex="a{99999}{99999}")
table.refused("G03", "a regex that is too large when it is used", body, 400, None, "grammar_dead_end", COMPLETIONS)
for shown, grammar in {
    "root ::= root": "root ::= root",
    "root ::= root root |": "root ::= root root |",
    "start: start": "start: start",
    "two rules in a circle": "start: a\na: b\nb: a",
    "a rule that is not there": "start: nothing",
    "no rule named start": 'root: "a"',
    "30 000 brackets": "start: " + "(" * 30_000 + '"a"' + ")" * 30_000,
}.items():
    body = chat(structured_outputs={"grammar": grammar})
    table.refused("G05", f"the grammar {shown}", body, 400, "structured_outputs.grammar")
for shown, grammar in {
    'root ::= " without an end': 'root ::= "',
    'start: " without an end': 'start: "',
    'start: "\\x"': 'start: "\\x"',
    "NUL in a text": 'start: "a\0b"',
    "a special token": "start: </s>",
}.items():
    table.refused("G07", f"the grammar {shown}", chat(guided_grammar=grammar), 400, "guided_grammar")
DOUBLING = {  # a kilobyte that asks for two to the thirtieth
    "$ref": "#/$defs/d0",
    "$defs": {f"d{i}": {"allOf": [{"$ref": f"#/$defs/d{i + 1}"}] * 2} for i in range(30)}
    | {"d30": {"type": "string", "pattern": ".*a.*"}},
}
for shown, schema in {
    "40 deep": deep(40),
    "10^5 properties": {"properties": {f"p{i}": {} for i in range(10**5)}},
    "an enum of 10^5": {"enum": list(range(10**5))},
    "an enum of one string of 1 MiB": {"enum": ["x" * (1 << 20)]},
    "2^30 parts in a kilobyte": DOUBLING,
    "of itself": {"$ref": "#"},
    "of another server": {"$ref": "http://127.0.0.1:1/schema"},
}.items():
    table.refused("G09", f"a schema {shown}", lambda given=schema: formatted(given), 400, SCHEMA)
for shown, schema in {
    "enum: []": {"enum": []},
    "allOf: [string, number]": {"allOf": [{"type": "string"}, {"type": "number"}]},
    "not: {}": {"not": {}},
    "false": False,
    "minimum above maximum": {"type": "integer", "minimum": 3, "maximum": 2},
}.items():
    table.refused("G11", f"a schema that nothing satisfies, {shown}", formatted(schema), 400, SCHEMA)


@table.case("G12", "a schema of every kind of value, with n 4, streamed and not", "valid documents, the same ones")
def valid(house):
    schema = {
        "type": "object",
        "properties": {
            "name": {"type": "string", "maxLength": 12},
            "kind": {"enum": ["cat", "dog", None]},
            "age": {"type": "integer", "minimum": 0, "maximum": 30},
            "tags": {"type": "array", "items": {"type": "string", "maxLength": 5}, "maxItems": 2},
        },
        "required": ["name", "kind", "age", "tags"],
        "additionalProperties": False,
    }
    body = formatted(schema, n=4, temperature=1, seed=5, max_tokens=300)
    answer = house.post(CHAT, body)
    texts = [choice["message"]["content"] for choice in answer.json["choices"]]
    whole = [text for text, each in zip(texts, answer.json["choices"], strict=True) if each["finish_reason"] == "stop"]
    assert whole
    for text in whole:
        jsonschema.validate(json.loads(text), schema)
    streamed = [""] * 4
    with house.stream(CHAT, body | {"stream": True}) as stream:
        for event in stream:
            for piece in () if event == "[DONE]" else event["choices"]:
                streamed[piece["index"]] += piece["delta"].get("content") or ""
    assert streamed == texts


def many(house, count):
    """So many schemas, each new, eight at a time; the memory of all processes afterwards."""
    many.turn = getattr(many, "turn", 0) + 1

    def ask(number):
        schema = {"type": "object", "properties": {f"turn {many.turn}, field {number}": {"type": "string"}}}
        assert house.post(CHAT, formatted(schema, max_tokens=2)).status == 200

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(ask, range(count)))
    return house.resident_bytes()


@table.each("G13", "memory does not grow with it", {"10 000 different schemas in a row": 2500}, needs_long=True)
@table.each("G13", "memory does not grow with it", {"160 different schemas in a row": 40})
def flat(house, count):
    many(house, count)
    sizes = [many(house, count) for _ in range(3)]
    assert min(sizes[1:]) - sizes[0] < (48 << 20), sizes


@table.case("G17", "a stop string that occurs inside the JSON", "the text ends there, and says by which")
def stopped(house):
    schema = {"type": "object", "properties": {"a": {"const": "one two three"}}, "required": ["a"]}
    answer = house.post(CHAT, formatted(schema, stop=["two"]))
    choice = answer.json["choices"][0]
    assert choice["finish_reason"] == "stop" and choice["stop_reason"] == "two"
    assert choice["message"]["content"].endswith("one ")


@table.case(
    "G16", "a client who leaves while its schema is tried, and one who comes then", "nobody waits for the other"
)
def left(house):
    known = formatted({"type": "object"}, max_tokens=2)
    assert house.post(CHAT, known).status == 200
    with house.dial() as client:
        client.sendall(request("POST", CHAT, body=as_bytes(formatted(DOUBLING | {"title": "left"}))))
        time.sleep(0.05)
        assert house.post(CHAT, known).status == 200
    assert house.post(CHAT, formatted({"type": "object", "title": "behind"}, max_tokens=2)).status == 200


for field in ("guided_decoding_backend", "guided_whitespace_pattern", "structural_tag"):
    table.refused("G21", f"{field} in a request", chat(**{field: "x"}), 400, field, "unsupported_parameter")
table.refused("G21", "a backend beside a schema", chat(structured_outputs={"json": {}, "backend": "x"}), 400)


@table.case("C21", "the helper that tries constraints killed in the middle of one", "another takes its place")
def helper_killed(house):
    found = []
    asking = threading.Thread(target=lambda: found.append(house.post(CHAT, formatted(DOUBLING | {"title": "again"}))))
    asking.start()
    eventually(house.helpers, "a helper")
    time.sleep(0.1)
    for pid in house.helpers():
        os.kill(pid, signal.SIGKILL)
        eventually(lambda pid=pid: not is_alive(pid), "it gone")
    asking.join(60)
    assert [answer.status for answer in found] == [400]
    assert house.post(CHAT, formatted({"title": "after"}, max_tokens=2)).status == 200


# -- tools

for shown, name in {
    "__import__": "__import__",
    "a name of 1 MiB": "f" * (1 << 20),
    "a name of 65 characters": "f" * 65,
    "a space": "a b",
    "not ASCII": "\u00e9",
    "empty": "",
    "a line feed": "f\n",
    "null": None,
}.items():
    table.refused("G23", f"tool name: {shown}", lambda name=name: chat(tools=[tool(name=name)]), 400)
for shown, parameters in {
    '"x"': "x",
    "[]": [],
    "true": True,
    "40 deep": deep(40),
    "10^5 properties": {"properties": {f"p{i}": {} for i in range(10**5)}},
    "an enum of 10^5": {"enum": list(range(10**5))},
    "an enum of one string of 1 MiB": {"enum": ["x" * (1 << 20)]},
}.items():
    table.refused("G23", f"parameters {shown}", lambda given=parameters: chat(tools=[tool(parameters=given)]), 400)
table.refused("G23", "129 tools", chat(tools=[tool(name=f"f{i}") for i in range(129)]), 400)
table.refused("G23", "two tools of one name", chat(tools=[tool(), tool()]), 400)
table.refused("G23", "no tools", chat(tools={}), 400)
table.refused("G23", "a tool that is no function", chat(tools=[{"type": "web_search"}]), 400)
table.refused("G23", "tool_choice without tools", chat(tool_choice="auto"), 400)
table.refused(
    "G23",
    "tool_choice of a tool that is not there",
    chat(tools=[tool()], tool_choice={"type": "function", "function": {"name": "g"}}),
    400,
)
table.refused("G23", 'tool_choice "any"', chat(tools=[tool()], tool_choice="any"), 400)
FORCED = "tools[0].function.parameters"
for shown, parameters in {
    "not: {}": {"not": {}},
    "enum: []": {"enum": []},
    "of type string": {"type": "string"},
    "2^30 parts in a kilobyte": DOUBLING | {"type": "object"},
    "x-guidance": {"x-guidance": {}},
}.items():
    body = chat(tools=[tool(parameters=parameters)], tool_choice="required")
    table.refused("G23", f"a call that must be made, of parameters {shown}", body, 400, FORCED)
    if parameters.get("$ref") is None:
        body = chat(tools=[tool(parameters=parameters, strict=True)])
        table.refused("G23", f"a strict tool of parameters {shown}", body, 400, FORCED)
table.refused("G23", "tool_choice required, without tools", chat(tool_choice="required"), 400, "tool_choice")


@table.case("G22", "a call that must be made, by name and not, streamed and not", "calls with valid arguments")
def called(house):
    schema = {"type": "object", "properties": {"city": {"enum": ["Oslo", "Rome"]}}, "required": ["city"]}
    tools = [tool(name="weather", parameters=schema | {"additionalProperties": False}), tool(name="other")]
    for choice in ("required", {"type": "function", "function": {"name": "weather"}}):
        body = chat(tools=tools[: 1 if choice == "required" else 2], tool_choice=choice, parallel_tool_calls=False)
        answer = house.post(CHAT, body | {"max_tokens": 120})
        (call,) = answer.json["choices"][0]["message"]["tool_calls"]
        assert call["function"]["name"] == "weather"
        jsonschema.validate(json.loads(call["function"]["arguments"]), schema)
        arguments = ""
        with house.stream(CHAT, body | {"max_tokens": 120, "stream": True}) as stream:
            for event in stream:
                for piece in () if event == "[DONE]" else event["choices"]:
                    for part in piece["delta"].get("tool_calls") or ():
                        arguments += part["function"].get("arguments") or ""
        assert arguments == call["function"]["arguments"]
    cut = house.post(CHAT, body | {"max_tokens": 3}).json["choices"][0]
    assert cut["finish_reason"] == "length"


table.accepted(
    "G23", "a tool of an odd and valid schema", chat(tools=[tool(parameters={"enum": [], "not": {}, "x": [None]})])
)
table.refused("G24", "functions, the older field", chat(functions=[{"name": "f"}]), 400, "functions")
for shown, variables in {
    "of a name that the template does not read": {"nothing": 1},
    "that would be ours": {"messages": []},
    "add_generation_prompt": {"add_generation_prompt": False},
    "chat_template": {"chat_template": "{{ 1 }}"},
    "tokenize": {"tokenize": False},
    "bos_token": {"bos_token": "x"},
    "an object": {"style": {"a": 1}},
    "100 of them": {f"v{i}": 1 for i in range(100)},
}.items():
    table.refused("G28", f"a template variable: {shown}", chat(chat_template_kwargs=variables), 400)


@table.case("G28", "a template variable that it reads", "200, and it stands in the prompt")
def variable(house):
    def prompt_of(style):
        answer = house.post(CHAT, chat(chat_template_kwargs={"style": style}, return_token_ids=True))
        assert answer.status == 200, answer
        return len(answer.json["prompt_token_ids"])

    assert prompt_of("very brief and kind") > prompt_of("x")


test_incidents = table.as_test()
