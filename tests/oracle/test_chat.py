"""Chat templates against transformers: the same template and messages give the same text."""

from __future__ import annotations

import pytest

from openwork.text.chat import ChatTemplate

utils = pytest.importorskip("transformers.utils.chat_template_utils")

CALL = {"name": "add", "arguments": {"a": [1, 1]}}
MESSAGES = [
    {"role": "system", "content": '  Be <kind> & "brief". '},
    {"role": "user", "content": "What is 1 + 1?\nSay it's é 🐈."},
    {
        "role": "assistant",
        "content": "<think>easy</think>2",
        "tool_calls": [{"id": "call-1", "type": "function", "function": CALL}],
    },
    {"role": "tool", "content": '{"sum": 2}', "tool_call_id": "call-1"},
    {"role": "user", "content": "Thanks"},
]
TOOLS = [{"type": "function", "function": {"name": "add", "description": "adds <numbers>", "parameters": {"é": [1.5]}}}]

TEMPLATES = {
    "blocks and trimming": """{% for message in messages %}
  {% if not loop.first %}
    {{ '\n' }}
  {% endif %}
[{{ message.role }}] {{ message.content | trim }}
{% endfor %}
{% if add_generation_prompt %}[assistant]{% endif %}
""",
    "macros, namespaces and reverse loops": """
{%- macro show(role, text='', mark=':') -%}{{ role | upper ~ mark }} {{ text }}{% endmacro %}
{%- set ns = namespace(last=-1, seen=[]) %}
{%- for message in messages[::-1] %}
{%- if message.role == 'user' and ns.last < 0 %}{% set ns.last = messages | length - 1 - loop.index0 %}{% endif %}
{%- set ns.seen = ns.seen + [message.role] %}
{%- endfor %}
{{- ns.last }} {{ ns.seen | unique | join(',') }}
{%- for message in messages %}{% if loop.index0 > ns.last - 3 %}
{{ show(message.role, message['content'].split('</think>')[-1].lstrip('\n'), mark='>') }}{% endif %}{% endfor %}""",
    "tools as JSON": """{%- if tools is not none and tools %}{% for tool in tools %}
{{ tool | tojson }}
{{ tool | tojson(indent=4) }}
{{ tool.function.name | safe }}{% endfor %}{% endif %}
{%- for message in messages %}{% if message.tool_calls is defined %}{% for call in message.tool_calls %}
{{ {'name': call.function.name, 'arguments': call.function.arguments} | tojson }}{% endfor %}{% endif %}{% endfor %}""",
    "filters": """{{ messages | selectattr('role', 'equalto', 'user') | map(attribute='content') | list }}
{{ messages | rejectattr('content', 'none') | list | length }} {{ (messages | last).role }}
{{ (messages | first).role }}
{{ messages[1].content | replace('1', 'one') | title }} {{ messages[0].content | length }}
{{ 'a\nb\n\nc' | indent(2) }}|{{ 'a\nb' | indent(3, true) }}|{{ 'a\n\nb' | indent(1, blank=true) }}
{{ [3, 1, 2] | sort(reverse=true) }} {{ [1, 2] | sum }} {{ 7.46 | round(1) }} {{ '%s-%02d' | format('x', 7) }}
{{ {'b': 1, 'a': 2} | dictsort }} {{ {'b': 1} | items | list }} {{ 'x' | default('y') }} {{ none_such | default('y') }}
{{ '{:>5}|{}'.format('r', 2) }} {{ 'x' in 'xyz' }} {{ 2 ** 5 // 3 % 4 }} {{ 'ab' * 3 }} {{ '%d%%' % 5 }}
{{ messages[0].content is string }} {{ messages is iterable }} {{ tools is mapping }} {{ 3 is divisibleby 3 }}
{{ messages | groupby('role') | map('first') | list }} {{ 'a,b' .split(',') | reverse | list }}
{{ 'abcdefghijk' | truncate(5, true, leeway=0) }}
{{ ', '.join(['x', 'y']) }} {{ messages[2].content.startswith('<think>') }} {{ 'ab'[::-1] }} {{ '  x ' .strip() }}""",
    "loops that end early": """{% for message in messages %}{% if message.role == 'tool' %}{% continue %}{% endif %}
{%- if loop.index > 3 %}{% break %}{% endif %}{{ loop.index }}{{ loop.cycle('a', 'b') }}{{ loop.revindex }}
{%- generation %}{{ message.role }}{% endgeneration %}{{ loop.previtem.role if loop.previtem is defined }}
{%- else %}none{% endfor %}{% filter upper %}text {{ bos_token }}{% endfilter %}
{%- set x %}kept {{ 1 }}{% endset %}{{ x }}""",
    "nothing there": "{{ missing }}{% if missing %}x{% endif %}{{ messages[0].missing }}{{ messages[0].get('x') }}",
}


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("tools", [None, TOOLS])
@pytest.mark.parametrize("prompted", [False, True])
def test_the_same_text(name, tools, prompted):
    tokens = {"bos_token": "<s>", "eos_token": "</s>"}
    ours = ChatTemplate(TEMPLATES[name], special_tokens=tokens).render(MESSAGES, prompted, tools=tools)
    compiled = utils._compile_jinja_template(TEMPLATES[name])
    theirs = compiled.render(messages=MESSAGES, tools=tools, documents=None, add_generation_prompt=prompted, **tokens)
    assert ours == theirs
