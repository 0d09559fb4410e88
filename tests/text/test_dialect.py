from __future__ import annotations

import pytest

from openwork.core.errors import OpenworkError, RequestError
from openwork.text.dialect import HERMES, LLAMA, MISTRAL, PYTHONIC, SPANS, THINK, Dialect
from openwork.text.stream import TextStream
from openwork.text.tokenizer import Tokenizer

QWEN = (
    "{%- if tools %}{{- 'For each call, return within <tool_call></tool_call> XML tags:\\n<tool_call>\\n"
    '{\\"name\\": <function-name>, \\"arguments\\": <args-json-object>}\\n</tool_call>\' }}{%- endif %}'
)
LLAMA_3 = (
    "{%- if tools is not none %}{{- 'Respond in the format "
    '{"name": function name, "parameters": dictionary of argument name and its value}.\' }}{%- endif %}'
)


@pytest.mark.parametrize(
    ("template", "tools", "span"),
    [
        (QWEN, HERMES, None),
        (QWEN + "{% set content = content.split('</think>')[-1] %}", HERMES, THINK),
        ("{{ tools }}<tool_call>\n<function=x>", None, None),
        ("{{ tools }}<tool_call>name\n<arg_key>", None, None),
        ("<tool_call>", None, None),
        (LLAMA_3, LLAMA, None),
        ("{% if tools %}[AVAILABLE_TOOLS]{% endif %}[TOOL_CALLS]", MISTRAL, None),
        ("{{ tools }}[TOOL_CALLS][THINK][/THINK]", MISTRAL, SPANS["bracket-think"]),
        ("{{ tools }} in the format of [func_name1(params_name1=params_value1)]", PYTHONIC, None),
        ("{{ tools }}", None, None),
        ("{{ messages }}", None, None),
    ],
)
def test_a_template_gives_its_dialect_away(template, tools, span):
    assert Dialect.find(template) == Dialect(tools, span)


def test_the_operator_has_the_last_word():
    assert Dialect.find(QWEN, tools="llama", reasoning="think") == Dialect(LLAMA, THINK)
    assert Dialect.find(QWEN + "</think>", tools="none", reasoning="none") == Dialect()
    with pytest.raises(OpenworkError, match="no form of tool calls named 'hermse'") as caught:
        Dialect.find(QWEN, tools="hermse")
    assert "auto, none, hermes, llama, mistral, pythonic" in caught.value.hint


def test_an_unknown_form_is_said_to_be_unknown():
    assert Dialect(tools=HERMES).need_tools() is HERMES
    with pytest.raises(RequestError, match="no known form of tool calls") as caught:
        Dialect().need_tools()
    assert caught.value.param == "tools"


@pytest.mark.parametrize(
    ("prompt", "is_open"),
    [("user\nHi\nassistant\n<think>\n", True), ("<think>\n\n</think>\n\n", False), ("", False), ("<think> x", False)],
)
def test_a_prompt_may_open_the_reasoning(prompt, is_open):
    assert THINK.is_open_after(prompt) == is_open


def test_special_tokens_that_are_marks_are_shown(tmp_path, make, write):
    backend = make["byte_level"]()
    backend.add_special_tokens(["<|python_tag|>", "[TOOL_CALLS]"])
    backend.add_tokens(["<tool_call>"])
    tokenizer = Tokenizer.load(write(tmp_path, backend))
    assert Dialect(HERMES).shown_ids(tokenizer) == frozenset()
    shown = Dialect(LLAMA).shown_ids(tokenizer)
    assert shown == {tokenizer.token_id("<|python_tag|>")}
    ids = tokenizer.encode("<|python_tag|>a<|end|>b[TOOL_CALLS]", add_special=False)
    stream = TextStream(tokenizer, shown=shown)
    assert stream.push(ids) + stream.finish() == "<|python_tag|>ab"
