"""R: descriptors, memory, the log. K and C cases, which need servers of their own, are in their own files."""

from __future__ import annotations

import json
import os
import resource
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from incidents.case import CHAT, COMPLETIONS, Table, chat, completion, says
from incidents.house import GOLDEN
from incidents.serving import eventually, request

table = Table("Resources and logs")


@table.case("R05", "no descriptor left for a new connection", "it waits; afterwards all is as before")
def no_descriptors(house):
    before = resource.prlimit(house.pid, resource.RLIMIT_NOFILE)
    open_now = max(map(int, os.listdir(f"/proc/{house.pid}/fd")))
    clients = []
    resource.prlimit(house.pid, resource.RLIMIT_NOFILE, (open_now + 6, before[1]))
    try:
        for _ in range(12):
            client = socket.create_connection(("127.0.0.1", house.port), timeout=5)
            clients.append(client)
        time.sleep(0.3)
    finally:
        resource.prlimit(house.pid, resource.RLIMIT_NOFILE, before)
        for client in clients:
            client.close()
    assert house.post(COMPLETIONS, GOLDEN).status == 200
    eventually(lambda: house.descriptors() <= house.normal_descriptors + 4, "their descriptors back")


@table.case("R09", "20 top_logprobs of every token, of 16 sequences and of the prompt", "answered; bounded memory")
def many_logprobs(house):
    body = chat(messages=[{"role": "user", "content": "one two three " * 60}], logprobs=True, top_logprobs=20, n=16)
    answer = house.post(CHAT, body | {"max_tokens": 48, "ignore_eos": True, "temperature": 1})
    assert answer.status == 200 and len(answer.json["choices"]) == 16
    assert len(answer.json["choices"][15]["logprobs"]["content"][47]["top_logprobs"]) == 20


FORGED = {
    "a forged line": "x\n2026-01-01 ERROR fake",
    "ANSI codes": "\x1b[2J\x1b]0;title\x07",
    "format directives": "%s%n%p {0.__class__} ${x}",
    "quotes": "\"'}\\",
    "a forged JSON line": '\n{"event": "failed", "level": "error"}\n',
    "line separators": "a\u2028b\u0085c\rd",
}


@table.each("R13", "one line of JSON for each event", FORGED)
def forged(house, text):
    for body in (says(text), chat(user=text), chat(model=text), chat(**{text: 1}), chat(stop=text)):
        assert house.post(CHAT, body).status in (200, 400, 404)
    harmless = text.encode("ascii", "ignore").replace(b"\n", b" ").replace(b"\r", b" ").decode()
    for data in (
        request("GET", "/version", f"X-Request-Id: {harmless}"),
        request("GET", "/" + harmless.replace(" ", "")),
    ):
        house.raw(data)
    assert "fake" not in [json.loads(line).get("event") for line in house.log_text().splitlines()]


@table.case("R15", "600 errors in a row", "the log is bounded, the counters are exact")
def many_errors(house):
    name = "openwork:http_requests_total{POST,/v1/chat/completions,400}"
    before, length = house.metrics().get(name, 0), len(house.log_text())
    with ThreadPoolExecutor(8) as pool:
        statuses = list(pool.map(lambda _: house.post(CHAT, b"{").status, range(600)))
    assert statuses == [400] * 600
    assert house.metrics()[name] - before == 600
    assert len(house.log_text()) - length < 600 * 400


def many_keys(number):
    return chat(**{f"k{i}": 1 for i in range(number)})


WASTE = {
    "a refused body of 100 000 keys": lambda: many_keys(100_000),
    "a content of 7.9 MiB": lambda: says("word " * 1_650_000),
    "a NaN": lambda: b'{"model": NaN}',
    "a good request": lambda: completion(),
    "a stream": lambda: completion(stream=True),
}


@table.each("R16", "memory does not grow with it", WASTE, needs_long=True)
@table.each("R16", "memory does not grow with it", {"a refused body of 20 000 keys": lambda: many_keys(20_000)})
def flat(house, make):
    body = make()
    body = body if isinstance(body, bytes) else json.dumps(body).encode()
    num_repeats = 8 if len(body) > 10**5 else 100
    path = COMPLETIONS if b'"prompt"' in body else CHAT

    def repeat():
        for _ in range(num_repeats):
            house.post(path, body)
        return house.resident_bytes()

    repeat()
    sizes = [repeat() for _ in range(3)]
    assert min(sizes[1:]) - sizes[0] < (24 << 20), sizes


@table.case("R07", "shared memory, which may be full or not there", "none of it is used")
def no_shared_memory(house):
    assert "/dev/shm" not in house.watch_path.read_text(errors="replace")
    for pid in (house.pid, *house.processes()):
        assert "/dev/shm/" not in Path(f"/proc/{pid}/maps").read_text()


@table.case("R17", "a scraper that goes after the first byte", "nothing is left of it")
def metrics_and_limits(house):
    for path in ("/metrics", "/v1/limits", "/version", "/health", "/ready", "/v1/models"):
        with suppress(ConnectionError), house.dial(1024) as client:
            client.sendall(request("GET", path))
            client.recv(1)
    assert house.get("/v1/limits").json["http"]["body_bytes"] == 8 << 20


test_incidents = table.as_test()
