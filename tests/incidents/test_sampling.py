"""S: parameters at and beyond their bounds, alone and together."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from incidents.case import CHAT, COMPLETIONS, Table, chat, completion
from incidents.serving import as_bytes, eventually, request

table = Table("Sampling")
VOCAB, CONTEXT = 2048, 512


def text_of(answer) -> str:
    return answer.json["choices"][0]["message"]["content"]


for value in (-1, 2.0001, 1e308):
    table.refused("S01", f"temperature {value}", chat(temperature=value), 400, "temperature")


@table.each("S01", "the greedy answer", {f"temperature {value}": value for value in (1e-320, 1e-8, 0.0)})
def cold(house, value):
    answer = house.post(CHAT, chat(temperature=value, seed=1))
    assert text_of(answer) == text_of(house.post(CHAT, chat(temperature=0)))


table.refused("S03", "top_k -2", chat(top_k=-2), 400, "top_k")
for value in (-1, 0, VOCAB + 1, 2**31):
    table.accepted("S03", f"top_k {value}", chat(top_k=value))
for name in ("presence_penalty", "frequency_penalty"):
    for value in (-2.1, 2.1):
        table.refused("S05", f"{name} {value}", chat(**{name: value}), 400, name)
for value in (0, -1, 1e-30, 1e30):
    table.refused("S05", f"repetition_penalty {value}", chat(repetition_penalty=value), 400, "repetition_penalty")
table.accepted(
    "S05", "penalties at their bounds", chat(presence_penalty=2, frequency_penalty=-2, repetition_penalty=100)
)
for name, value in (("top_p", 0), ("top_p", 1.1), ("min_p", -0.1), ("min_p", 1.1)):
    table.refused("S06", f"{name} {value}", chat(**{name: value}), 400, name)
for fields in ({"n": 3, "best_of": 2}, {"best_of": 10**6}, {"best_of": 2, "stream": True}):
    shown = ", ".join(f"{name} {value}" for name, value in fields.items())
    table.refused("S07", shown, completion(**fields), 400, "best_of", path=COMPLETIONS)
for fields in ({"n": 0}, {"n": -1}, {"n": 10**6}, {"n": 2**63}, {"n": "2"}, {"n": 1.5}, {"n": True}):
    table.refused("S08", f"n {fields['n']!r}", chat(**fields), 400, "n")
table.refused("S08", "64 prompts with n 16", completion(prompt=["x"] * 64, n=16), 400, path=COMPLETIONS)
table.refused("S08", "10 000 prompts", completion(prompt=["x"] * 10_000), 400, path=COMPLETIONS)
for value in (0, -1, 2**31, 2**63, CONTEXT + 1):
    table.refused("S09", f"max_tokens {value}", chat(max_tokens=value), 400)
table.refused("S09", "max_tokens 0 without echo", completion(max_tokens=0), 400, "max_tokens", path=COMPLETIONS)
table.accepted("S09", "max_tokens 0 with echo", completion(max_tokens=0, echo=True), path=COMPLETIONS)
table.refused("S10", "min_tokens above max_tokens", chat(min_tokens=5), 400, "min_tokens")
for value in (21, -1, 10**6):
    table.refused("S11", f"top_logprobs {value}", chat(logprobs=True, top_logprobs=value), 400, "top_logprobs")
table.refused("S11", "top_logprobs without logprobs", chat(top_logprobs=2), 400, "top_logprobs")
table.refused("S11", "logprobs 10^6", completion(logprobs=10**6), 400, "logprobs", path=COMPLETIONS)


@table.case("S13", "echo and logprobs twice, the second time from the prefix cache", "the same numbers")
def echoed(house):
    body = completion(prompt="Once upon a time there was a little dog who " * 4, echo=True, logprobs=2, max_tokens=0)
    first, second = (house.post(COMPLETIONS, body).json["choices"][0]["logprobs"] for _ in range(2))
    assert first == second and len(first["tokens"]) > 32
    assert all(value is None or math.isfinite(value) for value in first["token_logprobs"])


table.refused(
    "S14", "logit_bias of 10^5 tokens", lambda: chat(logit_bias={str(i): 1 for i in range(10**5)}), 400, "logit_bias"
)
for key in ("-1", str(VOCAB), "x", "1.0", "", "9" * 30, " 1", "\u0661"):
    table.refused("S14", f"logit_bias of {key!r}", chat(logit_bias={key: 1}), 400)
table.refused("S14", "logit_bias of 101", chat(logit_bias={"1": 101}), 400)


@table.case("S15", "logit_bias of -100 for half of the vocabulary", "an answer without it")
def banned(house):
    usual = house.post(COMPLETIONS, completion(return_token_ids=True)).json["choices"][0]["token_ids"]
    bias = {str(token): -100 for token in (*usual, *range(1000))}
    answer = house.post(COMPLETIONS, completion(logit_bias=bias, return_token_ids=True))
    assert answer.status == 200 and not set(usual) & set(answer.json["choices"][0]["token_ids"])


@table.case("S16", "17 stop strings", "400 (stop)")
def stops(house):
    for stop in (["x"] * 17, [""], "", ["x" * 257], [1], {"a": 1}, "x" * 10**6):
        answer = house.post(CHAT, chat(stop=stop))
        assert answer.status == 400 and answer.error["param"].startswith("stop"), answer


@table.case("S17", "a stop string that begins and ends within tokens", "it stops there, and nothing of it is streamed")
def stop_within(house):
    whole = house.post(COMPLETIONS, completion(prompt="Once upon a time", max_tokens=40)).json["choices"][0]["text"]
    stop = whole[11:16]
    place = whole.index(stop)
    body = completion(prompt="Once upon a time", max_tokens=40, stop=[stop])
    assert house.post(COMPLETIONS, body).json["choices"][0]["text"] == whole[:place]
    streamed = house.post(COMPLETIONS, body | {"stream": True}).events
    assert "".join(event["choices"][0]["text"] for event in streamed[:-1] if event["choices"]) == whole[:place]
    assert streamed[-2]["choices"][0]["finish_reason"] == "stop"


@table.case("S21", "ignore_eos up to the end of the window", "ends by length")
def to_the_end(house):
    answer = house.post(COMPLETIONS, completion(prompt=[5] * 400, ignore_eos=True, max_tokens=CONTEXT - 400))
    assert answer.status == 200 and answer.json["choices"][0]["finish_reason"] == "length"
    assert answer.json["usage"]["total_tokens"] == CONTEXT


INTERNAL = """request_id kv_transfer_params mm_processor_kwargs lora_path trust_remote_code chat_template
guided_decoding_backend data_parallel_rank tokenize code_revision lora_request logits_processors bad_words
prompt_embeds use_beam_search structural_tag"""
for name in INTERNAL.split():
    table.refused("S25", name, chat(**{name: "x"}), 400, name)
table.refused("S25", "priority", chat(priority=-5), 400, "priority")
for name, value in {
    "guided_json": 5,
    "guided_regex": {},
    "guided_choice": "ab",
    "guided_grammar": [],
    "structured_outputs": "json",
    "decoding": "beam",
}.items():
    table.refused("S26", f"{name}: {value!r}", chat(**{name: value}), 400, name)
table.refused("S26", "two constraints", chat(guided_regex="a", response_format={"type": "json_object"}), 400)
for shown, value in {
    '{"type": "xml"}': {"type": "xml"},
    '"json"': "json",
    "{}": {},
    '{"type": "json_object"} with a schema': {"type": "json_object", "schema": {}},
    '{"type": "json_schema"} without one': {"type": "json_schema"},
}.items():
    table.refused("S27", f"response_format {shown}", chat(response_format=value), 400)
for name in ("speculative_config", "num_scheduler_steps", "max_num_seqs", "enable_prefix_caching", "ignore_limits"):
    table.refused("S29", name, chat(**{name: 1}), 400, name)

OPTIONS = ["dog", "cat", "very old tree", "very old dog"]
CHOOSE = {"strategy": "choose", "options": OPTIONS}
BEAM = {"strategy": "beam", "width": 4}
BEST = {"strategy": "best_first"}
SEARCHES = {
    "width 65": {"strategy": "beam", "width": 65},
    "width 10^9": {"strategy": "beam", "width": 10**9},
    "groups that do not divide the width": {**BEAM, "groups": 3, "diversity": 1.0},
    "length_penalty 1e308": {**BEAM, "length_penalty": 1e308},
    "no lengths": BEST,
    "no options": {"strategy": "choose", "options": []},
    "33 000 options": {"strategy": "choose", "options": [f"o{i}" for i in range(33_000)]},
    "an option twice": {"strategy": "choose", "options": ["a", "a"]},
    "an option longer than the window": {"strategy": "choose", "options": ["word " * 2000]},
    "an option of 7 MiB": {"strategy": "choose", "options": ["x" * (7 << 20)]},
    "an option with half of a surrogate pair": {"strategy": "choose", "options": ["\ud800"]},
    "an option that is a token out of range": {"strategy": "choose", "options": [[2**31 - 1]]},
    "a budget of 10^9 nodes": {**CHOOSE, "budget": {"nodes": 10**9}},
    "a budget below 0": {**CHOOSE, "budget": {"seconds": -1}},
    "a tree of 10^6": {**CHOOSE, "tree": 10**6},
    "a strategy that is none": {"strategy": "__import__"},
    "a field of another strategy": {**BEAM, "options": OPTIONS},
    "100 phrases": {**BEST, "penalty": {"coverage": 1, "phrases": ["a"] * 100}},
}
for shown, decoding in SEARCHES.items():
    body = completion(decoding=decoding, max_tokens=..., temperature=...)
    table.refused("S28", f"decoding: {shown}", body, 400, path=COMPLETIONS)
body = completion(prompt=["a"] * 64, decoding=BEAM, temperature=...)
table.refused("S28", "a beam for 64 prompts", body, 400, path=COMPLETIONS)
body = completion(decoding=BEAM, temperature=0.5)
table.refused("S28", "a beam with a temperature", body, 400, "temperature", path=COMPLETIONS)


@table.case("S30", "eight searches of each kind at once, streamed and not", "each has what it has alone")
def searches(house):
    plain = {"temperature": ...}
    bodies = [
        completion(decoding=CHOOSE, max_tokens=..., **plain),
        completion(decoding={**BEAM, "width": 8}, max_tokens=12, **plain),
        completion(decoding=BEST, min_tokens=3, max_tokens=4, **plain),
        completion(decoding=BEST, guided_choice=OPTIONS, max_tokens=9, **plain),
    ]

    def ask(body):
        answer = house.post(COMPLETIONS, body)
        assert answer.status == 200, answer
        return answer.json["choices"], answer.json["search"]

    def stream(body):
        answer = house.post(COMPLETIONS, body | {"stream": True})
        events = answer.events
        assert events[-1] == "[DONE]"
        text = "".join(each["choices"][0]["text"] for each in events[:-1] if each["choices"])
        return text, events[-2]["search"]

    alone = [ask(body) for body in bodies]
    with ThreadPoolExecutor(16) as pool:
        jobs = [(place, pool.submit(ask, bodies[place])) for place in range(4) for _ in range(8)]
        streams = [(place, pool.submit(stream, bodies[place])) for place in range(4) for _ in range(2)]
    for place, job in jobs:
        assert job.result() == alone[place]
    for place, job in streams:
        assert job.result() == (alone[place][0][0]["text"], alone[place][1])


@table.case("S31", "a client who leaves in the middle of a search", "it ends; its blocks come back")
def left(house):
    body = completion(decoding={**BEAM, "width": 32}, max_tokens=450, temperature=..., ignore_eos=True)
    for is_stream in (False, True):
        with house.dial() as client:
            client.sendall(request("POST", COMPLETIONS, body=as_bytes(body | {"stream": is_stream})))
            eventually(lambda: house.metrics()["vllm:num_requests_running"] > 1, "it runs")
        eventually(lambda: house.metrics()["vllm:num_requests_running"] <= 1, "nobody but the victim runs")


test_incidents = table.as_test()

EDGES = {
    "temperature": [0, 1e-9, 2, 2.1, -0.0, None],
    "top_p": [1, 1e-9, 0, None],
    "top_k": [0, 1, -1, VOCAB, 2**40, None],
    "min_p": [0, 1, None],
    "n": [1, 2, 0, 17],
    "max_tokens": [1, 2, 0, 600, None],
    "min_tokens": [0, 1, 9],
    "presence_penalty": [-2, 2, 3],
    "repetition_penalty": [0.01, 100, 1, 0],
    "seed": [0, 2**63 - 1, -1, 2**64],
    "stop": [None, "a", ["\n"] * 16, []],
    "stop_token_ids": [[], [0], [VOCAB], list(range(100))],
    "logprobs": [True, False, None],
    "top_logprobs": [0, 20, 21, None],
    "logit_bias": [{}, {"0": 100}, {"0": -100, "1": 100}, None],
    "ignore_eos": [True, None],
    "stream": [True, False],
}


@pytest.fixture(scope="module")
def audited_house(house):
    with house.audited():
        yield house


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.fixed_dictionaries({}, optional={name: st.sampled_from(values) for name, values in EDGES.items()}))
def test_s23_bounds_together_are_never_an_error_of_ours(audited_house, fields):
    """S23: an answer or a refusal that names a parameter, whatever the combination."""
    answer = audited_house.post(CHAT, chat(**fields))
    assert answer.status in (200, 400), answer
    if answer.status == 400:
        assert answer.error["param"]
    elif fields.get("stream"):
        assert answer.events[-1] == "[DONE]"
