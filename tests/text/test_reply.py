"""Replies told apart: the forms of calls, reasoning, and the laws that hold for any text however it is cut."""

from __future__ import annotations

import json
import sys
from itertools import count, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openwork.text.dialect import HERMES, LLAMA, MISTRAL, PYTHONIC, SPANS, THINK, TOOL_FORMATS
from openwork.text.reply import Arguments, Content, Reasoning, ReplyParser, ToolCall

NAMES = ("weather", "f", "g-2")
FORMS = tuple(TOOL_FORMATS.values())


def parse(text, form=HERMES, span=THINK, cuts=(), **options):
    """All deltas of a text, pushed in pieces, neighbours of one kind joined; ids are counted."""
    numbers = count()
    parser = ReplyParser(form, NAMES, span, make_id=lambda: f"id{next(numbers)}", **options)
    places = [0, *sorted(cut % (len(text) + 1) for cut in cuts), len(text)]
    told = []
    for start, end in pairwise(places):
        told += parser.push(text[start:end])
    told += parser.finish()
    return joined(told)


def joined(told):
    whole = []
    for delta in told:
        last = whole[-1] if whole else None
        if type(last) is type(delta) and not isinstance(delta, ToolCall) and index(last) == index(delta):
            whole[-1] = type(delta)(*([delta.index] if isinstance(delta, Arguments) else []), last.text + delta.text)
        else:
            whole.append(delta)
    return whole


def index(delta):
    return getattr(delta, "index", None)


def call(number, name, arguments):
    return [ToolCall(number, f"id{number}", name), Arguments(number, arguments)]


# ---------------------------------------------------------------- forms


def test_hermes():
    text = (
        'Let me look.\n<tool_call>\n{"name": "weather", "arguments": {"city": "Oslo", "days": [1, 2.5e3, null]}}\n'
        '</tool_call>\n<tool_call>{"arguments": {"a\\n": {"b": true}}, "name": "f", "id": 7}</tool_call>\n'
    )
    assert parse(text) == [
        Content("Let me look."),
        *call(0, "weather", '{"city": "Oslo", "days": [1, 2.5e3, null]}'),
        *call(1, "f", '{"a\\n": {"b": true}}'),
    ]


def test_llama():
    text = '{"name": "f", "parameters": {"a": "\\u00e9"}}; {"name": "weather", "parameters": {}}\n'
    calls = [*call(0, "f", '{"a": "\\u00e9"}'), *call(1, "weather", "{}")]
    assert parse(text, LLAMA) == calls
    assert parse("<|python_tag|>" + text, LLAMA) == calls
    assert parse('{"type": "function", "name": "g-2"} and so on', LLAMA) == [
        *call(0, "g-2", "{}"),
        Content("and so on"),
    ]


def test_mistral():
    listed = '[TOOL_CALLS] [{"name": "f", "arguments": {"a": 1}}, {"name": "g-2", "arguments": {}}]'
    assert parse(listed, MISTRAL) == [*call(0, "f", '{"a": 1}'), *call(1, "g-2", "{}")]
    named = 'Well.[TOOL_CALLS]f[ARGS]{"a": 1}[TOOL_CALLS]weather{"b": "]"}'
    assert parse(named, MISTRAL) == [Content("Well."), *call(0, "f", '{"a": 1}'), *call(1, "weather", '{"b": "]"}')]


def test_pythonic():
    text = """[weather(city="O'slo \\"é\\n", days=-2, ok=True, no=None,), f(a=[1, 'x', {"k": [False]}], b={}), g-2()]"""
    told = parse(text, PYTHONIC)
    assert [delta.name for delta in told if isinstance(delta, ToolCall)] == ["weather", "f", "g-2"]
    arguments = [json.loads(delta.text) for delta in told if isinstance(delta, Arguments)]
    assert arguments == [
        {"city": "O'slo \"é\n", "days": -2, "ok": True, "no": None},
        {"a": [1, "x", {"k": [False]}], "b": {}},
        {},
    ]
    assert (
        parse("[f(a='\\x41\\u00e9\\ud83d\\ude00\t')]", PYTHONIC)[1].text == '{"a": "\\u0041\\u00e9\\ud83d\\ude00\\t"}'
    )


def test_arguments_come_as_they_are_written():
    parser = ReplyParser(HERMES, NAMES, make_id=lambda: "x")
    assert parser.push('<tool_call>{"name": "f", "argu') == []
    assert parser.push('ments": {"a') == [ToolCall(0, "x", "f"), Arguments(0, '{"a')]
    assert parser.push('": "b') == [Arguments(0, '": "b')]
    assert parser.push('"}}</tool') == [Arguments(0, '"}')]
    assert parser.push("_call> ") == parser.finish() == []
    assert parser.num_calls == 1


@pytest.mark.parametrize(
    ("form", "opening", "rest"),
    [
        (HERMES, "<tool_call>", '\n{"name": "f", "arguments": {"a": 1}}\n</tool_call>'),
        (HERMES, '<tool_call>\n{"name": "', 'f", "arguments": {"a": 1}}'),
        (MISTRAL, "[TOOL_CALLS]", ' [{"name": "f", "arguments": {"a": 1}}]'),
        (PYTHONIC, "[f(", "a=1)]"),
    ],
)
def test_an_opening_is_a_part_of_the_reply(form, opening, rest):
    assert parse(rest, form, opening=opening) == call(0, "f", '{"a": 1}')


def test_ids_are_made_as_the_form_wants_them():
    def first_id(form, text):
        return next(delta.id for delta in ReplyParser(form, NAMES).push(text) if isinstance(delta, ToolCall))

    assert len(first_id(MISTRAL, "[TOOL_CALLS]f{")) == 9
    ids = {first_id(HERMES, '<tool_call>{"name": "f"}</') for _ in range(9)}
    assert len(ids) == 9 and all(each.startswith("call_") for each in ids)


# ---------------------------------------------------------------- reasoning


def test_reasoning():
    assert parse("\n<think>\nHm, <b>.\n</think>\n\nYes.\n") == [Reasoning("Hm, <b>."), Content("Yes.\n")]
    assert parse("<think>never ends\n") == [Reasoning("never ends\n")]
    assert parse("Hm.</think>\nYes.", is_open=True) == [Reasoning("Hm."), Content("Yes.")]
    assert parse("<think>a</think><think>b") == [Reasoning("a"), Content("<think>b")]
    assert parse("No <think>b</think>") == [Content("No <think>b</think>")]
    assert parse("[THINK]a[/THINK]b", MISTRAL, SPANS["bracket-think"]) == [Reasoning("a"), Content("b")]


def test_a_call_within_reasoning_is_reasoning():
    written = '<tool_call>{"name": "f"}</tool_call>'
    assert parse(f"<think>{written}</think>{written}") == [Reasoning(written), *call(0, "f", "{}")]
    assert parse('<think></think>{"name": "f"}', LLAMA) == call(0, "f", "{}")


# ---------------------------------------------------------------- what is no call


@pytest.mark.parametrize(
    ("form", "text"),
    [
        (HERMES, '<tool_call>{"name": "unknown", "arguments": {}}</tool_call>'),
        (HERMES, '<tool_call>{"arguments": {}}</tool_call>'),
        (HERMES, '<tool_call>{"name": "f", "name": "f", "arguments": {}}</tool_call>'),
        (HERMES, '<tool_call>{"name": "f", "arguments": "{}"}</tool_call>'),
        (HERMES, '<tool_call>{"name": "f", "arguments": null}</tool_call>'),
        (HERMES, '<tool_call>{"name": f}</tool_call>'),
        (HERMES, '<tool_call>{"arguments": {"a": 01}, "name": "f"}</tool_call>'),
        (HERMES, '<tool_call>{"arguments": {"a": "\n"}, "name": "f"}</tool_call>'),
        (HERMES, '<tool_call>{"arguments": {"a": 1.e5}, "name": "f"}</tool_call>'),
        (HERMES, '<tool_call>{"arguments": {"a": "\\x"}, "name": "f"}</tool_call>'),
        (HERMES, '<tool_call>{"arguments": {"a": "\\u12"}, "name": "f"}</tool_call>'),
        (HERMES, '<tool_call>{"arguments": {"a": [1,]}, "name": "f"}</tool_call>'),
        (HERMES, '<tool_call>{"arguments": {"a": tru}, "name": "f"}</tool_call>'),
        (HERMES, '<tool_call>{"a":' + "[" * 99),
        (HERMES, '<tool_call>{"a":' + "1" * 999),
        (HERMES, "<tool_call>__import__('os')</tool_call>"),
        (HERMES, "<tool_call"),
        (HERMES, '<tool_call>{"name": "f"'),
        (HERMES, '<tool_call>{"name": "\\ud800"}'),
        (LLAMA, '{"name": "Bob", "parameters": {}}'),
        (LLAMA, 'Well: {"name": "f", "parameters": {}}'),
        (LLAMA, "<|python_tag|>print(1)"),
        (LLAMA, "{}"),
        (MISTRAL, "[TOOL_CALLS] 1"),
        (MISTRAL, "[TOOL_CALLS]unknown{}"),
        (PYTHONIC, "[1, 2]"),
        (PYTHONIC, "[eval('1')]"),
        (PYTHONIC, "[]"),
        (PYTHONIC, "See [f(a=1)]"),
    ],
)
def test_what_is_no_call_is_content(form, text):
    assert parse(text, form) == [Content(text)]


@pytest.mark.parametrize(
    ("form", "text", "arguments", "rest"),
    [
        (HERMES, '<tool_call>{"name": "f", "arguments": {"a": }}</tool_call>', '{"a": ', "}}</tool_call>"),
        (HERMES, '<tool_call>{"name": "f", "arguments": {"a": "b', '{"a": "b', ""),
        (HERMES, '<tool_call>{"name": "f", "arguments": {"a": 1} x', '{"a": 1}', " x"),
        (PYTHONIC, "[f(a=1, b=os.system('x'))]", '{"a": 1, "b": ', "os.system('x'))]"),
        (PYTHONIC, "[f(a=1, a=2)]", '{"a": 1', ", a=2)]"),
        (PYTHONIC, "[f(1)]", "{", "1)]"),
        (PYTHONIC, "[f(a=1) g-2()]", '{"a": 1}', " g-2()]"),
    ],
)
def test_a_call_that_goes_wrong_has_no_more_than_was_right(form, text, arguments, rest):
    assert parse(text, form) == [*call(0, "f", arguments), *([Content(rest)] if rest else [])]


# ---------------------------------------------------------------- laws

MARKS = [mark for form in FORMS for mark in (*form.marks, form.end, form.bare) if mark]
MARKS += [mark for span in SPANS.values() for mark in (span.start, span.end)]
PARTS = (
    """{"name":_"f" ,_"arguments":_{ "parameters":_{"a":_ "a" : } ] f( a= ) 1 \\ ' " , ; < [ tool é [ARGS] true None"""
)
PIECES = st.sampled_from([*MARKS, " ", "\n", *(part.replace("_", " ") for part in PARTS.split())])
TEXTS = st.lists(PIECES | st.text(max_size=3), max_size=24).map("".join)
CUTS = st.lists(st.integers(0, 10**6), max_size=12)


@given(TEXTS, CUTS, st.sampled_from(FORMS), st.sampled_from([None, *SPANS.values()]), st.booleans())
def test_the_cuts_do_not_matter(text, cuts, form, span, is_open):
    options = {"is_open": is_open and span is not None}
    whole = parse(text, form, span, **options)
    assert parse(text, form, span, cuts, **options) == whole
    assert parse(text, form, span, range(len(text)), **options) == whole


@given(TEXTS, CUTS, st.sampled_from(FORMS))
def test_arguments_are_json_or_its_beginning(text, cuts, form):
    told = parse(text, form, cuts=cuts)
    begun = [delta for delta in told if isinstance(delta, ToolCall)]
    assert [delta.index for delta in begun] == list(range(len(begun)))
    for delta in told:
        if isinstance(delta, Arguments):
            assert is_begun(delta.text), delta.text


def is_begun(text):
    """Whether a text is the JSON of an object, or could become it: nothing in it is wrong but its end."""
    try:
        return isinstance(json.loads(text), dict)
    except json.JSONDecodeError as error:
        lacks_end = error.pos >= len(text.rstrip()) - 1 or "Unterminated" in error.msg
        return lacks_end or text[error.pos :].strip() in {"t", "tr", "tru", "n", "nu", "nul", "-"}


@given(st.text(), CUTS, st.sampled_from([None, *FORMS]))
def test_text_without_marks_is_content(text, cuts, form):
    for mark in ("<", "[", "{"):
        text = text.replace(mark, "")
    assert parse(text, form, None, cuts) == ([Content(text)] if text else [])


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
OBJECTS = st.dictionaries(st.text(max_size=5), JSON_VALUES, max_size=3)


@given(OBJECTS, CUTS, st.sampled_from([HERMES, LLAMA, MISTRAL]), st.booleans(), st.sampled_from([None, 1]))
def test_any_object_comes_through(arguments, cuts, form, is_ascii, indent):
    written = json.dumps(arguments, ensure_ascii=is_ascii, indent=indent)
    said = f'{{"name": "f", "{form.key}": {written}}}'
    text = {"hermes": f"<tool_call>{said}</tool_call>", "llama": said, "mistral": f"[TOOL_CALLS][{said}]"}[form.name]
    assert parse(text, form, cuts=cuts) == call(0, "f", written)


PYTHON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.from_regex(r"[a-z_]{1,5}", fullmatch=True), PYTHON_VALUES, max_size=3), CUTS)
def test_any_call_of_python_comes_through(arguments, cuts):
    text = "[f(" + ", ".join(f"{name}={value!r}" for name, value in arguments.items()) + ")]"
    if "\\U" in text:  # an escape that models do not write
        return
    told = parse(text, PYTHONIC, cuts=cuts)
    assert len(told) == 2 and json.loads(told[1].text) == arguments


HOSTILE = [
    (PYTHONIC, "[a(a="),
    (PYTHONIC, "[f(a="),
    (PYTHONIC, "[f(a=[["),
    (LLAMA, '{"a":{"a":'),
    (HERMES, '<tool_call>{"a":{"a":'),
    (HERMES, '<tool_call>{"name":"f","arguments":{"a":'),
    (HERMES, "<tool_call>"),
    (HERMES, '<tool_call>{"'),
    (HERMES, "<"),
    (HERMES, " "),
    (MISTRAL, "[TOOL_CALLS]["),
]


@pytest.mark.parametrize(("form", "unit"), HOSTILE)
@pytest.mark.parametrize("is_repeated", [True, False])
def test_work_is_linear_in_hostile_text(form, unit, is_repeated):
    """Counted in lines of code that run, not in seconds: they double when the text does."""

    def steps(size):
        text = (unit * size)[:size] if is_repeated else unit + "x" * size
        lines = 0

        def local(frame, event, arg):
            nonlocal lines
            lines += event == "line"
            return local

        parser = ReplyParser(form, NAMES, THINK)
        before = sys.gettrace()
        sys.settrace(lambda frame, event, arg: local if "openwork" in frame.f_code.co_filename else None)
        try:
            for place in range(0, len(text), 3):
                parser.push(text[place : place + 3])
            parser.finish()
        finally:
            sys.settrace(before)
        return lines

    assert steps(4000) < 2.5 * steps(2000)


@pytest.mark.parametrize(("form", "unit"), HOSTILE)
def test_hostile_text_of_64_kib(form, unit):
    text = (unit * 65536)[:65536]
    told = parse(text, form, cuts=range(0, 65536, 5))
    if isinstance(told[0], ToolCall):
        assert told[0].name == "f" and text.endswith(told[-1].text)
    else:
        assert told == [Content(text)]
