"""M: damaged and hostile model files: the server says what is wrong and ends; it runs nothing of them.

Weights that are not finite are such a file. Finite ones whose sums are not are found when they are used: then each
request ends with an error, and says so.
"""

from __future__ import annotations

import json
import os
import pickle
import struct
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from incidents.case import CHAT, COMPLETIONS, chat, completion
from incidents.house import GOLDEN
from incidents.serving import MODEL, Serving, check_no_leak, eventually, write_model
from incidents.test_configuration import start

WEIGHTS, CONFIG, TOKENIZER = "model.safetensors", "config.json", "tokenizer.json"


def header(model):
    """The header of the weights, and what follows it."""
    data = (model / WEIGHTS).read_bytes()
    size = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + size]), data[8 + size :]


def write_weights(model, entries, rest):
    head = json.dumps(entries).encode()
    (model / WEIGHTS).write_bytes(len(head).to_bytes(8, "little") + head + rest)


def weights(data):
    return lambda model: (model / WEIGHTS).write_bytes(data)


def with_size(size):
    """Weights whose header says another size of itself."""

    def damage(model):
        data = (model / WEIGHTS).read_bytes()
        (model / WEIGHTS).write_bytes(struct.pack("<Q", size) + data[8:])

    return damage


def with_entry(**fields):
    """Weights with one entry that says something else."""

    def damage(model):
        entries, rest = header(model)
        name = next(name for name in entries if name != "__metadata__")
        entries[name] |= {key: value(entries[name]) for key, value in fields.items()}
        write_weights(model, entries, rest)

    return damage


def without_tensor(model):
    entries, rest = header(model)
    entries.pop(next(name for name in entries if "norm" in name))
    write_weights(model, entries, rest)


def with_numbers(*numbers):
    """Weights that begin with these in their last tensor."""

    def damage(model):
        entries, rest = header(model)
        begin = max(entry["data_offsets"][0] for name, entry in entries.items() if name != "__metadata__")
        raw = np.array(numbers, np.float32).view(np.uint16)[1::2].tobytes()  # as bfloat16
        write_weights(model, entries, rest[:begin] + raw + rest[begin + len(raw) :])

    return damage


def config(**fields):
    def damage(model):
        known = json.loads((model / CONFIG).read_text())
        (model / CONFIG).write_text(json.dumps(known | fields))

    return damage


def text(name, content):
    return lambda model: (model / name).write_bytes(content if isinstance(content, bytes) else content.encode())


def without_shard(model):
    (model / WEIGHTS).unlink()
    index = {"weight_map": {"model.norm.weight": "model-00001-of-00002.safetensors"}}
    (model / "model.safetensors.index.json").write_text(json.dumps(index))


class Touch:
    """What a pickle makes whoever reads it do."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def fifo(model):
    (model / CONFIG).unlink()
    os.mkfifo(model / CONFIG)


def sparse(name, size):
    def damage(model):
        with (model / name).open("r+b") as file:
            file.truncate(size)

    return damage


QUICK = {
    "weights of 7 bytes": weights(b"\0" * 7),
    "a header that ends behind the file": with_size(1 << 40),
    "data_offsets that overlap": with_entry(data_offsets=lambda entry: [0, 16]),
    "a shape that the config does not have": with_entry(shape=lambda entry: [*entry["shape"], 1]),
    "a tensor that is missing": without_tensor,
    "a pickle by the name of the weights": lambda model: weights(pickle.dumps(Touch(model / "sentinel")))(model),
    "a config of 1 GiB": sparse(CONFIG, 1 << 30),
    "a config that is not JSON": text(CONFIG, "{"),
    "a tokeniser that is not JSON": text(TOKENIZER, "x"),
}
MORE = {
    "no weights at all": lambda model: (model / WEIGHTS).unlink(),
    "weights of 0 bytes": weights(b""),
    "a header of 0 bytes": with_size(0),
    "a header of 2^63 bytes": with_size(1 << 63),
    "a header of 2^64 - 1 bytes": with_size((1 << 64) - 1),
    "data_offsets past the end": with_entry(data_offsets=lambda entry: [0, 1 << 50]),
    "negative data_offsets": with_entry(data_offsets=lambda entry: [-8, entry["data_offsets"][1]]),
    "data_offsets that are no whole numbers": with_entry(data_offsets=lambda entry: [0.5, 1.5]),
    "a dtype that is none": with_entry(dtype=lambda entry: "F33"),
    "weights cut in the middle": lambda model: sparse(WEIGHTS, (model / WEIGHTS).stat().st_size // 2)(model),
    "a shard that is not there": without_shard,
    "a config with a layer count of 10^9": config(num_hidden_layers=10**9),
    "a config with negative sizes": config(hidden_size=-64),
    "a config nested 10 000 deep": text(CONFIG, '{"a":' * 10_000 + "1" + "}" * 10_000),
    "a config that is a pipe": fifo,
    "a model of a kind that is not known": config(architectures=["Evil"], model_type="evil"),
}


def is_refused(model, damage, name):
    """The server ends with 1, says why in a word for people, and does nothing of what the files ask for."""
    write_model(model)
    damage(model)
    done = start("--port", "0", "--model", str(model), "--log-format", "json")
    said = [line for line in done.stderr.splitlines() if not line.startswith("{")]
    assert done.returncode == 1, f"{name}: {done.returncode} {done.stderr[-1500:]}"
    assert said and len("".join(said)) < 2000 and "Traceback" not in done.stderr, f"{name}: {done.stderr[-1500:]}"
    assert not (model / "sentinel").exists()
    return " ".join(said)


@pytest.mark.parametrize("cases", [QUICK, MORE], ids=["quick", "more"])
def test_m01_to_m23_files_that_cannot_be_a_model(tmp_path, cases, is_long):
    """M01, M03, M05, M09, M11, M15, M17: damaged weights, configs, tokenisers, a pickle: exit 1, and what is wrong."""
    if cases is MORE and not is_long:
        pytest.skip("takes long")
    with ThreadPoolExecutor(2) as pool:
        jobs = {
            name: pool.submit(is_refused, tmp_path / str(place), damage, name)
            for place, (name, damage) in enumerate(cases.items())
        }
        failures = [error for job in jobs.values() if (error := job.exception()) is not None]
    if failures:
        raise ExceptionGroup(f"{len(failures)} of {len(cases)}", failures)


def test_m07_m13_files_that_change_and_files_that_would_run(tmp_path):
    """M07, M13: weights cut while they are served; json.py, torch.py beside them: the same tokens, nothing imported."""
    model = write_model(tmp_path / "model")
    sentinel = tmp_path / "sentinel"
    for name in ("json", "torch", "openwork", "modeling_evil", "sitecustomize"):
        (model / f"{name}.py").write_text(f"import os; os.mkdir({str(sentinel)!r})")
    config(auto_map={"AutoModelForCausalLM": "modeling_evil.Evil"})(model)
    with Serving(tmp_path / "server", "--model", str(model), "--served-model-name", MODEL) as serving:
        serving.wait_until_ready()
        tokens = serving.post(COMPLETIONS, GOLDEN).json["choices"][0]["token_ids"]
        with (model / WEIGHTS).open("r+b") as file:
            file.truncate(1000)
        assert serving.post(COMPLETIONS, GOLDEN).json["choices"][0]["token_ids"] == tokens
        assert serving.post(CHAT, chat(response_format={"type": "json_object"})).status == 200
        assert not sentinel.exists()


@pytest.mark.parametrize("number", [np.nan, -np.inf])
def test_m23_weights_that_are_not_finite(tmp_path, number):
    """M23: NaN or infinity among the weights: exit 1, and the tensor is named."""
    said = is_refused(tmp_path, with_numbers(0, 1, number), "not finite")
    entries, _ = header(tmp_path)
    last = max((name for name in entries if name != "__metadata__"), key=lambda name: entries[name]["data_offsets"][0])
    assert last in said and f"holds {number:g} at output" in said, said


def test_m23_weights_whose_sums_are_not_finite(tmp_path):
    """M23: finite weights whose sums are not: each request ends with 500 numerical_error, and the server lives."""
    model = write_model(tmp_path / "model")
    with_numbers(*[3e38] * 64)(model)
    with Serving(tmp_path / "server", "--model", str(model), "--served-model-name", MODEL) as serving:
        serving.wait_until_ready()
        for body in (completion(), completion(logprobs=2), completion(guided_choice=["a", "b"])):
            answer = serving.post(COMPLETIONS, body)
            assert answer.status == 500 and answer.error["code"] == "numerical_error", answer
        assert serving.get("/health").status == 200
        eventually(serving.is_idle, "idle")


TEMPLATES = {
    "syntax": "{% if %}",
    "a loop of 10^9": "{% for i in range(10**9) %}x{% endfor %}",
    "a text of 10^10": "{{ 'a' * 10**10 }}",
    "globals": "{{ lipsum.__globals__ }}{{ cycler.__init__.__globals__ }}",
    "format": "{{ ''|attr('format') }}{{ '{0.__class__}'.format(1) }}",
    "include": "{% include '/etc/passwd' %}",
    "recursion": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "a refusal": "{{ raise_exception('<b>no</b>') }}",
}


@pytest.mark.parametrize("name", TEMPLATES)
def test_g27_m19_templates_that_are_hostile(tmp_path, name, is_long):
    """G27, M19: chat templates that loop, grow, or look for Python's insides: 400 in bounded time; completions work."""
    if not is_long and name not in ("a loop of 10^9", "globals"):
        pytest.skip("takes long")
    model = write_model(tmp_path / "model")
    (model / "chat_template.jinja").write_text(TEMPLATES[name])
    with Serving(tmp_path / "server", "--model", str(model), "--served-model-name", MODEL) as serving:
        serving.wait_until_ready()
        began = time.monotonic()
        answer = serving.post(CHAT, chat())
        assert answer.status == 400 and answer.error["param"] == "messages", answer
        check_no_leak(answer.error["message"])
        assert time.monotonic() - began < 60
        assert serving.post(COMPLETIONS, completion()).status == 200
        eventually(serving.is_idle, "idle")
    assert "Traceback" not in serving.log_text()
