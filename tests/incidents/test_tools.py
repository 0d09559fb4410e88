"""G: tools, and constraints, which are not served over HTTP yet."""

from __future__ import annotations

from incidents.case import CHAT, Table, chat

table = Table("Tools")


def tool(**function) -> dict:
    return {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}, **function}}


def deep(levels: int) -> dict:
    inner: dict = {}
    for _ in range(levels):
        inner = {"properties": inner}
    return inner


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
