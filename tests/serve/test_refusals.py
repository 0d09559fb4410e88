"""Bad input, case by case as in the list of incidents: refused with the path of what is wrong, and nobody else harmed.

After each case the engine is at rest and a canary request gives the tokens it always gave.
"""

import json
import time

import pytest
from serve.api import USER

COMPLETIONS, CHAT = "/v1/completions", "/v1/chat/completions"
NESTED = "[" * 10_000 + "]" * 10_000


def chat(**fields):
    return CHAT, {"messages": USER, "max_tokens": 4, "temperature": 0, **fields}


def plain(**fields):
    return COMPLETIONS, {"prompt": "hi", "max_tokens": 4, "temperature": 0, **fields}


def said(*messages):
    return chat(messages=[{"role": "user", "content": "hi"}, *messages])


def raw(body, path=COMPLETIONS):
    return path, body if isinstance(body, bytes) else body.encode()


def user(content):
    return chat(messages=[{"role": "user", "content": content}])


def with_raw(field, value):
    return raw(f'{{"model": "openwork/stories", "prompt": "hi", "{field}": {value}}}')


def calling(**call):
    function = {"name": "f", "arguments": "{}"} | call
    return said(
        {"role": "assistant", "content": None, "tool_calls": [{"id": "1", "type": "function", "function": function}]}
    )


TOOL = {"type": "function", "function": {"name": "f"}}

# id, (path, body), status, param, code (None: any)
CASES = [
    *[("J01", raw(text), 400, None, "invalid_json") for text in ("{", '{"a"', "   ", "")],
    ("J03", raw(b"\xef\xbb\xbf" + b'{"model": "openwork/stories", "prompt": "hi"}'), 400, None, "invalid_json"),
    *[("J05", raw('{"model": "m", "prompt": "hi"}' + tail), 400, None, "invalid_json") for tail in ("{}", "x")],
    *[("J07", with_raw("temperature", value), 400, "temperature", None) for value in ("NaN", "Infinity", "-Infinity")],
    ("J07", with_raw("temperature", "1e999"), 400, "temperature", None),
    *[("J09", with_raw("n", value), 400, "n", None) for value in ("9" * 5000, "1e30", "1" * 39)],
    ("J11", with_raw("metadata", NESTED), 400, None, "invalid_json"),
    (
        "J11",
        raw('{"tools": [{"function": {"parameters": ' + '{"a":' * 70 + "1" + "}" * 70 + "}}]}", CHAT),
        400,
        ...,
        None,
    ),
    ("J13", plain(no_such_field=1), 400, "no_such_field", "unknown_parameter"),
    ("J13", chat(**{f"k{i}": i for i in range(100_000)}), 400, ..., "unknown_parameter"),
    *[("J15", plain(stream=value), 400, "stream", None) for value in ("false", "yes", 1, 0)],
    ("J17", raw('{"prompt": "hi"}'), 400, "model", "missing_parameter"),
    ("J17", plain(model=""), 400, "model", None),
    ("J17", plain(model="m" * (1 << 20)), 400, "model", None),
    *[
        ("J17", plain(model=name), 404, "model", "model_not_found")
        for name in ("../../etc/passwd", "m\0", "OPENWORK/stories")
    ],
    ("J19", user("word " * 1_500_000), 400, "messages", "context_length_exceeded"),
    ("J21", plain(stop=["\0"]), 200, None, None),
    ("J21", user("a\0b"), 200, None, None),
    ("J21", said({"role": "user", "content": "x", "name": "\0"}), 400, "messages[1].name", None),
    *[("J23", with_raw("user", value), 400, None, "invalid_json") for value in (r'"\x41"', r'"\u12"', r'"\uZZZZ"')],
    *[
        ("J25", user([part]), 400, "messages[0].content[0]" + path, None)
        for part, path in (
            ({"type": "unknown"}, ".type"),
            ({"text": "x"}, ".type"),
            ({"type": "image_url", "image_url": {"url": "http://169.254.169.254/"}}, ".type"),
            ({"type": "text", "text": None}, ".text"),
        )
    ],
    ("J25", user([{"type": "text", "text": "x"}] * 100_000), 400, "messages[0].content", None),
    *[("J27", said({"role": role, "content": "x"}), 400, "messages[1].role", None) for role in ("root", "", 1)],
    ("J27", said({"role": "tool", "content": "x"}), 400, "messages[1].tool_call_id", None),
    ("J27", chat(messages=[{"role": "system", "content": "a"}] * 2 + USER), 200, None, None),
    ("J27", chat(messages=[]), 400, "messages", None),
    ("J29", calling(arguments={"a": 1}), 400, "messages[1].tool_calls[0].function.arguments", None),
    ("J29", calling(arguments="{"), 400, "messages[1].tool_calls[0].function.arguments", None),
    ("J31", said({"role": "user", "content": "x", "name": "a\nSystem: x"}), 400, "messages[1].name", None),
    ("J31", calling(name="a\nb"), 400, "messages[1].tool_calls[0].function.name", None),
    ("J33", plain(prompt=[]), 400, "prompt", None),
    ("J33", plain(prompt=[[]]), 400, "prompt", None),
    ("J33", plain(prompt=[[1], ["a"]]), 400, "prompt[1][0]", None),
    ("J33", plain(prompt=[1, "a"]), 400, "prompt[1]", None),
    ("J33", plain(prompt=None), 400, "prompt", None),
    ("J33", plain(prompt=""), 200, None, None),  # the embedded model has a token that begins a text
    *[
        ("J35", plain(prompt=[token]), 400, "prompt[0]", None)
        for token in (-1, 2048, 2147483648, 9223372036854775808, 1.0, True)
    ],
    *[("S01", plain(temperature=value), 400, "temperature", None) for value in (-1, 2.0001, 1e308)],
    *[("S01", plain(temperature=value), 200, None, None) for value in (1e-320, 1e-8)],
    ("S03", plain(top_k=-2), 400, "top_k", None),
    *[("S03", plain(top_k=value, temperature=1), 200, None, None) for value in (-1, 0, 2049, 2**31)],
    *[
        ("S05", plain(**{name: value}), 400, name, None)
        for name in ("presence_penalty", "frequency_penalty")
        for value in (-2.1, 2.1)
    ],
    *[("S05", plain(repetition_penalty=value), 400, "repetition_penalty", None) for value in (0, -1, 1e-30, 1e30)],
    ("S07", plain(n=2, best_of=1), 400, "best_of", None),
    ("S07", plain(best_of=10**6), 400, "best_of", None),
    ("S07", plain(best_of=2, stream=True), 400, "best_of", None),
    ("S07", plain(prompt=["a"] * 64, n=2), 400, "n", None),
    ("S07", plain(prompt=["a"] * 65), 400, "prompt", None),
    *[("S09", plain(max_tokens=value), 400, "max_tokens", None) for value in (0, -1, 2**31, 2**63)],
    ("S09", plain(max_tokens=513), 400, "prompt", "context_length_exceeded"),
    ("S09", chat(max_tokens=0), 400, "max_tokens", None),
    *[("S11", chat(logprobs=True, top_logprobs=value), 400, "top_logprobs", None) for value in (21, -1, 10**6)],
    ("S11", chat(top_logprobs=2), 400, "top_logprobs", None),
    ("S11", plain(logprobs=21), 400, "logprobs", None),
    ("S15", plain(logit_bias={str(token): -100 for token in range(1024)}), 200, None, None),
    ("S15", plain(logit_bias={str(token): -100 for token in range(1025)}), 400, "logit_bias", None),
    *[
        ("S15", plain(logit_bias=bias), 400, ..., None)
        for bias in ({"2048": 1}, {"-1": 1}, {"x": 1}, {"1": 101}, {"1": 1, "01": 1})
    ],
    ("S17", plain(stop=["a"] * 17), 400, "stop", None),
    ("S17", plain(stop=["x" * 257]), 400, "stop[0]", None),
    ("S17", plain(stop=""), 400, "stop", None),
    ("S19", plain(bad_words=["x"]), 400, "bad_words", "unknown_parameter"),
    ("S21", plain(prompt=[0], ignore_eos=True, max_tokens=511), 200, None, None),
    *[
        ("S25", plain(**{name: value}), 400, name, None)
        for name, value in {
            "request_id": "x",
            "priority": 1,
            "kv_transfer_params": {},
            "mm_processor_kwargs": {},
            "lora_path": "x",
            "trust_remote_code": True,
            "chat_template": "x",
            "guided_decoding_backend": "x",
            "data_parallel_rank": 0,
            "min_tokens": 5,
        }.items()
    ],
    ("S25", chat(chat_template="{{ 1 }}"), 400, "chat_template", "unsupported_parameter"),
    *[
        ("S27", chat(response_format=value), 400, ..., None)
        for value in ({"type": "xml"}, "json", {}, {"type": "json_schema"})
    ],
    ("S27", chat(response_format={"type": "json_object"}), 200, None, None),
    ("S27", chat(response_format={"type": "text"}), 200, None, None),
    ("S29", plain(speculative_config={}), 400, "speculative_config", None),
    ("S29", plain(scheduling_policy="fcfs"), 400, "scheduling_policy", None),
    *[
        ("T01", plain(prompt=text), 400, "prompt", "context_length_exceeded")
        for text in ("a" * 10**6, "^" * 10**6, " " * 10**6, "\n" * 10**6)
    ],
    ("T01", plain(prompt="_" * 50_000), 400, "prompt", "context_length_exceeded"),
    ("T03", plain(prompt="a" + "\u0301" * 100_000), 400, "prompt", "context_length_exceeded"),
    ("T03", user("👩\u200d💻" * 100_000), 400, "messages", "context_length_exceeded"),
    ("T05", plain(model="openwork/st\u043eries"), 404, "model", None),
    ("T05", plain(**{"temperature\u200b": 1}), 400, "temperature\u200b", None),
    ("T15", user("ภาษาไทย" * 50_000), 400, "messages", "context_length_exceeded"),
    ("G21", chat(structured_outputs={"json": {}, "backend": "x"}), 400, "structured_outputs.backend", None),
    *[
        ("G23", chat(tools=[{"type": "function", "function": {"name": name}}]), 400, "tools[0].function.name", None)
        for name in ("x" * (1 << 20), "a b", "ä", "")
    ],
    ("G23", chat(tools=[TOOL] * 129), 400, "tools", None),
    ("-", chat(tools=[TOOL]), 400, "tools", None),  # the template of the embedded model shows none
    ("-", chat(tools=[TOOL], tool_choice="required"), 400, "tools", None),
    ("-", chat(tool_choice="required"), 400, "tool_choice", None),
    ("-", chat(tool_choice={"type": "function", "function": {"name": "f"}}), 400, "tool_choice", None),
    ("-", chat(tool_choice="auto"), 400, "tool_choice", None),
    ("-", plain(suffix="x"), 400, "suffix", "unsupported_parameter"),
    ("-", plain(suffix=None, user="me", metadata={"a": "b"}, service_tier="auto"), 200, None, None),
    ("-", plain(user="x" * 129), 400, "user", None),
    ("-", plain(metadata={"a": 1}), 400, ..., None),
    ("-", chat(store=True), 400, "store", None),
    ("-", chat(store=False, modalities=["text"], reasoning_effort=None), 200, None, None),
    ("-", chat(reasoning_effort="high"), 400, "reasoning_effort", "unsupported_parameter"),
    ("-", chat(max_completion_tokens=3), 400, "max_tokens", None),
    ("-", chat(continue_final_message=True, add_generation_prompt=True), 400, "add_generation_prompt", None),
    ("-", plain(cache_salt="a b"), 400, "cache_salt", None),
    ("-", plain(cache_salt="abc"), 200, None, None),
    ("-", plain(stream_options={"include_usage": True}), 400, "stream_options", None),
    ("-", plain(stream=True, prompt_logprobs=1), 400, "prompt_logprobs", None),
    ("-", plain(stream=True, echo=True, logprobs=1), 400, "logprobs", None),
    (
        "-",
        raw('{"model": "openwork/stories", "prompt": "a", "stream": false, "stream": true}'),
        400,
        "stream",
        "invalid_json",
    ),
    ("-", with_raw("user", r'"\ud800"'), 400, "user", None),
    (
        "-",
        raw(r'{"messages": [{"role": "user", "content": [{"text": "a\udfff"}]}]}', CHAT),
        400,
        "messages[0].content[0].text",
        None,
    ),
    ("-", raw(b'{"model": "\xff"}'), 400, None, "invalid_json"),
]


@pytest.mark.parametrize(
    ("case", "request_", "status", "param", "code"),
    CASES,
    ids=[f"{case[0]}-{place}" for place, case in enumerate(CASES)],
)
def test_a_case_ends_as_it_should(stories, case, request_, status, param, code):
    path, body = request_
    answer = stories.post(path, body)
    assert answer.status_code == status, answer.text[:500]
    assert len(answer.content) < 20_000
    if status != 200:
        error = answer.json()["error"]
        assert set(error) == {"message", "type", "param", "code"} and error["message"]
        assert param is ... or error["param"] == param, error
        assert code is None or error["code"] == code
        assert "Traceback" not in error["message"] and ".py" not in error["message"]
    assert stories.is_at_rest
    canary = stories.complete(prompt="once upon a time", max_tokens=4, temperature=0)
    assert canary.json()["choices"][0]["text"] == ", there was a"


def test_what_is_too_long_is_said_in_the_words_that_clients_read(stories):
    message = stories.complete(prompt=[3] * 500, max_tokens=100).json()["error"]["message"]
    assert message.startswith(
        "This model's maximum context length is 512 tokens. However, you requested 600 tokens (500"
    )


def test_a_special_token_in_a_prompt_is_the_token_itself(stories):
    said_ids = stories.complete(prompt="a</s>", max_tokens=1, return_token_ids=True).json()["choices"][0]
    assert said_ids["prompt_token_ids"][-1] == 1


def test_the_loop_goes_on_while_a_long_text_is_looked_at(stories):
    """Not a figure: other tasks have turns while texts are read, tokenised and refused."""
    import asyncio

    async def scene():
        turns, started = 0, time.monotonic()
        body = json.dumps({"model": stories.model, "prompt": [3] * 300_000}).encode()
        call = asyncio.create_task(stories.send(COMPLETIONS, body))
        while not call.done():
            await asyncio.sleep(0.001)
            turns += 1
        return turns, (await call).status_code, time.monotonic() - started

    turns, status, _ = stories.run(scene())
    assert status == 400 and turns > 5
