"""K: wrong options, keys and surroundings. What is wrong is found before a model is loaded, and said."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from incidents.case import CHAT, COMPLETIONS, chat, completion
from incidents.house import GOLDEN, open_house
from incidents.serving import MODEL, Serving, eventually, request

from openwork.testing.byte_tokenizer import write_byte_tokenizer
from openwork.testing.checkpoint import write_checkpoint


def start(*args: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess:
    """A server that is to refuse."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), **(env or {})}
    command = [sys.executable, "-m", "openwork", "serve", *args]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("--prot", "1"), "--port"),
        (("--no-such-flag",), "--no-such-flag"),
        (("--port", "70000"), "port"),
        (("--host", "no such host"), "host"),
        (("--host", "0.0.0.0"), "host"),
        (("--limit", "n=-1"), "n"),
        (("--limit", "no_such_bound=1"), "no_such_bound"),
        (("--api-keys", "/no/such/file"), "/no/such/file"),
        (("--max-running", "0"), "max_running"),
        (("--kv-cache-bytes", "-5"), "kv"),
    ],
)
def test_k01_to_k09_wrong_options(args, says):
    """K01, K03, K07, K09: wrong options: exit 2 or 1, and the option is named."""
    done = start(*args)
    assert done.returncode in (1, 2), done
    assert says in done.stderr and "Traceback" not in done.stderr, done.stderr


def test_k04_a_port_in_use():
    """K04: a port in use: said before a model is loaded."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        done = start("--port", str(taken.getsockname()[1]))
    assert done.returncode == 1 and "in use" in done.stderr, done.stderr


@pytest.mark.parametrize("text", ["", "[tenants.a]\nkeys = []", "not toml"])
def test_k07_a_keys_file_without_keys(tmp_path, text):
    """K07: a keys file without keys, or that is none: it does not start."""
    (tmp_path / "keys.toml").write_text(text)
    done = start("--port", "0", "--api-keys", str(tmp_path / "keys.toml"))
    assert done.returncode != 0 and "keys.toml" in done.stderr, done.stderr


def test_k05_a_cache_smaller_than_a_block():
    """K05: a cache that cannot hold a sequence: refused, with the numbers."""
    done = start("--port", "0", "--kv-cache-bytes", "1000")
    assert done.returncode == 1 and "1,000" in done.stderr, done.stderr


SURROUNDINGS = {
    "no HOME": {"HOME": "/nonexistent", "XDG_CACHE_HOME": "/nonexistent"},
    "no TMPDIR": {"TMPDIR": "/nonexistent"},
    "LANG=C without UTF-8": {"LANG": "C", "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    "PYTHONHASHSEED=0": {"PYTHONHASHSEED": "0"},
    "python -O": {"PYTHONOPTIMIZE": "1"},
}


@pytest.mark.parametrize("name", SURROUNDINGS)
def test_k13_to_k15_surroundings(tmp_path, model, house, name, is_long):
    """K13, K15: no HOME or TMPDIR, LANG=C, python -O: the same tokens, and text comes back as it went."""
    if not is_long and name != "python -O":
        pytest.skip("takes long")
    with Serving(tmp_path, "--model", str(model), "--served-model-name", MODEL, env=SURROUNDINGS[name]) as serving:
        serving.wait_until_ready()
        answer = serving.post(COMPLETIONS, GOLDEN)
        assert answer.json["choices"][0]["token_ids"] == house.golden
        text = "\u00e9\u4e2d\U0001f600"
        echoed = serving.post(COMPLETIONS, completion(prompt=text, echo=True, max_tokens=1))
        assert echoed.json["choices"][0]["text"].startswith(text)
        assert serving.post(CHAT, chat(**{text: 1})).status == 400
        assert serving.stop() == 0
    assert "Traceback" not in serving.log_text()


@pytest.fixture(scope="module")
def keyed(tmp_path_factory, model):
    """A server of two tenants: (house, keys file, {name: key})."""
    file = tmp_path_factory.mktemp("keys") / "keys.toml"
    keys = {}
    for name in ("alice", "bob"):
        made = start("--new-key", name)
        assert made.returncode == 0, made
        keys[name] = made.stderr.split(":")[-1].strip()
        with file.open("a") as out:
            out.write(made.stdout)
    file.chmod(0o600)
    args = ("--model", str(model), "--served-model-name", MODEL, "--api-keys", str(file))
    with Serving(tmp_path_factory.mktemp("keyed"), *args) as serving:
        yield serving.wait_until_ready(), file, keys


def test_k11_a_wrong_file_changes_nothing(keyed):
    """K11: SIGHUP with a file that is wrong: the old keys stay, and the log says so."""
    serving, file, keys = keyed
    good = file.read_text()
    try:
        file.write_text("[tenants")
        serving.process.send_signal(signal.SIGHUP)
        eventually(lambda: "reload_failed" in serving.log_text(), "the reload to fail")
        header = f"Authorization: Bearer {keys['alice']}"
        assert serving.post(CHAT, chat(), header).status == 200
    finally:
        file.write_text(good)
    serving.process.send_signal(signal.SIGHUP)
    eventually(lambda: '"event": "reload"' in serving.log_text(), "the reload")


PATHS = """/v1//chat/completions /v1/./chat/completions /V1/chat/completions /v1/%63hat/completions /v1/models/
/v1/chat/completions/ /v1/chat/completions;x /%2e%2e/v1/chat/completions /v1/chat/%2e%2e/chat/completions
/v1/chat/completions%00 /health/../v1/chat/completions /health/..%2fv1/models /v1/models /v1/limits /tokenize /metrics
//health /health/ /x"""


@pytest.mark.parametrize("path", PATHS.split())
def test_h23_no_path_around_the_keys(keyed, path):
    """H23: paths around the keys, such as /v1/%63hat/completions: 401 or 404, never 200."""
    serving, *_ = keyed
    for method, body in (("POST", b'{"model": "m"}'), ("GET", None)):
        for line in ("X: 1", "Host: 127.0.0.1/health?", "X-Original-URL: /health", "X-Forwarded-Path: /health"):
            for answer in serving.raw(request(method, path, line, body=body)):
                assert answer.status in (400, 401, 403, 404), (method, path, line, answer)
                assert answer.error


def test_h27_authorization(keyed):
    """H27: Authorization in every wrong form: 401; the case of "bearer" does not matter."""
    serving, _, keys = keyed
    key = keys["alice"]
    for line in (f"Authorization: Bearer {key}", f"Authorization: bearer {key}", f"authorization: BEARER {key}"):
        assert serving.post(CHAT, chat(), line).status == 200, line
    for value in ("Bearer", "Bearer ", f"Bearer{key}", f"Basic {key}", f"Bearer {key}\xe9", f"Bearer {key} x", key, ""):
        answer = serving.post(CHAT, chat(), f"Authorization: {value}")
        assert answer.status == 401 and answer.headers["www-authenticate"] == "Bearer", value
        assert answer.error["code"] == "invalid_api_key" and key not in answer.body.decode()
    (answer,) = serving.raw(
        request("POST", CHAT, f"Authorization: Bearer {key}\r\nAuthorization: Bearer x", body=b'{"model": "m"}')
    )
    assert answer.status in (400, 401)
    assert serving.post(CHAT, chat(), "Authorization: Bearer " + "k" * (1 << 20)).status in (401, 431)
    assert not any(key in text for key in keys.values() for text in (serving.log_text(),))


def test_q15_no_cache_across_keys(keyed):
    """Q15: the same prompt under two keys: nothing of the other's is cached."""
    serving, _, keys = keyed
    body = completion(prompt="Once there was a very old tree in the middle of a park. " * 4, max_tokens=1)

    def cached(name):
        answer = serving.post(COMPLETIONS, body, f"Authorization: Bearer {keys[name]}")
        return answer.json["usage"]["prompt_tokens_details"]["cached_tokens"]

    assert cached("alice") <= 1 and cached("alice") > 16 and cached("bob") == 0  # 1: the token that begins every text


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A server of a model of noise: no chat template, a long window, and little patience with readers."""
    directory = write_checkpoint(tmp_path_factory.mktemp("noise"), max_position_embeddings=16384)
    write_byte_tokenizer(directory, chat_template=None)
    limits = ("--limit", "write_s=1", "--limit", "output_bytes=16KiB")
    with open_house_unsettled(tmp_path_factory.mktemp("plain"), directory, *limits) as serving:
        yield serving


def test_q05_a_reader_who_stops(plain):
    """Q05: a reader who stops in the middle of a long stream: cut off, and the engine no longer computes for it."""
    body = completion(max_tokens=12_000, ignore_eos=True, stream=True, logprobs=5)
    with plain.stream(COMPLETIONS, body, receive_bytes=4096) as stream:
        stream.next()
        eventually(lambda: plain.metrics().get("openwork:http_cut_off_total{slow_reader}", 0) == 1, "it is cut off")
        eventually(lambda: plain.metrics()["vllm:num_requests_running"] == 0, "nothing runs")
    assert plain.metrics()["vllm:generation_tokens_total"] < 12_000
    assert plain.post(COMPLETIONS, completion()).status == 200


def test_m19_a_model_without_a_chat_template(plain):
    """M19: a chat with a model that has no chat template: 400 that says so; completions work."""
    answer = plain.post(CHAT, chat())
    assert answer.status == 400 and "template" in answer.error["message"]
    assert plain.post(COMPLETIONS, completion()).status == 200


def test_g26_tools_that_a_model_does_not_know(tmp_path):
    """G26: tools for a model whose template knows none: 400 that says so, and not an answer without them."""
    tools = [{"type": "function", "function": {"name": "f"}}]
    with Serving(tmp_path, "--served-model-name", MODEL).wait_until_ready() as serving:
        answer = serving.post(CHAT, chat(tools=tools))
        assert answer.status == 400 and answer.error["param"] == "tools", answer
        assert serving.post(CHAT, chat()).status == 200


def test_q11_a_cache_for_little_more_than_one(tmp_path, model, house):
    """Q11: a cache of 1.2 sequences under 24 requests: all end, each with its own tokens."""
    num_blocks = house.num_blocks
    info = house.get("/v1/limits").json["model"]
    per_block = 16
    needed = int(1.2 * info["context"] / per_block) + 1
    bytes_per_block = 2 * 8 * 1024  # more than any block of the embedded model needs
    assert needed < num_blocks
    bodies = [
        completion(prompt=[5 + at] * 60, max_tokens=60, ignore_eos=True, return_token_ids=True) for at in range(24)
    ]
    with ThreadPoolExecutor(24) as pool:
        reference = list(pool.map(lambda body: house.post(COMPLETIONS, body).json["choices"], bodies))
    size = str(needed * bytes_per_block)
    args = ("--kv-cache-bytes", size)
    with open_house(tmp_path, model, *args) as small:
        assert small.num_blocks < num_blocks
        with ThreadPoolExecutor(24) as pool:
            found = list(pool.map(lambda body: small.post(COMPLETIONS, body).json["choices"], bodies))
        assert found == reference
        assert small.metrics()["vllm:num_preemptions_total"] > 0
        small.wait_until_idle()


def test_q13_a_full_queue(tmp_path, model):
    """Q13: one more than the queue takes: 503 and Retry-After at once, and nobody else is hurt."""
    args = ("--max-queue", "4", "--max-running", "2")
    with open_house_unsettled(tmp_path, model, *args) as serving:
        body = completion(max_tokens=300, ignore_eos=True)
        with ThreadPoolExecutor(32) as pool:
            found = list(pool.map(lambda _: serving.post(COMPLETIONS, body), range(32)))
        refused = [answer for answer in found if answer.status != 200]
        assert refused and len(refused) < 32
        for answer in refused:
            assert answer.status == 503 and answer.error["code"] == "overloaded"
            assert int(answer.headers["retry-after"]) >= 1


def open_house_unsettled(directory, model, *args) -> Serving:
    return Serving(directory, "--model", str(model), "--served-model-name", MODEL, *args).wait_until_ready()
