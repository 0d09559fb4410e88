"""openwork serve: what can be asked wrongly is refused before anything is loaded; the rest is a server of the model."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time

import pytest
from serve.edge import get
from serve.processes import Running, children, is_alive

from openwork.cli import serving
from openwork.cli.serve import ReasoningFormat, ToolFormat
from openwork.core.request import Limits, SamplingParams
from openwork.engine.face import Facts
from openwork.serve.keys import new_key, parse_keys
from openwork.text.dialect import SPANS, TOOL_FORMATS

MODEL = "openwork/stories"


@pytest.fixture
def unwired(monkeypatch):
    """Holds what would be served, and serves nothing."""
    made = []

    class Unwired(serving.Serving):
        def run(self):
            made.append(self)
            self._socket.close()
            return 0

    monkeypatch.setattr(serving, "Serving", Unwired)
    return made


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        pytest.param(["--prot", "1"], "--port", id="K01"),
        pytest.param(["--limit", "bodybytes=1"], "body_bytes", id="K01-limit"),
        pytest.param(["--limit", "n"], "NAME=VALUE", id="K01-limit-form"),
        pytest.param(["--port", "-1"], "port", id="K03-negative"),
        pytest.param(["--port", "70000"], "port", id="K03-large"),
        pytest.param(["--host", "no.such.host.invalid"], "host", id="K03-host"),
        pytest.param(["--host", "é"], "host", id="K03-host-name"),
        pytest.param(["--host", "0.0.0.0"], "--anyone", id="open-without-keys"),
        pytest.param(["--host", "::"], "--anyone", id="open-without-keys-6"),
        pytest.param(["--limit", "n=abc"], "n: must be", id="K09-word"),
        pytest.param(["--limit", "n=-1"], "must be", id="K09-negative"),
        pytest.param(["--limit", "body_bytes=0"], "body_bytes", id="K09-nothing"),
        pytest.param(["--limit", "header_s=inf"], "header_s", id="K09-endless"),
        pytest.param(["--limit", "body_bytes=many"], "body_bytes", id="K09-size"),
        pytest.param(["--kv-cache-bytes", "x"], "kv_cache_bytes", id="K09-cache"),
        pytest.param(["--new-key", "a b"], "new_key", id="K07-name"),
        pytest.param(["--cors-origin", "*"], "cors_origin", id="H25-star"),
        pytest.param(["--drain", "-1"], "drain_s", id="drain"),
    ],
)
def test_what_is_asked_wrongly_is_refused_at_once(run, arguments, said):
    result = run("serve", *arguments)
    assert result.exit_code == 2 and said in result.stderr and "Traceback" not in result.output


@pytest.mark.parametrize("content", [None, "", "[tenants]", "[tenants.a]\nkeys = ['']", "[tenants.a]\nkeys = ['  ']"])
def test_keys_that_let_nobody_in_are_no_open_door(run, tmp_path, content):  # K07
    path = tmp_path / "keys.toml"
    if content is not None:
        path.write_text(content)
    result = run("serve", "--port", "0", "--api-keys", str(path))
    assert result.exit_code == 1 and str(path) in result.stderr


def test_a_port_in_use_is_known_before_loading(run):  # K03
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        result = run("serve", "--port", str(taken.getsockname()[1]), "--model", "/nowhere")
    assert result.exit_code == 1 and "in use" in result.stderr


def test_a_new_key_is_shown_once_and_opens_the_line_beside_it(run):
    result = run("serve", "--new-key", "alice")
    assert result.exit_code == 0
    key = re.search(r"ow-[\w-]{43}", result.stderr)[0]
    assert key not in result.stdout
    _, grant = parse_keys(result.stdout).find(key.encode())
    assert grant.tenant == "alice"


def test_options_reach_what_they_are_for(run, unwired, tmp_path):
    _, entry = new_key()
    keys = tmp_path / "keys.toml"
    keys.write_text(f'[tenants.a]\nkeys = ["{entry}"]\n')
    result = run(
        *("serve", "--model", "m", "--port", "0", "--api-keys", str(keys), "--served-model-name", "name"),
        *("--dtype", "int8", "--kv-cache-bytes", "1MiB", "--cache-dir", str(tmp_path / "cache")),
        *("--order", "deadline", "--first", "prefill", "--target-itl", "0.05", "--stretch", "2", "--max-queue", "7"),
        *("--request-deadline", "9", "--drain", "3", "--hang", "8", "--limit", "body_bytes=1MiB", "--limit", "n=3"),
        *("--allowed-host", "box", "--cors-origin", "https://a.example"),
        *("--tool-format", "llama", "--reasoning-format", "bracket-think"),
    )
    assert result.exit_code == 0, result.output
    made = unwired[0]
    service, settings, bounds = made._service, made._settings, made._bounds
    assert (service.model, service.name, service.hang_s) == ("m", "name", 8)
    assert (service.load.dtype, service.load.kv_cache_bytes) == ("int8", 2**20)
    assert (service.schedule.order, service.schedule.first, service.schedule.is_fair) == ("deadline", "prefill", True)
    assert (service.schedule.next_token_s, service.schedule.stretch) == (0.05, 2)
    assert service.admission.max_waiting == 7 and service.cache_dir == str(tmp_path / "cache")
    assert (settings.drain_s, settings.stall_s, settings.http.body_bytes) == (3, 8, 2**20)
    assert (settings.allowed_hosts, settings.cors_origins) == (("box",), ("https://a.example",))
    assert (bounds.request_s, bounds.n) == (9, 3)
    assert made._forms == ("llama", "bracket-think")
    secret = tmp_path / "cache" / "namespace.secret"
    assert secret.stat().st_mode & 0o777 == 0o600 and len(secret.read_bytes()) == 32
    before = secret.read_bytes()
    run("serve", "--port", "0", "--cache-dir", str(tmp_path / "cache"))
    assert secret.read_bytes() == before
    secret.write_bytes(b"short")
    assert run("serve", "--port", "0", "--cache-dir", str(tmp_path / "cache")).exit_code == 1


def test_without_keys_nobody_takes_turns_and_prompts_are_bounded(run, unwired):
    assert run("serve", "--port", "0").exit_code == 0
    service = unwired[0]._service
    assert not service.schedule.is_fair and service.schedule.stretch == 1.7
    assert run("serve", "--port", "0", "--stretch", "0").exit_code == 0
    assert unwired[1]._service.schedule.stretch is None


def test_every_form_of_replies_has_its_name_on_the_command_line():
    assert {form.value for form in ToolFormat} == {"auto", "none", *TOOL_FORMATS}
    assert {form.value for form in ReasoningFormat} == {"auto", "none", *SPANS}


def test_help_teaches(run):
    result = run("serve", "--help")
    assert result.exit_code == 0
    for word in ("--api-keys", "--drain", "--limit", "--new-key", "SIGTERM", "503"):
        assert word in result.stdout


def test_the_startup_text_has_a_line_to_try():
    facts = Facts("m", Limits(10, 512), SamplingParams(), dtype="int8", kv_dtype="bfloat16", threads=2, num_blocks=4)
    text = serving.startup_text(facts, ("::1", 8000), has_keys=True)
    assert "http://[::1]:8000/v1" in text and "Bearer KEY" in text and "64 in 4 blocks" in text
    assert "Bearer" not in serving.startup_text(facts, ("127.0.0.1", 8000), has_keys=False)


# -- the whole of it, in processes


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """The embedded model for alice, who may do all, bob, who may do little, and carol."""
    (alice, alices), (bob, bobs), (carol, carols) = new_key(), new_key(), new_key()
    path = tmp_path_factory.mktemp("keys") / "keys.toml"
    path.write_text(
        f'[tenants.alice]\nkeys = ["{alices}"]\nmay_operate = true\n'
        f'[tenants.bob]\nkeys = ["{bobs}"]\nrequests_per_minute = 2\nmodels = ["{MODEL}"]\n'
        f'[tenants.carol]\nkeys = ["{carols}"]\n'
    )
    path.chmod(0o644)
    arguments = ("-m", "openwork", "serve", "--port", "0", "--threads", "1", "--kv-cache-bytes", "64MiB")
    running = Running([*arguments, "--api-keys", str(path)])
    try:
        running.start()
        running.wait_for("ready")
        running.alice, running.bob, running.carol = alice, bob, carol
        yield running
        running.signal(signal.SIGTERM)
        assert running.end() == 0
        written = "".join(running.lines)
        assert "others can read it" in written
        assert alice not in written and "Once upon" not in written and "Traceback" not in written
    finally:
        running.close()


def client_of(served, key, **options):
    from openai import OpenAI

    return OpenAI(api_key=key, base_url=f"http://127.0.0.1:{served.port}/v1", timeout=60, **options)


def test_openais_own_client_is_served(served):
    with client_of(served, served.alice) as client:
        plain = client.completions.create(model=MODEL, prompt="Once upon a time", max_tokens=20, temperature=0)
        stream = client.completions.create(
            model=MODEL, prompt="Once upon a time", max_tokens=20, temperature=0, stream=True
        )
        assert "".join(chunk.choices[0].text for chunk in stream if chunk.choices) == plain.choices[0].text
        assert plain.usage.completion_tokens == 20


def test_openais_own_client_understands_refusals(served):
    import openai

    with client_of(served, "ow-wrong", max_retries=0) as client, pytest.raises(openai.AuthenticationError):
        client.completions.create(model=MODEL, prompt="hi")
    with client_of(served, served.alice, max_retries=0) as client, pytest.raises(openai.NotFoundError):
        client.completions.create(model="other", prompt="hi")
    with client_of(served, served.bob, max_retries=0) as client:
        answers = [client.completions.with_raw_response.create(model=MODEL, prompt="hi", max_tokens=1) for _ in "ab"]
        assert [answer.headers["x-ratelimit-remaining-requests"] for answer in answers] == ["1", "0"]
        with pytest.raises(openai.RateLimitError) as caught:
            client.completions.create(model=MODEL, prompt="hi")
        assert int(caught.value.response.headers["retry-after"]) <= 30


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not here")
def test_curl_is_served(served):
    body = json.dumps({"model": MODEL, "prompt": "Once", "max_tokens": 3, "stream": True})
    url = f"http://127.0.0.1:{served.port}/v1/completions"
    headers = ["-H", f"Authorization: Bearer {served.alice}", "-H", "Content-Type: application/json"]
    done = subprocess.run(
        ["curl", "-sSN", "--noproxy", "*", "-d", body, *headers, url],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.endswith("data: [DONE]\n\n")


def test_what_was_served_is_counted(served):
    bearer = b"Authorization: Bearer " + served.alice.encode()
    status, _, page = served.send(get(b"/metrics", bearer)).only()
    assert status == 200
    counts = dict(line.rsplit(" ", 1) for line in page.decode().splitlines() if not line.startswith("#"))
    labels = f'{{engine="0",model_name="{MODEL}"}}'
    assert float(counts[f"vllm:generation_tokens_total{labels}"]) > 0
    assert float(counts[f"vllm:iteration_tokens_total_count{labels}"]) > 0
    assert 'openwork:tenant_requests_total{tenant="alice"}' in counts
    status, _, body = served.send(get(b"/v1/limits", bearer)).only()
    limits = json.loads(body)
    assert limits["model"]["context"] == 512 and limits["caller"]["max_running"] == 64


def test_a_prefix_of_one_tenant_is_not_found_by_another(served):  # Q15
    prompt = "A long beginning that nobody else has written so far. " * 6
    found = []
    for key in (served.alice, served.alice, served.carol):
        with client_of(served, key) as client:
            answer = client.completions.create(model=MODEL, prompt=prompt, max_tokens=1)
            found.append(answer.usage.prompt_tokens_details.cached_tokens)
    assert found[0] < 16 < found[1] and found[2] == 0  # at first, perhaps the mark that all prompts begin with


@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="Linux")
def test_a_killed_server_leaves_no_process_and_a_free_port():  # C03
    running = Running(["-m", "openwork", "serve", "--port", "0", "--threads", "1", "--kv-cache-bytes", "16MiB"])
    try:
        running.start()
        running.wait_for("ready")
        workers = children(running.process.pid)
        assert workers
        running.signal(signal.SIGKILL)
        assert running.end() == -signal.SIGKILL
        deadline = time.monotonic() + 60
        while any(map(is_alive, workers)) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not any(map(is_alive, workers))
        with pytest.raises(ConnectionRefusedError):
            running.dial()
    finally:
        running.close()
