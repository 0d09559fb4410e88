from __future__ import annotations

import json
import time

import pytest

from openwork.core.errors import ModelError, RequestError
from openwork.text.chat import MAX_TEMPLATE_BYTES, ChatTemplate
from openwork.text.messages import MAX_MESSAGES, check_messages
from openwork.text.tokenizer import Tokenizer

HELLO = [{"role": "user", "content": "Hello"}]

CHATML = """
{%- for message in messages %}
{{- '<|im_start|>' + message['role'] + '\n' + message['content'] | trim + '<|im_end|>' + '\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|im_start|>assistant\n' }}
{%- endif %}
"""

LLAMA = """{{ bos_token }}{% for message in messages %}
{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
{{ raise_exception('Roles must alternate user/assistant/user/assistant/...') }}
{% endif %}
{% if message['role'] == 'user' %}
{{ '[INST] ' ~ message.content.strip() ~ ' [/INST]' }}{% else %}
{% generation %}{{ ' ' + message.content + eos_token }}{% endgeneration %}{% endif %}
{% endfor %}"""

TOOLS = """{% set ns = namespace(count=0, names=[]) %}{% for tool in tools %}
{% set ns.count = ns.count + 1 %}{% set ns.names = ns.names + [tool.name] %}
{{ tool | tojson }};{{ tool | tojson(indent=2) }}
{% endfor %}{{ ns.count }} {{ ns.names | join(', ') }} {{ strftime_now('%d %b %Y') }}
{%- macro shout(text, mark='!') %}{{ text | upper }}{{ mark }}{% endmacro %}
{{ shout('end') }}{{ shout(messages[-1]['content'][:2], mark='?') }}
{%- for message in messages %}{% if loop.last %}{% break %}{% endif %}{% endfor %}
{{- messages | selectattr('role', 'equalto', 'user') | list | length }}{{ 'x' in messages[0].content }}
{{- messages | map(attribute='role') | join('-') }}{{ 'ab' * 2 }}{{ '%s=%d' | format('n', 3) }}
{{- '{}+{}'.format(1, 2) }}
{{- ', '.join(messages | map(attribute='role')) }}{{ '<b>' | e }}{{ "it's" | tojson }}{{ {'a': [1, (2, 3)]} | string }}
{{- 'aXbX' | replace('X', '--') }}{{ 'a\nb' | indent(2) }}{{ 2.456 | round(1) }}{{ [3, 1, 2] | sort }}{{ [1, 2] | sum }}
{{- loop is defined }}{{ 2 ** 3 % 5 }}{{ messages is sequence }}{{ {'b': 1}.get('c', 'none') }}
{{- 'x,y'.split(',') | last }}"""


def render(source: str, messages=HELLO, **kwargs) -> str:
    options = {key: kwargs.pop(key) for key in ("special_tokens", "max_bytes", "now") if key in kwargs}
    return ChatTemplate(source, "there", **options).render(messages, **kwargs)


# ---------------------------------------------------------------- what templates need


def test_renders_a_conversation():
    messages = [{"role": "system", "content": " Be kind. "}, *HELLO]
    start = "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nHello<|im_end|>\n"
    assert render(CHATML, messages) == start + "<|im_start|>assistant\n"
    assert render(CHATML, messages, add_generation_prompt=False) == start


def test_knows_the_special_tokens_and_the_generation_tag():
    messages = [*HELLO, {"role": "assistant", "content": "Hi"}]
    text = render(LLAMA, messages, special_tokens={"bos_token": "<s>", "eos_token": "</s>"})
    assert text == "<s>[INST] Hello [/INST] Hi</s>"


def test_what_the_language_offers():
    noon = time.strptime("2024-02-29 12", "%Y-%m-%d %H")
    text = render(TOOLS, tools=[{"name": "é<b>", "n": [1]}], now=lambda: noon)
    assert text.startswith('{"name": "é<b>", "n": [1]};{\n  "name": "é<b>",')
    assert "1 é<b> 29 Feb 2024END!HE?" in text
    rest = text[text.index("HE?") :]
    assert rest == (
        "HE?1Falseuserababn=31+2user&lt;b&gt;\"it's\"{'a': [1, (2, 3)]}a--b--a\n  b2.5[1, 2, 3]3False3Truenoney"
    )


def test_a_refusal_of_the_template_is_the_callers_mistake():
    with pytest.raises(RequestError, match="Roles must alternate") as caught:
        render(LLAMA, [*HELLO, *HELLO])
    assert caught.value.param == "messages"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{% if %}", "Expected an expression"),
        ("a\n{{ 'x' | nosuchfilter }}", "nosuchfilter"),
        ("{{ missing.field.deeper }}", "missing"),
        ("{{ 1 / 0 }}", "division by zero"),
        ("{% include 'x' %}", "no loader"),
        ("{{ messages + 1 }}", "concatenate"),
        ("{{ range(10 ** 6) }}", "range"),
        ("(" * 10**5, None),
        ("{{ " + "(" * 10**4 + "1" + ")" * 10**4 + " }}", "recursion"),
        ("{{ " + "+".join(["1"] * 10**4) + " }}", "recursion"),
        ("{% macro f(x) %}{{ f(x) }}{% endmacro %}{{ f(1) }}", "recursion"),
        ("{{ strftime_now('%100000d') }}", "without widths"),
        ("{{ strftime_now(messages) }}", "short format"),
        ("{{ messages | tojson(indent=10 ** 9) }}", "out of range"),
        ("{{ [1] | sum(start=[]) }}", "number"),
    ],
)
def test_a_faulty_template_is_named(source, message):
    if message is None:
        assert render(source) == source, "brackets in plain text are plain text"
        return
    with pytest.raises(ModelError, match=rf"there.*(?i:{message})"):
        render(source)


def test_a_syntax_error_names_the_line():
    with pytest.raises(ModelError, match=r"there: line 2: "):
        render("fine\n{% endfor %}")


# ---------------------------------------------------------------- what templates may not do

ESCAPES = [
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ ''['__class__'] }}{{ messages['__class__']['x'] }}",
    "{{ ('' | attr('__class__')).x }}",
    "{{ messages.append({'role': 'user'}) }}",
    "{{ messages[0].update({'role': 'system'}) }}",
    "{{ messages[0].pop('role') }}",
    "{{ messages.sort() }}",
    "{{ self.__init__.__globals__.x }}",
    "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
    "{{ namespace.__init__.__globals__.x }}",
    "{{ raise_exception.__globals__.x }}",
    "{{ strftime_now.__self__.x }}",
    "{{ dict.mro().x }}",
    "{{ dict.__base__.x }}",
    "{{ lipsum.__globals__.x }}",
    "{{ '{0.__class__.__mro__}'.format(messages) }}",
    "{% set f = '{0.__class__}'.format %}{{ [1] | map('format') | list }}{{ f(1).x.y }}",
    "{{ namespace(__class__=1) }}",
    "{% set ns = namespace() %}{% set ns.__class__ = 1 %}",
    "{% set ns = namespace(**{'_Namespace__attrs': 1}) %}",
    "{{ (messages | map(attribute='__class__') | list)[0].x }}",
    "{{ messages | sort(attribute='__class__.__name__') | join(attribute='__class__.__mro__.x') }}{{ x.y }}",
    "{{ context.x.y }}{{ environment.x.y }}",
    "{{ (1).to_bytes(10, 'big') }}",
    "{{ 'x'.encode().hex() }}",
    "{% import 'os' as os %}",
    "{% extends 'x' %}",
    "{{ loop.__class__.x }}",
    "{% for x in [1] %}{{ loop._iterator.gi_frame.f_globals }}{{ loop.__init__.__globals__.x }}{% endfor %}",
    "{{ (messages | map('upper')).gi_frame.f_globals }}",
    "{% macro f() %}{% endmacro %}{{ f.__call__.__globals__.x }}{{ f._environment.x }}",
    "{{ ' budget'.x.y }}",
]


@pytest.mark.parametrize("source", ESCAPES)
def test_the_sandbox_holds(source):
    messages = [{"role": "user", "content": "Hello"}]
    with pytest.raises(ModelError, match="chat template failed"):
        render(source, messages)
    assert messages == HELLO, "nothing that was handed in is changed"


@pytest.mark.parametrize("source", ["{{ '{0.__class__}'.format(1) }}", "{{ '{x.__class__}'.format_map({'x': 1}) }}"])
def test_a_format_sees_no_insides(source):
    assert render(source) == ""


def test_no_variable_carries_the_budget_where_a_template_could_reach_it():
    text = render("{% for name in ['budget', ' budget'] %}{{ name }}{% endfor %}{{ budget is defined }}")
    assert text == "budget budgetFalse"


_DOUBLE = "{% set ns = namespace(x='ab') %}{% for i in range(99) %}{% set ns.x = BODY %}{% endfor %}{{ ns.x | length }}"
BOMBS = {
    "nested loops": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "loops over text": "{% set x = 'a' * 100000 %}{% for a in x %}{% for b in x %}{% endfor %}{% endfor %}",
    "recursive loops": "{% for a in [1] recursive %}{% if loop.depth < 4 %}{{ loop(range(99999)) }}{% endif %}"
    "{% endfor %}",
    "macros": "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(40) }}",
    "filters": "{% for a in range(99999) %}{{ range(99999) | map('string') | list | length }}{% endfor %}",
    "product": "{{ 'a' * 10 ** 11 }}",
    "product of a list": "{{ [1] * 10 ** 11 }}",
    "text": "{{ ('a' * 1000000) * 1000000 }}",
    "doubled by ~": _DOUBLE.replace("BODY", "ns.x ~ ns.x"),
    "doubled by +": _DOUBLE.replace("BODY", "ns.x + ns.x"),
    "doubled by join": _DOUBLE.replace("BODY", "[ns.x, ns.x] | join"),
    "doubled by .join": _DOUBLE.replace("BODY", "ns.x.join(['a', 'b', 'c'])"),
    "doubled by replace": _DOUBLE.replace("BODY", "ns.x | replace('a', ns.x)"),
    "doubled by .replace": _DOUBLE.replace("BODY", "ns.x.replace('a', ns.x)"),
    "doubled by %": _DOUBLE.replace("BODY", "'%s%s' % (ns.x, ns.x)"),
    "doubled by % of a mapping": _DOUBLE.replace("BODY", "'%(x)s%(x)s' % {'x': ns.x}"),
    "doubled by format": _DOUBLE.replace("BODY", "'{0}{0}'.format(ns.x)"),
    "doubled by indent": _DOUBLE.replace("BODY", "(ns.x ~ '\n' ~ 'b') | indent(ns.x, first=True)"),
    "doubled by lists": _DOUBLE.replace("BODY", "[ns.x, ns.x]"),
    "doubled by tuples": _DOUBLE.replace("BODY", "(ns.x, ns.x)"),
    "doubled by mappings": _DOUBLE.replace("BODY", "{'a': ns.x, 'b': ns.x}"),
    "doubled by dict()": _DOUBLE.replace("BODY", "dict(a=ns.x, b=ns.x)"),
    "doubled by tojson": _DOUBLE.replace("BODY", "[ns.x, ns.x] | tojson"),
    "doubled by a block": "{% set ns = namespace(x='ab') %}{% for i in range(99) %}{% set y %}{{ ns.x }}{{ ns.x }}"
    "{% endset %}{% set ns.x = y %}{% endfor %}",
    "one text in a list": "{% set x = ['a' * 100000] * 100000 %}{{ x | string | length }}",
    "one text, joined": "{% set x = ['a' * 100000] * 100000 %}{{ x | join | length }}",
    "one text, as JSON": "{% set x = ['a' * 100000] * 100000 %}{{ x | tojson | length }}",
    "literal text": "{% set y %}{% for i in range(99999) %}" + "literal " * 1000 + "{% endfor %}{% endset %}",
    "slices": "{% set x = 'a' * 1000000 %}{{ [" + "x[1:]," * 1000 + "] | length }}",
    "searches": "{% set x = range(99999) | list %}{% for i in x %}{% if 'a' in x %}{% endif %}{% endfor %}",
    "searches in text": "{% set x = 'a' * 1000000 %}{% for i in range(99999) %}"
    "{% if x.find('b') > 0 %}{% endif %}{% endfor %}",
    "powers": "{{ 10 ** (10 ** 10) }}",
    "squares": "{% set ns = namespace(x=10) %}{% for i in range(99) %}{% set ns.x = ns.x * ns.x %}{% endfor %}"
    "{{ ns.x }}",
    "widths of %": "{{ '%1000000000d' % 1 }}",
    "widths of % from an argument": "{{ '%*d' % (1000000000, 1) }}",
    "widths of format": "{{ '{:1000000000}'.format(1) }}",
    "widths of format from an argument": "{{ '{:{}}'.format(1, 1000000000) }}",
    "widths of the format filter": "{{ '%1000000000d' | format(1) }}",
    "many widths": "{{ ('{:99}' * 100000).format(1) }}",
    "indent": "{{ ('a\n' * 100000) | indent(10000) | length }}",
    "digits": "{{ 1.5 | round(1000000000) }}",
    "center": "{{ 'x'.center(10 ** 9) }}{{ 'x'.ljust(10 ** 9) }}{{ 'x'.zfill(10 ** 9) }}",
    "tabs": "{{ ('\t' * 100000).expandtabs(1000000) }}",
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_stopped(name):
    with pytest.raises((ModelError, RequestError)) as caught:
        render(BOMBS[name])
    assert "messages" not in caught.value.message or "renders to more than" in caught.value.message


def test_long_output_is_refused_as_it_is_written():
    with pytest.raises(RequestError, match="renders to more than 1000 bytes"):
        render("{{ messages[0].content }}" * 2, [{"role": "user", "content": "a" * 600}], max_bytes=1000)
    with pytest.raises(RequestError, match="renders to more than 1000 bytes"):
        render("é" * 501, max_bytes=1000)
    assert render("é" * 500, max_bytes=1000)


def test_a_megabyte_of_conversation_is_no_bomb():
    messages = [{"role": "user", "content": f"message {i} " * 60} for i in range(1000)]
    text = render(CHATML, messages, max_bytes=2 << 20)
    assert text.count("<|im_end|>") == 1000


# ---------------------------------------------------------------- messages


@pytest.mark.parametrize(
    ("messages", "param", "problem"),
    [
        ([], "messages", "at least one"),
        ("Hello", "messages", "list"),
        (None, "messages", "list"),
        (["Hello"], "messages[0]", "object"),
        ([{"content": "x"}], "messages[0].role", "None"),
        ([*HELLO, {"role": "robot", "content": "x"}], "messages[1].role", "robot"),
        ([{"role": ["user"], "content": "x"}], "messages[0].role", "must be one of"),
        ([{"role": "user"}], "messages[0].content", "missing"),
        ([{"role": "user", "content": None}], "messages[0].content", "missing"),
        ([{"role": "assistant", "content": None}], "messages[0].content", "missing"),
        ([{"role": "user", "content": 3}], "messages[0].content", "int"),
        ([{"role": "user", "content": b"x"}], "messages[0].content", "bytes"),
        ([*HELLO, *HELLO, {"role": "user", "content": "a\ud800"}], "messages[2].content", "character 1"),
        ([{"role": "user", "content": ["x"]}], "messages[0].content[0]", "supported"),
        ([{"role": "user", "content": [{"type": "image_url"}]}], "messages[0].content[0]", "image_url"),
        ([{"role": "user", "content": [{"type": "text"}]}], "messages[0].content[0].text", "NoneType"),
        (
            [{"role": "user", "content": [{"type": "text", "text": "\udc00"}]}],
            "messages[0].content[0].text",
            "U\\+DC00",
        ),
        ([{"role": "user", "content": "x", "name": "\udc00"}], "messages[0].name", "surrogate"),
        ([{"role": "user", "content": "x", "more": {"a": [1, {2}]}}], "messages[0].more.a[1]", "plain data"),
        ([{"role": "user", "content": "x", "more": object}], "messages[0].more", "plain data"),
        (HELLO * (MAX_MESSAGES + 1), "messages", "allowed"),
        ([{"role": "user", "content": "é" * (1 << 19)}], "messages", "bytes of text"),
    ],
)
def test_a_wrong_message_is_named_by_its_path(messages, param, problem):
    with pytest.raises(RequestError, match=problem) as caught:
        check_messages(messages)
    assert caught.value.param == param


def test_deep_data_is_refused():
    deep: list = []
    for _ in range(10**4):
        deep = [deep]
    with pytest.raises(RequestError, match="nested"):
        check_messages([{"role": "user", "content": "x", "more": deep}])
    with pytest.raises(RequestError, match="template variables"):
        render("{{ tools }}", tools=[print])


def test_text_parts_become_one_text():
    parts = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
    assert check_messages([{"role": "user", "content": parts}])[0]["content"] == "one\ntwo"


def test_tool_calls_need_no_content():
    call = {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f", "arguments": {"a": 1}}}]}
    assert check_messages([call]) == [call]
    assert render("{{ messages[0].tool_calls[0].function.name }}", [call]) == "f"


# ---------------------------------------------------------------- where a template comes from


@pytest.fixture
def load(tmp_path, make, write):
    def load(config=None, jinja=None, legacy=None, name="default"):
        write(tmp_path, make["byte_level"](), **(config or {}))
        if jinja is not None:
            (tmp_path / "chat_template.jinja").write_bytes(jinja)
        if legacy is not None:
            (tmp_path / "chat_template.json").write_text(json.dumps({"chat_template": legacy}), encoding="utf-8")
        return ChatTemplate.load(Tokenizer.load(tmp_path), name)

    return load


def test_the_file_of_its_own_comes_first(load):
    assert load({"chat_template": "from the config"}).render(HELLO) == "from the config"
    assert load({"chat_template": "from the config"}, legacy="legacy").render(HELLO) == "from the config"
    assert load({"chat_template": "from the config"}, jinja="é".encode()).render(HELLO) == "é"


def test_the_old_file_is_found_too(load):
    assert load(legacy="legacy{{ bos_token }}").render(HELLO) == "legacy"
    assert load({"bos_token": "<|end|>"}, legacy="legacy{{ bos_token }}").render(HELLO) == "legacy<|end|>"


def test_templates_with_names(load):
    both = [{"name": "default", "template": "plain"}, {"name": "tool_use", "template": "tools"}]
    assert load({"chat_template": both}).source == "plain"
    assert load({"chat_template": both}, name="tool_use").source == "tools"
    assert load({"chat_template": both[1:]}).source == "tools"
    with pytest.raises(ModelError, match="no template named 'rag'") as caught:
        load({"chat_template": both}, name="rag")
    assert "default, tool_use" in caught.value.hint


def test_without_a_template_the_error_says_what_to_do(load, tmp_path):
    with pytest.raises(ModelError, match="has no chat template") as caught:
        load()
    assert str(tmp_path) in caught.value.message
    assert "generate" in caught.value.hint


@pytest.mark.parametrize("entry", [3, [], [1], [{"name": "x"}], {"default": "x"}])
def test_a_template_of_the_wrong_kind(load, entry):
    with pytest.raises(ModelError, match=r"tokenizer_config\.json: chat_template: must be text"):
        load({"chat_template": entry})


def test_a_template_that_is_no_text_or_too_long(load):
    with pytest.raises(ModelError, match=r"chat_template\.jinja: cannot be read"):
        load(jinja=b"\xff\xfe")
    with pytest.raises(ModelError, match=r"chat_template\.jinja: has \d+ bytes"):
        load(jinja=b"a" * (MAX_TEMPLATE_BYTES + 1))


def test_a_long_template_in_the_config(load):
    with pytest.raises(ModelError, match=r"tokenizer_config\.json: chat_template: is longer"):
        load({"chat_template": "a" * (MAX_TEMPLATE_BYTES + 1)})
