"""Peers without peers: models in their forms, the turns against an engine made of one line, the table of a record."""

import importlib
import json
import struct
import subprocess
import sys

import numpy as np
import pytest

from openwork.bench.shapes import SHAPES

ENGINE = """
import sys
sys.path.insert(0, {folder!r})
import worker
class Pretend:
    costs = {{"decode_cost": {{"num_bytes": 10, "operations": 20}}}}
    def __init__(self, model, threads, options):
        self.options = options
        print("noise on standard output")
    def run(self, prompts, tokens):
        assert all(len(prompt) == len(prompts[0]) for prompt in prompts)
        assert len(set(map(tuple, prompts))) == len(prompts)
        slow = float(self.options["slow"])
        if slow > 50:
            raise SystemExit(3)
        return slow, slow * (1 + tokens)
worker.serve(Pretend)
"""


@pytest.fixture
def tiny(scripts, tmp_path):
    checkpoint = importlib.import_module("engines.checkpoint")
    return checkpoint.write(tmp_path / "tiny" / "hf", "tiny")


def command(scripts, tmp_path, slow):
    turns = importlib.import_module("engines.turns")
    program = tmp_path / "pretend.py"
    program.write_text(ENGINE.format(folder=str(scripts / "engines")))
    return turns.Command([sys.executable, str(program), "model", "2", f"slow={slow}"], {})


def test_the_vocabulary_is_as_large_as_asked_and_every_merge_leads_to_a_token(scripts):
    checkpoint = importlib.import_module("engines.checkpoint")
    tokens, merges = checkpoint.vocabulary(151936)
    assert len(tokens) == len(set(tokens)) == 151936
    known = set(tokens)
    assert all(one in known and other in known and one + other in known for one, other in merges)
    assert len(checkpoint.vocabulary(300)[0]) == 300


def test_the_checkpoint_is_one_that_ours_opens_with_its_tokenizer(tiny):
    from openwork import LLM, SamplingParams

    with LLM(tiny, backend="reference") as llm:
        assert llm.tokenizer.vocab_size == SHAPES["tiny"]["vocab_size"]
        assert (
            len(llm.generate("hello", SamplingParams(max_tokens=2, ignore_eos=True))[0].completions[0].token_ids) == 2
        )


def test_a_gguf_holds_the_same_bits(scripts, tiny, tmp_path):
    tensors, ggml_file = (importlib.import_module(f"engines.{name}") for name in ("tensors", "ggml_file"))
    path = tmp_path / "bf16.gguf"
    ggml_file.write(tiny, path)
    data = path.read_bytes()
    magic, version, count, pairs = struct.unpack_from("<4sIQQ", data)
    held = tensors.read(tiny / "model.safetensors")
    assert (magic, version, count) == (b"GGUF", 3, len(held)) and pairs > 15
    assert b"blk.1.attn_output.weight" in data and b"token_embd.weight" in data
    assert held["model.layers.1.self_attn.o_proj.weight"].values.tobytes() in data
    keys = held["model.layers.0.self_attn.k_proj.weight"].values  # (2 heads of 32, 128), halves become neighbours
    order = [head * 32 + half * 16 + at for head in range(2) for at in range(16) for half in range(2)]
    assert keys[order].tobytes() in data and len(data) % ggml_file.ALIGNMENT == 0


def test_int8_weights_say_nearly_what_the_checkpoint_says(scripts, tiny, tmp_path):
    tensors, w8a8 = (importlib.import_module(f"engines.{name}") for name in ("tensors", "w8a8"))
    w8a8.write(tiny, tmp_path / "w8a8")
    before, after = (tensors.read(each / "model.safetensors") for each in (tiny, tmp_path / "w8a8"))
    name = "model.layers.0.mlp.up_proj.weight"
    restored = after[name].values * after[f"{name}_scale"].floats()
    assert after[name].values.dtype == np.int8
    assert np.abs(restored - before[name].floats()).max() < 1 / 32 / 127
    assert after["model.embed_tokens.weight"].values.tobytes() == before["model.embed_tokens.weight"].values.tobytes()
    assert (
        json.loads((tmp_path / "w8a8" / "config.json").read_text())["quantization_config"]["format"] == "int-quantized"
    )


def test_turns_take_medians_and_ratios(scripts, tmp_path):
    turns, table = (importlib.import_module(f"engines.{name}") for name in ("turns", "table"))
    pace = turns.Pace(turns=2, seconds=60, limit_s=30)
    test = table.Test("x", "", streams=2, prompt=10, tokens=5)
    with (tmp_path / "log").open("w") as log:
        workers = [turns.Worker(command(scripts, tmp_path, slow), log, 30) for slow in (0.5, 2.0)]
        found = turns.work(*workers, test, 1000, pace, lambda: 5e9)
        for worker in workers:
            worker.close()
        began = turns.starts(*(command(scripts, tmp_path, 1.0),) * 2, log, turns.Pace(1, 60, 30))
    assert found["turns"] == 2 and found["read_gb_s"] == 5
    assert found["prefill"] == {"ours": 2 * 10 / 0.5, "peer": 2 * 10 / 2.0, "ratio": 4.0}
    assert found["decode"]["ratio"] == pytest.approx(4.0) and found["decode_cost"]["operations"] == 20
    assert began["turns"] == 1 and began["start_s"]["ours"] > 0 and began["start_peak_bytes"]["ratio"] > 0
    assert "noise on standard output" in (tmp_path / "log").read_text()


def test_an_engine_that_ends_or_hangs_is_named(scripts, tmp_path):
    turns = importlib.import_module("engines.turns")
    with (tmp_path / "log").open("w") as log:
        with pytest.raises(turns.EngineStopped, match="ended with 3"):
            turns.Worker(command(scripts, tmp_path, 99), log, 30)
        hanging = turns.Command([sys.executable, "-c", "import time; time.sleep(60)"], {})
        with pytest.raises(turns.EngineStopped, match="no answer within"):
            turns.Worker(hanging, log, 0.1)


def test_a_file_of_each_peer_exists_and_each_number_of_bits_is_ours_too(scripts):
    table = importlib.import_module("engines.table")
    for peer in table.PEERS:
        assert (scripts / "engines" / peer.program).is_file()
        assert peer.environment in table.ENVIRONMENTS and peer.bits in table.OURS
        assert set(peer.tests) <= {test.name for test in table.TESTS}
    assert table.chosen(["q8_0"], ["llama.cpp"])[0].name == "llama.cpp Q8_0"
    assert table.chosen([], ["vllm"]) and not table.chosen(["q8_0"], ["vllm"])


RECORD = {
    "shape": "qwen3-0.6b",
    "contract_id": "x-v2",
    "threads": 2,
    "skipped": ["vllm: no environment was named"],
    "results": [
        {
            "peer": peer, "bits": 8, "dtype": "int8", "test": test, "about": about, "streams": streams, "prompt": 128,
            "turns": 3, "prefill": {"ours": 100.0, "peer": 50.0, "ratio": 2.0},
            "decode": {"ours": 60.0, "peer": 60 / ratio, "ratio": ratio},
        }
        for peer, ratio in (("llama.cpp Q8_0", 3.0), ("OpenVINO INT8", 1.5))
        for test, about, streams in (("a", "1 stream", 1), ("b8", "8 streams", 8))
    ],
}  # fmt: skip


def test_the_table_shows_every_peer_and_the_best_of_them(scripts, tmp_path):
    path = tmp_path / "peers.json"
    path.write_text(json.dumps(RECORD))
    shown = subprocess.run(
        [sys.executable, scripts / "peers.py", "--show", path], capture_output=True, text=True, check=True
    ).stdout
    rows = [line for line in shown.splitlines() if line.startswith(("llama.cpp", "OpenVINO"))]
    assert len(rows) == 6  # both tests' decoding, and the prefill of one stream
    best = [line for line in shown.splitlines() if line.startswith("  8 bits")]
    assert any("decode" in line and "1.50" in line and "OpenVINO" in line for line in best)
    assert "left out: vllm" in shown


@pytest.mark.parametrize(
    ("args", "part"),
    [
        ((), "CMAKE_ARGS"),
        (("--env", "nobody=python"), "there is no 'nobody'"),
        (("--env", f"vllm={sys.executable}"), "has no vllm"),
        (("--tests", "z"), "there is no test 'z'"),
    ],
)
def test_the_script_says_what_it_needs(scripts, args, part):
    done = subprocess.run([sys.executable, scripts / "peers.py", *args], capture_output=True, text=True, check=False)
    assert done.returncode != 0 and part in done.stderr
