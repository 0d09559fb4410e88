"""bench/serve.py from end to end, against a server that pretends, and one that dies."""

import asyncio
import importlib
import json
import os
import subprocess
import sys
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

BLOCK = 16


class Pretender(BaseHTTPRequestHandler):
    """Serves words, remembers the blocks of each prompt, and turns away whoever brings the key "no"."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self):
        self.answer(200, {"object": "list", "data": [{"id": "pretend"}]})

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.headers.get("Authorization") == "Bearer no":
            self.answer(503, {"error": {"message": "not you"}})
            return
        assert asked["model"] == "pretend"
        prompt = asked["prompt"]
        seen = [tuple(prompt[:end]) for end in range(BLOCK, len(prompt) + 1, BLOCK)]
        with self.server.lock:
            cached = BLOCK * sum(each in self.server.blocks for each in seen)
            self.server.blocks.update(seen)
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for _ in range(asked["max_tokens"]):
            time.sleep(self.server.delay_s)
            self.event({"choices": [{"index": 0, "text": "w "}]})
        usage = {"prompt_tokens": len(prompt), "completion_tokens": asked["max_tokens"]}
        self.event({"choices": [], "usage": usage | {"prompt_tokens_details": {"cached_tokens": cached}}})
        self.chunk(b"data: [DONE]\n\n")
        self.chunk(b"")

    def event(self, held):
        self.chunk(b"data: " + json.dumps(held).encode() + b"\n\n")

    def chunk(self, data):
        self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))
        self.wfile.flush()

    def answer(self, status, held):
        data = json.dumps(held).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def handle(self):
        with suppress(ConnectionError):  # a client that has heard enough
            super().handle()

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    with ThreadingHTTPServer(("127.0.0.1", 0), Pretender) as held:
        held.blocks, held.lock, held.delay_s = set(), threading.Lock(), 0.0
        thread = threading.Thread(target=held.serve_forever, args=(0.02,))
        thread.start()
        yield held
        held.shutdown()
        thread.join()


def run(scripts, *args):
    return subprocess.run(
        [sys.executable, scripts / "serve.py", *map(str, args)], capture_output=True, text=True, check=False, timeout=60
    )


def test_a_trace_is_replayed_in_turn_and_told(scripts, server, tmp_path):
    url = f"http://127.0.0.1:{server.server_address[1]}"
    output, answers = tmp_path / "found.json", tmp_path / "answers.jsonl"
    done = run(
        scripts, "--url", f"one={url}", "--url", f"two={url}", "--turns", 2, "--speed", "1,50", "--output", output,
        "--answers", answers, "--directory", tmp_path, "--first", 4,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    record = json.loads(output.read_text())
    assert len(record["replay"]) == 8 and all(each["whole"] == 4 and not each["errors"] for each in record["replay"])
    assert all(each["tokens_per_chunk"] == 1 for each in record["replay"])
    # All but the first find the 1,024 tokens that they share, and nobody finds another turn's.
    assert all(each["hit_rate"] == pytest.approx(3 * 1024 / (4 * 1056)) for each in record["replay"])
    assert len(answers.read_text().splitlines()) == 32
    assert "shared-prefix, 50 x its speed, 4 requests, 2 turns" in done.stdout and "best goodput: one" in done.stdout
    assert run(scripts, "--show", output).stdout == done.stdout


def test_failures_are_counted_by_kind(scripts, server, tmp_path):
    trace = tmp_path / "two.jsonl"
    lines = [{"timestamp": 0, "input_length": 32, "output_length": 2, "tenant": name} for name in ("in", "out")]
    lines.append({"timestamp": 0, "input_length": 9000, "output_length": 2})
    trace.write_text("\n".join(map(json.dumps, lines)))
    url = f"http://127.0.0.1:{server.server_address[1]}"
    args = ("--url", url, "--trace", trace, "--turns", 1, "--key", "out=no", "--directory", tmp_path)
    found = json.loads(run(scripts, *args, "--json").stdout)
    assert found["replay"][0]["errors"] == {"status 503": 1} and found["replay"][0]["whole"] == 1
    assert found["skipped"] == ["1 of two.jsonl: longer than a context of 8192"]


@pytest.mark.parametrize(
    ("args", "part"),
    [
        ((), "either --url or --start"),
        (("--url", "ftp://x"), "is not http://"),
        (("--start", "nobody=x"), "there is no 'nobody'"),
        (("--url", "http://127.0.0.1:9", "--measure", "x"), "there is no 'x'"),
        (("--url", "http://127.0.0.1:9", "--wait", "0"), "lists no model"),
        (("--url", "http://127.0.0.1:9", "--trace", "nowhere.csv"), "cannot be read"),
    ],
)
def test_the_script_says_what_it_needs(scripts, tmp_path, args, part):
    done = run(scripts, *args, "--directory", tmp_path) if args else run(scripts)
    assert done.returncode != 0 and part in done.stderr and "Traceback" not in done.stderr


def test_gaps_during_a_long_prompt_are_told_from_those_of_quiet_times(scripts, server):
    special, prompts = (importlib.import_module(f"traffic.{name}") for name in ("special", "prompts"))
    address = importlib.import_module("traffic.client").Address("127.0.0.1", server.server_address[1])
    server.delay_s = 0.004
    how = special.Stall(streams=2, prompt=32, long_prompt=2000, rounds=2, quiet_s=0.2, limit_s=60)
    found = asyncio.run(special.stall(address, prompts.Wording("pretend"), how))
    assert not found["failures"] and found["streams_ended_early"] == 0
    assert found["idle_s"]["p50"] >= 0.004 and found["num_during"] >= 2 and found["p99_ratio"] > 0


def test_what_serving_costs_is_told_beside_the_same_work_in_process(scripts, server, tmp_path):
    overhead, prompts = (importlib.import_module(f"traffic.{name}") for name in ("overhead", "prompts"))
    turns, table = (importlib.import_module(f"engines.{name}") for name in ("turns", "table"))
    address = importlib.import_module("traffic.client").Address("127.0.0.1", server.server_address[1])
    program = tmp_path / "pretend.py"
    program.write_text(
        f"import sys\nsys.path.insert(0, {str(scripts / 'engines')!r})\nimport worker\n"
        "class Pretend:\n    def __init__(self, *how): pass\n    def run(self, prompts, tokens): return 0.0, 0.001\n"
        "worker.serve(Pretend)\n"
    )
    with (tmp_path / "log").open("w") as log:
        worker = turns.Worker(turns.Command([sys.executable, str(program), "model", "1"], {}), log, 30)
        test = table.Test("x", "", streams=3, prompt=8, tokens=4)
        wording = prompts.Wording("pretend")
        found = overhead.measure(address, os.getpid(), wording, worker, overhead.How(test, 2, 30))
        worker.close()
    assert found["turns"] == 2 and found["in_process_tok_s"] == pytest.approx(12 / 0.001)
    assert found["beside_engine_s"] >= 0 and found["client_s"] > 0
    assert 0 < found["lost"] < 1 and found["served_tok_s"] < found["in_process_tok_s"]


def test_a_connection_that_is_refused_or_silent_is_an_answer_too(scripts):
    client, answer = (importlib.import_module(f"traffic.{name}") for name in ("client", "answer"))

    async def ask():
        async def silence(reader, writer):
            await reader.read()
            writer.close()

        listening = await asyncio.start_server(silence, "127.0.0.1", 0)
        async with listening:
            port = listening.sockets[0].getsockname()[1]
            silent = await client.send(client.Address("127.0.0.1", port), b"x", 0.05)
        refused = await client.send(client.Address("127.0.0.1", port), b"x", 5)
        return answer.understand(silent).failure, answer.understand(refused).failure

    assert asyncio.run(ask()) == ("timeout", "refused")


def test_a_server_that_ends_is_named_and_one_that_runs_is_ended(scripts, tmp_path):
    servers = importlib.import_module("traffic.servers")
    address = servers.Address("127.0.0.1", servers.free_port())
    dying = servers.Server("x", [sys.executable, "-c", "print('gone')"], address, {}, tmp_path / "log")
    with dying, pytest.raises(servers.ServerStopped, match="ended before it was ready"):
        dying.wait(30)
    code = (
        "import subprocess, sys, time\n"
        "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\nprint(1, flush=True)\ntime.sleep(60)"
    )
    with servers.Server("x", [sys.executable, "-c", code], address, {}, tmp_path / "log") as running:
        with pytest.raises(servers.ServerStopped, match="not ready within"):
            running.wait(1.0)
        assert running.is_alive and len(servers.children(running.pid)) == 1
    assert not running.is_alive and not servers.children(running.pid)
    assert all(set(kind.forms) <= {16, 8, 4} for kind in servers.KINDS.values())
