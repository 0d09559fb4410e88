"""Q: many at once, clients that go, clients that read slowly."""

from __future__ import annotations

import random
import socket
import struct
import threading
import time
from concurrent.futures import ThreadPoolExecutor

from incidents.case import CHAT, COMPLETIONS, Table, chat, completion, says
from incidents.house import GOLDEN
from incidents.serving import answers, as_bytes, eventually, read_all, request

table = Table("Concurrency and timing")
GRAMMAR_BYTES = 64 << 20  # that the compiled constraints of an engine's process may take (text/guide.py)
LONG = {"prompt": "The little dog", "max_tokens": 480, "ignore_eos": True}


def reset(client: socket.socket) -> None:
    """Close with a reset, as a process that is killed does."""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


MOMENTS = {
    f"{kind}, gone {when}, {how}": (is_stream, when, how)
    for kind, is_stream in (("stream", True), ("non-stream", False))
    for when in ("within the head", "within the body", "at once", "after a moment")
    for how in ("closed", "reset")
}
MOMENTS |= {f"stream, gone after {n} events, {how}": (True, n, how) for n in (1, 20) for how in ("closed", "reset")}


@table.each("Q01", "aborted; its blocks come back", MOMENTS)
def gone(house, given):
    is_stream, when, how = given
    body = completion(**LONG, stream=is_stream, n=16, temperature=1)
    before = house.metrics()["vllm:generation_tokens_total"]
    data = request("POST", COMPLETIONS, body=as_bytes(body))
    sent = {"within the head": data[:30], "within the body": data[:-10]}.get(when, data)
    with house.dial() as client:
        client.sendall(sent)
        if when == "after a moment":
            time.sleep(0.02)
        elif isinstance(when, int):
            got = b""
            while got.count(b"data: ") < when:
                got += client.recv(4096)
        reset(client) if how == "reset" else client.close()
    eventually(lambda: house.metrics()["vllm:num_requests_running"] <= 1, "nobody but the victim runs")
    assert house.metrics()["vllm:generation_tokens_total"] - before < 16 * 480 / 2


@table.each("Q03", "the whole answer", {"a stream": True, "a plain request": False})
def half_close(house, is_stream):
    body = completion(stream=is_stream, max_tokens=40, ignore_eos=True)
    (answer,) = house.raw(request("POST", COMPLETIONS, body=as_bytes(body)), shut=True)
    assert answer.status == 200 and answer.is_whole
    if is_stream:
        assert answer.events[-1] == "[DONE]"
    else:
        assert answer.json["usage"]["completion_tokens"] == 40


@table.case("Q07", "junk while a stream comes", "ignored, or the connection closed; the stream is not mixed up")
def junk(house):
    with house.stream(COMPLETIONS, completion(**LONG, stream=True)) as stream:
        stream.next()
        stream.client.sendall(b"GET /version HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" * 10)
        events = []
        while (event := stream.next()) is not None:
            events.append(event)
    assert events[-1] == "[DONE]"


@table.case("Q09", "gone at the last token", "one end; blocks freed once")
def at_the_end(house):
    for num_tokens in range(1, 9):
        with house.stream(COMPLETIONS, completion(stream=True, max_tokens=num_tokens, ignore_eos=True)) as stream:
            for _ in range(num_tokens):
                stream.next()
            reset(stream.client)


def ask_all(house, bodies, path=COMPLETIONS):
    with ThreadPoolExecutor(len(bodies)) as pool:
        return list(pool.map(lambda body: house.post(path, body), bodies))


@table.case("Q17", "32 neighbours of every kind, some of whom go", "each has the tokens that it has alone")
def neighbours(house):
    draw = random.Random(7)
    bodies = [
        completion(
            prompt=draw.choice(["Once", "The cat", "One day a girl named", [5, 6, 7] * draw.randrange(1, 60)]),
            max_tokens=draw.randrange(1, 60),
            temperature=draw.choice([0, 0.7, 1.5]),
            seed=draw.randrange(2**40),
            top_k=draw.choice([0, 5]),
            n=draw.choice([1, 1, 3]),
            frequency_penalty=draw.choice([0, 1.0]),
            logprobs=draw.choice([None, 2]),
            return_token_ids=True,
        )
        for _ in range(24)
    ]
    alone = [house.post(COMPLETIONS, body).json["choices"] for body in bodies]

    def go_away(_):
        with house.stream(COMPLETIONS, completion(**LONG, stream=True)) as stream:
            stream.next()

    with ThreadPoolExecutor(32) as pool:
        gone = pool.map(go_away, range(8))
        together = list(pool.map(lambda body: house.post(COMPLETIONS, body).json["choices"], bodies))
        list(gone)
    assert together == alone


@table.case("Q19", "the worst bodies of J19 and T01, eight at a time", "refused; /health says 200 all the while")
def worst(house):
    bodies = [
        says("word " * 1_650_000),
        says("a" * 10**6),
        says("\u0e01\u0e33" * (1 << 17)),
        chat(tools=[{}] * 10**5),
    ] * 2
    over = threading.Event()
    statuses = []

    def watch():
        while not over.is_set():
            statuses.append(house.get("/health").status)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        found = ask_all(house, bodies, CHAT)
    finally:
        over.set()
        watcher.join()
    assert {answer.status for answer in found} == {400} and set(statuses) == {200}


@table.case("Q21", "the same request streamed and not", "the same text, logprobs, usage and reason")
def streamed_or_not(house):
    body = chat(max_tokens=24, temperature=0.9, seed=11, logprobs=True, top_logprobs=2, n=2)
    whole = house.post(CHAT, body).json
    events = house.post(CHAT, body | {"stream": True, "stream_options": {"include_usage": True}}).events
    assert events.pop() == "[DONE]"
    assert {key: value for key, value in events[-1]["usage"].items() if key != "prompt_tokens_details"} == {
        key: value for key, value in whole["usage"].items() if key != "prompt_tokens_details"
    }
    for choice in whole["choices"]:
        own = [
            event["choices"][0]
            for event in events
            if event["choices"] and event["choices"][0]["index"] == choice["index"]
        ]
        assert "".join(each["delta"].get("content") or "" for each in own) == choice["message"]["content"]
        logprobs = [entry for each in own if each["logprobs"] for entry in each["logprobs"]["content"]]
        assert logprobs == choice["logprobs"]["content"]
        assert [each["finish_reason"] for each in own if each["finish_reason"]] == [choice["finish_reason"]]


@table.case("Q23", "/health and /ready while 64 streams run", "200")
def healthy(house):
    with ThreadPoolExecutor(64) as pool:
        running = [pool.submit(house.post, COMPLETIONS, completion(**LONG | {"max_tokens": 60})) for _ in range(64)]
        statuses = [house.get(path).status for path in ("/health", "/ready", "/metrics") * 5]
        assert all(each.result().status == 200 for each in running)
    assert set(statuses) == {200}


@table.case("Q25", "200 requests, each with a cache salt and a name of its own", "bounded memory")
def salts(house):
    bodies = [completion(cache_salt=f"s{i}", user=f"u{i}", max_tokens=1) for i in range(200)]
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda body: house.post(COMPLETIONS, body), bodies))
    assert {answer.status for answer in found} == {200}
    assert all(answer.json["usage"]["prompt_tokens_details"]["cached_tokens"] == 0 for answer in found)


def a_grammar(number: int) -> dict:
    """One that no other number has: a schema, a pattern, or a grammar of a few rules."""
    match number % 3:
        case 0:
            properties = {f"p{number}_{i}": {"type": "string", "maxLength": number} for i in range(8)}
            return {"json": {"type": "object", "properties": properties, "additionalProperties": False}}
        case 1:
            return {"regex": f"([a-z]{{1,{number + 1}}} ){{0,30}}{number}"}
        case _:
            return {"grammar": f'start: ("{number}" | word)+\nword: /[a-e]{{1,{number + 1}}}/ " "'}


def many_grammars(house, count):
    """Half of them, and as many again: all are compiled, and the second half finds the cache as large as it gets."""

    def one(number):
        return house.post(COMPLETIONS, completion(structured_outputs=a_grammar(number), max_tokens=6))

    with ThreadPoolExecutor(16) as pool:
        first = list(pool.map(one, range(count // 2)))
        half = house.resident_bytes()
        second = list(pool.map(one, range(count // 2, count)))
    assert {answer.status for answer in (*first, *second)} == {200}
    assert house.resident_bytes() <= half + GRAMMAR_BYTES, f"{house.resident_bytes() - half:,} bytes more"


@table.case("Q25", "60 requests, each with a grammar of its own", "bounded memory")
def some_grammars(house):
    many_grammars(house, 60)


@table.case("Q25", "1,000 requests, each with a grammar of its own", "bounded memory", needs_long=True)
def thousand_grammars(house):
    many_grammars(house, 1000)


@table.case("Q26", "the same prompt under two cache salts", "nothing is cached across them")
def across_salts(house):
    body = completion(prompt="Once there was a very old tree in the middle of a park. " * 4, max_tokens=1)

    def cached(salt):
        answer = house.post(COMPLETIONS, body | {"cache_salt": salt})
        return answer.json["usage"]["prompt_tokens_details"]["cached_tokens"]

    assert cached("one") == 0 and cached("one") > 0 and cached("two") == 0


@table.case("Q29", "length and a stop string at the same token", "one reason, always the same")
def one_reason(house):
    whole = house.post(COMPLETIONS, GOLDEN).json["choices"][0]["text"]
    body = GOLDEN | {"stop": [whole[-3:]]}
    reasons = {house.post(COMPLETIONS, body).json["choices"][0]["finish_reason"] for _ in range(4)}
    assert reasons == {"stop"}


@table.case("Q30", "100 connections that send a request and read nothing", "others are served; all of it comes back")
def nobody_reads(house):
    clients = [house.dial(4096) for _ in range(100)]
    data = request("POST", COMPLETIONS, body=as_bytes(completion(**LONG | {"max_tokens": 100}, stream=True)))
    for client in clients:
        client.sendall(data)
    assert house.post(COMPLETIONS, GOLDEN).json["choices"][0]["token_ids"] == house.golden
    (answer,) = answers(read_all(clients[0]))
    assert answer.events[-1] == "[DONE]"
    for client in clients:
        client.close()
    eventually(lambda: house.descriptors() < house.normal_descriptors + 20, "their descriptors back")


test_incidents = table.as_test()
