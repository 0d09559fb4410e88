from __future__ import annotations

import json

import pytest

from openwork.run import memory
from openwork.testing.checkpoint import write_checkpoint


@pytest.fixture
def checkpoint(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "available_bytes", lambda: 10_000_000)
    write_checkpoint(tmp_path)
    return tmp_path


def test_the_figures_follow_from_the_architecture(run, checkpoint):
    result = run("info", str(checkpoint), "--json", "--context", "8")
    assert result.exit_code == 0, result.stderr
    record = json.loads(result.stdout)
    config = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))
    hidden, inner, layers = config["hidden_size"], config["intermediate_size"], config["num_hidden_layers"]
    head = config.get("head_dim", hidden // config["num_attention_heads"])
    kv = config["num_key_value_heads"] * head
    q = config["num_attention_heads"] * head
    matrices = layers * (hidden * (2 * q + 2 * kv) + 3 * hidden * inner) + config["vocab_size"] * hidden
    assert record["context"] == 8
    assert record["flops_per_token"] == 2 * matrices + layers * 4 * q * 8
    padding = (-config["vocab_size"] % 16) * hidden
    for dtype, size in (("float32", 4), ("bfloat16", 2)):
        cost = record[dtype]
        assert cost["weight_bytes_per_token"] == (matrices + padding) * size
        assert cost["kv_bytes_per_token"] == 2 * layers * kv * size
        assert cost["kv_tokens"] == (10_000_000 - cost["weight_bytes"]) // cost["kv_bytes_per_token"]
        assert cost["longest_context"] == min(cost["kv_tokens"], record["max_positions"])
        assert cost["fits"] is True


def test_what_does_not_fit_is_said(run, checkpoint, monkeypatch):
    record = json.loads(run("info", str(checkpoint), "--json").stdout)
    room = record["float32"]["kv_bytes_per_token"] * 3
    monkeypatch.setattr(memory, "available_bytes", lambda: record["float32"]["weight_bytes"] + room)
    record = json.loads(run("info", str(checkpoint), "--json", "--context", "4").stdout)
    assert record["float32"]["kv_tokens"] == 3
    assert record["float32"]["fits"] is False
    text = run("info", str(checkpoint), "--context", "4").stdout
    assert text.splitlines()[-1].split() == ["4", "tokens", "fit", "no", "yes", "yes", "yes"]


def test_the_page_is_for_people(run, checkpoint):
    text = run("info", str(checkpoint)).stdout
    assert text.startswith(f"{checkpoint}\n\n  architecture            LlamaForCausalLM\n")
    assert "10 MB available here" in text
    assert max(len(line) for line in text.splitlines() if str(checkpoint) not in line) <= 80


def test_a_wrong_question(run, checkpoint, tmp_path):
    assert run("info", str(checkpoint), "--context", "0").exit_code == 2
    result = run("info", str(tmp_path / "nowhere"))
    assert result.exit_code == 1
    assert result.stderr.startswith("error: ")


def test_the_weights_are_not_read(run, checkpoint):
    """The headers are enough: with every weight changed, the answer is the same."""
    before = run("info", str(checkpoint), "--json").stdout
    path = checkpoint / "model.safetensors"
    data = path.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    path.write_bytes(data[:start] + bytes(len(data) - start))
    assert run("info", str(checkpoint), "--json").stdout == before
