"""openwork replay, in processes of its own, on recordings that an LLM wrote."""

import json
import os
import subprocess
import sys

import pytest

from openwork import LLM, SamplingParams
from openwork.ops.cpu import available


def command(*arguments, **env):
    line = [sys.executable, "-m", "openwork", "replay", *map(str, arguments)]
    return subprocess.run(
        line, capture_output=True, text=True, check=False, timeout=120, env={**os.environ, "COLUMNS": "200", **env}
    )


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    root = tmp_path_factory.mktemp("recordings")
    several = SamplingParams(temperature=0.9, seed=5, n=2, max_tokens=12)
    greedy = SamplingParams(temperature=0, max_tokens=9)
    with LLM(record=root / "kept") as llm:
        llm.generate(["once upon a time", "one day"], [several, greedy])
    with LLM(record=root / "bare", record_prompts=False) as llm:
        llm.generate("one day", greedy)
    return root


def test_equal_is_said_and_is_the_exit_code(recorded):
    done = command("0", "--record", recorded / "kept")
    assert done.returncode == 0, done.stderr
    assert "0: equal. 24 tokens in 2 sequences" in done.stdout
    done = command("1", "--record", recorded / "kept", "--json")
    assert json.loads(done.stdout) == {
        "id": "1",
        "equal": True,
        "tokens": 9,
        "unhashed": 0,
        "first_difference": None,
    }


def test_one_step(recorded):
    done = command("1", "--record", recorded / "kept", "--step", 8, "--json")
    assert done.returncode == 0 and json.loads(done.stdout)["tokens"] == 1
    done = command("1", "--record", recorded / "kept", "--step", 9)
    assert done.returncode == 3 and "request 1 has no token 9" in done.stderr


def test_what_cannot_be_replayed_says_what_to_do(recorded, tmp_path):
    done = command("0", "--record", recorded / "bare")
    assert done.returncode == 3 and "without its tokens" in done.stderr and "prompts kept" in done.stderr
    done = command("nobody", "--record", recorded / "kept")
    assert done.returncode == 3 and "no request 'nobody'" in done.stderr
    done = command("0", "--record", tmp_path)
    assert done.returncode == 3 and "no recording" in done.stderr


def test_a_difference_is_told_with_its_layer_and_operation(tmp_path):
    """A sequence that was served with a damaged cache: the third layer of six met keys that nobody had computed."""
    text = "once upon a time there was a little cat who liked to sit by the window and look at the birds"
    with LLM(record=tmp_path, record_layers=1, kv_dtype="bfloat16") as llm:
        llm.generate(text, SamplingParams(temperature=0, max_tokens=4))
        llm._engine._loop._runner._kv.keys[2] ^= 1 << 6  # a bit of each number's fraction
        llm.generate(text + " and the sky", SamplingParams(temperature=0, max_tokens=9))
    assert command("0", "--record", tmp_path).returncode == 0
    done = command("1", "--record", tmp_path)
    assert done.returncode == 1 and "1: differs at token 0" in done.stdout
    assert "It comes about in layer 2, attend: all that this row passed before" in done.stdout
    first = json.loads(command("1", "--record", tmp_path, "--json").stdout)["first_difference"]
    assert (first["layer"], first["op"], first["seen_at"]) == (2, "attend", 0)


@pytest.mark.skipif(len(available()) < 2, reason="one instruction set only")
def test_the_arithmetic_that_served_is_used_where_it_is_there(tmp_path, monkeypatch):
    monkeypatch.setenv("OPENWORK_ISA", "portable")
    with LLM(record=tmp_path) as llm:
        llm.generate("one day", SamplingParams(temperature=0, max_tokens=5))
    done = command("0", "--record", tmp_path, OPENWORK_ISA=available()[0])
    assert done.returncode == 0, done.stderr


def test_another_model_is_not_compared(recorded, tmp_path):
    from openwork.testing.checkpoint import write_checkpoint

    other = write_checkpoint(tmp_path / "other", dtype="bfloat16")
    done = command("0", "--record", recorded / "kept", "--model", other)
    assert done.returncode == 3 and "vocabulary 2048, this is 259" in done.stderr
    same_size = write_checkpoint(tmp_path / "same", dtype="bfloat16", vocab_size=2048)
    done = command("0", "--record", recorded / "kept", "--model", same_size)
    assert done.returncode == 3 and "made with other weights" in done.stderr and "fingerprint" in done.stderr
