"""Whatever a call grammar lets through is read as calls of the tools, with arguments valid under their schemas."""

import json
import random
import re

import jsonschema
import pytest
from llguidance import LLTokenizer

from openwork.core.constraint import Constraint
from openwork.core.errors import RequestError
from openwork.text.call_grammar import CallGrammar, Tool
from openwork.text.dialect import HERMES, LLAMA, MISTRAL, PYTHONIC, THINK, TOOL_FORMATS
from openwork.text.grammar import compile_constraint
from openwork.text.reply import Arguments, Content, ReplyParser, ToolCall

WEATHER = {
    "type": "object",
    "description": "Where?",
    "properties": {
        "city": {"$ref": "#/$defs/city"},
        "days": {"type": "integer", "minimum": 0, "maximum": 20},
        "flags": {"type": "array", "items": {"type": "boolean"}, "maxItems": 2},
        "note": {"type": ["string", "null"], "maxLength": 3},
    },
    "required": ["city"],
    "additionalProperties": False,
    "$defs": {"city": {"enum": ["Oslo", "S\u00e3o Paulo", 'a"b\\\\c', "<tool_call>"]}},
}
TOOLS = (Tool("weather", WEATHER), Tool("get-time", None))
SCHEMAS = {"weather": WEATHER, "get-time": {"type": "object", "maxProperties": 0}}
ANSWER = {
    "type": "object",
    "properties": {"ok": {"type": "boolean"}},
    "required": ["ok"],
    "additionalProperties": False,
}
VOCABULARY = LLTokenizer("byte")
FORMS = list(TOOL_FORMATS.values())


def grammar(form, is_parallel=True, special=()):
    """``special`` marks have the first ids behind the bytes."""
    return CallGrammar(form, TOOLS, dict(zip(special, range(256, 260), strict=False)).get, is_parallel)


def walk(constraint, seed, most=600, special=()):
    """A text drawn from a constraint byte by byte, and whether it is whole."""
    drawn, matcher, text = random.Random(seed), compile_constraint(VOCABULARY, constraint), bytearray()
    while len(text) < most:
        mask = matcher.compute_bitmask()
        allowed = [token for token in range(256 + len(special)) if mask[token // 8] >> token % 8 & 1]
        if not allowed or (matcher.is_accepting() and drawn.random() < 0.3):
            break
        likely = [token for token in allowed if token > 255 or token in b'"}])' or drawn.random() < 0.5]
        token = drawn.choice(likely or allowed)
        if token < 256 and allowed[-1] > 255 and drawn.random() < 0.5:
            token = allowed[-1]
        assert matcher.consume_tokens([token])
        text += bytes([token]) if token < 256 else special[token - 256].encode()
    return text.decode(errors="replace"), matcher.is_accepting()


def accepts(constraint, text, special=()):
    """``text`` in which special marks are tokens, and all else is bytes."""
    matcher = compile_constraint(VOCABULARY, constraint)
    parts = re.split("(" + "|".join(map(re.escape, special)) + ")", text) if special else [text]
    tokens = [
        token for part in parts for token in ([256 + special.index(part)] if part in special else list(part.encode()))
    ]
    return matcher.consume_tokens(tokens) and matcher.is_accepting()


def read(form, text, opening=""):
    """The calls of a reply, each a name and arguments, and its content."""
    parser = ReplyParser(form, SCHEMAS, opening=opening)
    calls, content = [], ""
    for delta in [*parser.push(text), *parser.finish()]:
        match delta:
            case ToolCall(name=name):
                calls.append([name, ""])
            case Arguments(index=index, text=more):
                calls[index][1] += more
            case Content(text=more):
                content += more
    return [(name, json.loads(arguments)) for name, arguments in calls], content


def check_calls(calls):
    for name, arguments in calls:
        jsonschema.validate(arguments, SCHEMAS[name])


@pytest.mark.parametrize("is_parallel", [True, False])
@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name)
def test_what_a_forced_grammar_lets_through_is_calls(form, is_parallel):
    made = grammar(form, is_parallel)
    assert made.opening == ""
    wholes = [text for text, is_whole in (walk(made.forced(), seed) for seed in range(40)) if is_whole]
    assert len(wholes) > 20
    counts = set()
    for text in wholes:
        calls, content = read(form, text)
        assert calls and not content.strip(), text
        check_calls(calls)
        counts.add(len(calls))
    assert (len(counts) > 1) == is_parallel


@pytest.mark.parametrize("form", [HERMES, MISTRAL], ids=lambda form: form.name)
def test_a_mark_that_is_a_special_token_opens_the_reply(form):
    made = grammar(form, special=(*form.marks, form.end))
    assert made.opening == form.marks[0]
    for seed in range(10):
        text, is_whole = walk(made.forced(), seed)
        if is_whole:
            calls, content = read(form, text, made.opening)
            assert calls and not content.strip()
            check_calls(calls)


RIGHT = {
    HERMES: '<tool_call>\n{"name": "weather", "arguments": {"city": "Oslo"}}\n</tool_call>',
    LLAMA: '{"name": "weather", "parameters": {"city": "Oslo"}}',
    MISTRAL: '[TOOL_CALLS] [{"name": "weather", "arguments": {"city": "Oslo"}}]',
    PYTHONIC: '[weather(city="Oslo")]',
}


def specials(form):
    """The ways in which the marks of a form may be special tokens."""
    marks = (form.marks[0], form.end) if form.end else form.marks
    return [(), marks, *((marks[:1], marks[1:]) if form.end else ())]


@pytest.mark.parametrize(
    ("form", "special"), [(form, special) for form in FORMS for special in specials(form)], ids=lambda each: str(each)
)
def test_a_free_reply_says_anything_and_calls_right(form, special):
    right, made = RIGHT[form], grammar(form, special=special).free(THINK)
    for text in ("", "Hello.", "a < b", "It is <b>.\n\n", right):
        assert accepts(made, text, special), text
    for wrong in (right.replace("Oslo", "Rome"), right.replace("weather", "other")):
        assert not accepts(made, wrong, special)
        # Spelled out, the mark is read as one: so it may not be.
        assert not accepts(made, wrong)
    if form.is_anywhere:
        assert accepts(made, "Let me see. " + right, special)
        assert not accepts(made, "Let me see. " + right.replace("Oslo", "Rome"), special)
        one = grammar(form, is_parallel=False, special=special).free(THINK)
        for text, is_one in ((f"a {right} b", True), (f"a {right} b {right}", False)):
            assert accepts(made, text, special) and accepts(one, text, special) == is_one
    assert read(form, right) == ([("weather", {"city": "Oslo"})], "")


@pytest.mark.parametrize(
    ("form", "special"), [(form, special) for form in (HERMES, MISTRAL) for special in specials(form)[1:3]], ids=str
)
def test_what_a_free_grammar_with_special_marks_lets_through_is_read_as_it_says(form, special):
    counts = set()
    for seed in range(60):
        text, is_whole = walk(grammar(form, special=special).free(), seed, special=special)
        if is_whole:
            calls, _ = read(form, text)
            check_calls(calls)
            counts.add(len(calls))
    assert {0, 1, 2} <= counts


@pytest.mark.parametrize("special", [(), *specials(HERMES)[1:]], ids=str)
def test_calls_with_special_marks_or_an_answer(special):
    for form in (HERMES, MISTRAL):
        own = tuple(mark for mark in special if mark in (*form.marks, form.end)) or form.marks
        made = grammar(form, special=own).free(answer=ANSWER)
        assert accepts(made, RIGHT[form], own) and accepts(made, '{"ok":true}', own)
        assert not accepts(made, RIGHT[form].replace("Oslo", "Rome"), own) and not accepts(made, "Hello.", own)


@pytest.mark.parametrize("form", [HERMES, MISTRAL, PYTHONIC], ids=lambda form: form.name)
def test_calls_or_an_answer_of_a_schema(form):
    made = grammar(form).free(answer=ANSWER)
    kinds = set()
    for seed in range(40):
        text, is_whole = walk(made, seed)
        calls, content = read(form, text) if is_whole else ([], "")
        check_calls(calls)
        if is_whole and not calls:
            jsonschema.validate(json.loads(content), ANSWER)
        kinds.add((is_whole, bool(calls)))
    assert {(True, True), (True, False)} <= kinds


def test_where_calls_have_no_mark_there_is_no_answer_beside_them():
    with pytest.raises(RequestError, match="without a mark"):
        grammar(LLAMA).free(answer=ANSWER)


@pytest.mark.parametrize(
    ("form", "parameters", "said"),
    [
        (HERMES, {"type": "string"}, "object"),
        (HERMES, {"type": ["object"]}, "object"),
        (PYTHONIC, {"type": "object", "anyOf": []}, "anyOf"),
        (PYTHONIC, {"properties": {"a b": {}}}, "a b"),
        (PYTHONIC, {"properties": {"a": 5}}, "no schema"),
        (PYTHONIC, {"properties": []}, "wrong type"),
    ],
)
def test_what_cannot_be_put_in_words_names_the_tool(form, parameters, said):
    made = CallGrammar(form, [Tool("f", parameters, "tools[3].function.parameters")], lambda mark: None)
    with pytest.raises(RequestError, match=said) as caught:
        made.forced()
    assert caught.value.param == "tools[3].function.parameters"


def test_reasoning_comes_before_whatever_is_constrained():
    for kind, source, right in (
        ("json_schema", json.dumps(ANSWER), '{"ok":true}'),
        ("regex", "a/b", "a/b"),
        ("choice", '["yes", "no"]', "no"),
        ("lark", 'start: "x" "z"', "xz"),
    ):
        begun = Constraint(kind, source, ("", "</think>"))
        assert accepts(begun, f"Hm, {right}?\n</think>\n\n{right}") and not accepts(begun, right)
        may = Constraint(kind, source, ("<think>", "</think>"))
        assert accepts(may, right) and accepts(may, f"<think>\nHm.\n</think>{right}")
        assert not accepts(may, f"<think>\nHm.\n</think>{right}?") and not accepts(may, f"Hm. {right}")
