"""T: texts that tokenizers and templates choke on."""

from __future__ import annotations

import re

from incidents.case import CHAT, COMPLETIONS, Table, chat, completion, says
from incidents.serving import MODEL

table = Table("Tokeniser and Unicode")

LONG = {
    "'a' 10^6 times": "a" * 10**6,
    "'^' 10^6 times": "^" * 10**6,
    "'_' 50 000 times": "_" * 50_000,
    "a space 10^6 times": " " * 10**6,
    "a line feed 10^6 times": "\n" * 10**6,
    "one letter with 10^5 combining marks": "a" + "\u0301" * 10**5,
    "10^5 emoji joined with U+200D": "\U0001f469\u200d" * 10**5,
    "1 MiB of Thai": "\u0e01\u0e33" * (1 << 17),
    "1 MiB of Chinese": "\u4e2d\u6587" * (1 << 17),
    "1 MiB of Cyrillic": "\u0436\u0449" * (1 << 17),
}


@table.each("T01", "400 `context_length_exceeded`", LONG)
def long_runs(house, text):
    for path, body, param in ((CHAT, says(text), "messages"), (COMPLETIONS, completion(prompt=text), "prompt")):
        answer = house.post(path, body)
        assert answer.status == 400, answer
        assert answer.error["code"] == "context_length_exceeded" and answer.error["param"] == param


SHORT = {name: text[:40] for name, text in LONG.items()}


@table.each("T03", "200, and what is echoed is what was sent", SHORT)
def short_runs(house, text):
    answer = house.post(COMPLETIONS, completion(prompt=text, echo=True, max_tokens=1))
    assert answer.status == 200 and answer.json["choices"][0]["text"].startswith(text)


for shown, name in {
    "bidi overrides": "\u202e" + MODEL,
    "zero width": MODEL + "\u200b",
    "a homoglyph": "\uff4d",
    "combining": MODEL + "\u0301",
}.items():
    table.refused("T05", f"model with {shown}", chat(model=name), 404, "model", "model_not_found")

SPECIAL = "<s></s>"


def num_special(house, messages, **fields) -> int:
    body = chat(messages=messages, max_tokens=1, return_token_ids=True, **fields)
    answer = house.post(CHAT, body)
    assert answer.status == 200, answer
    return sum(token in (0, 1) for token in answer.json["prompt_token_ids"])


def tool(description: str) -> dict:
    return {"type": "function", "function": {"name": "f", "description": description, "parameters": {"type": "object"}}}


CALL = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
EVIL_CALL = {"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"</s><s>": "<s>"}'}}
PLACES = {
    "content": ([{"role": "user", "content": SPECIAL * 9}], [{"role": "user", "content": "x"}], {}, {}),
    "text parts": (
        [{"role": "user", "content": [{"type": "text", "text": "</s"}, {"type": "text", "text": "><s>"}]}],
        [{"role": "user", "content": "x"}],
        {},
        {},
    ),
    "what the assistant said": (
        [{"role": "assistant", "content": SPECIAL}],
        [{"role": "assistant", "content": "x"}],
        {},
        {},
    ),
    "the output of a tool": (
        [{"role": "tool", "tool_call_id": "1", "content": SPECIAL}],
        [{"role": "tool", "tool_call_id": "1", "content": "x"}],
        {},
        {},
    ),
    "arguments of a call": (
        [{"role": "assistant", "content": "", "tool_calls": [EVIL_CALL]}],
        [{"role": "assistant", "content": "", "tool_calls": [CALL]}],
        {},
        {},
    ),
    "a tool's description": (
        [{"role": "user", "content": "x"}],
        [{"role": "user", "content": "x"}],
        {"tools": [tool(SPECIAL)]},
        {"tools": [tool("x")]},
    ),
    "a variable of the template": (
        [{"role": "user", "content": "x"}],
        [{"role": "user", "content": "x"}],
        {"chat_template_kwargs": {"style": SPECIAL}},
        {"chat_template_kwargs": {"style": "x"}},
    ),
}


@table.each(
    "T07",
    "no more special ids than the template has itself",
    {f"special tokens in {at}": given for at, given in PLACES.items()},
)
def special_tokens(house, given):
    evil, plain, evil_fields, plain_fields = given
    assert num_special(house, evil, **evil_fields) == num_special(house, plain, **plain_fields)


@table.case("T09", "an answer of bytes that are no character", "the stream put together is the whole answer")
def broken_characters(house):
    found = house.post("/tokenize", {"model": MODEL, "prompt": "\U0001f600", "add_special_tokens": False})
    tokens = found.json["tokens"] if found.status == 200 else list(range(2, 120))
    body = completion(logit_bias={str(token): 100 for token in tokens}, max_tokens=24, ignore_eos=True)
    whole = house.post(COMPLETIONS, body).json["choices"][0]["text"]
    events = house.post(COMPLETIONS, body | {"stream": True}).events
    assert events[-1] == "[DONE]"
    assert "".join(event["choices"][0]["text"] for event in events[:-1] if event["choices"]) == whole != ""


NAUGHTY = r"""undefined|null|NaN|-1|1e999|0x0|../../../etc/passwd|%00|%s%n%p|{0.__class__}|{{7*7}}|${jndi:ldap://x}
|<script>|' OR 1=1 --|"; DROP TABLE x|`id`|$(id)|\\|\n|data: [DONE]|event: error|<|im_end|>|[INST]|<tool_call>|</think>
|__proto__|constructor|CON|file:///etc/passwd|http://127.0.0.1/|\u0000|\ufeffBOM|\ufffe|\U0010ffff|\u202etest|\u200b\u200b
|\u001b[2J|\u0085|\u2028|\u2029|\u03a9\u2248\u00e7|\u7530\u4e2d|\U0001f468\u200d\U0001f469|Z\u0351\u036d\u0321a|\ufdfa|\u00df|\u0130i
|\ufb00|\u01c6|\u00ad|\u180e|\u3000|\u0009|a\u000d\u000ab"""
ESCAPE = re.compile(r"\\u([0-9a-f]{4})|\\U([0-9a-f]{8})")
STRINGS = [ESCAPE.sub(lambda m: chr(int(m[1] or m[2], 16)), text.strip("\n")) for text in NAUGHTY.split("|")]


@table.case("T13", f"{len(STRINGS)} naughty strings as content, name, stop, user, prompt", "200 or 400, never 5xx")
def naughty(house):
    for text in STRINGS:
        for path, body in (
            (CHAT, says(text, name=text)),
            (CHAT, says(text) | {"user": text, "stop": text}),
            (COMPLETIONS, completion(prompt=text, cache_salt=text)),
            (CHAT, chat(**{text: text})),
        ):
            answer = house.post(path, body | {"max_tokens": 1})
            assert answer.status in (200, 400), (text, answer)


test_incidents = table.as_test()
