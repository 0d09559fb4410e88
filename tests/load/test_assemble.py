"""Loading: what comes out for good checkpoints, and one clear error with nothing half-loaded for bad ones."""

import json
import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from one_sequence import OneSequence

from openwork.core.errors import BackendError, ModelError, UnsupportedModel
from openwork.load import take
from openwork.load.assemble import inspect, load
from openwork.load.safetensors import File
from openwork.ops.cpu import Cpu, available
from openwork.ops.packed import Packed
from openwork.ops.reference import Reference
from openwork.testing.checkpoint import ARCHITECTURES, tensor_shapes, write_checkpoint, write_safetensors

IDS = np.random.default_rng(0).integers(3, 259, 40).tolist()


def logits(directory, **options):
    return OneSequence(load(directory, Reference(), **options).model).feed(IDS)


def edit_config(directory, **fields):
    path = directory / "config.json"
    config = json.loads(path.read_text()) | fields
    path.write_text(json.dumps(config))


def edit_tensors(directory, change):
    """Rewrite model.safetensors after ``change`` had its way with the dictionary of float32 tensors."""
    path = directory / "model.safetensors"
    with File(path) as file:
        tensors = {name: tensor.rows(0, tensor.shape[0]).copy() for name, tensor in file.tensors.items()}
    path.unlink()
    change(tensors)
    write_safetensors(path, tensors)


def write_zeros(path, shapes):
    """A bfloat16 file of zeros: a header, and a hole that takes no room on the disk."""
    header, at = {}, 0
    for name, shape in shapes.items():
        size = 2 * int(np.prod(shape))
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + at)


class NoMemory(Reference):
    """Ops that must never be asked to hold anything."""

    def pack_rows(self, packed, row, source):
        pytest.fail("a weight was packed before the checkpoint was found to be good")


def refused(directory, message, kind=ModelError):
    with pytest.raises(kind, match=message) as error:
        load(directory, NoMemory())
    with pytest.raises(kind, match=message):
        inspect(directory)
    return error.value


@pytest.fixture
def llama(tmp_path):
    return write_checkpoint(tmp_path)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_architecture(architecture, tmp_path):
    directory = write_checkpoint(tmp_path, architecture, seed=7)
    found, loaded = inspect(directory), load(directory, Reference())
    assert loaded.spec == found.spec
    assert loaded.spec.architecture == architecture
    assert (loaded.dtype, found.dtype, found.stored_dtype) == ("float32", "float32", "F32")
    assert loaded.weight_bytes == found.packed_bytes
    with File(directory / "model.safetensors") as file:
        assert found.num_tensors == len(file.tensors)
        assert found.num_parameters == sum(tensor.num_entries for tensor in file.tensors.values())
    assert loaded.generation.eos_ids == (2,)
    result = logits(directory)
    assert np.isfinite(result).all()
    assert result.std() > 0.5


@pytest.mark.parametrize("architecture", ["LlamaForCausalLM", "GPT2LMHeadModel", "GPTNeoXForCausalLM"])
def test_slabs_of_any_size_give_the_same_bits(architecture, tmp_path, monkeypatch):
    directory = write_checkpoint(tmp_path, architecture)
    whole = logits(directory)
    monkeypatch.setattr(take, "SLAB_BYTES", 1)
    assert logits(directory).tobytes() == whole.tobytes()


def test_shards_give_the_same_bits(llama, tmp_path):
    sharded = write_checkpoint(tmp_path / "sharded", shards=4)
    assert logits(sharded).tobytes() == logits(llama).tobytes()


@pytest.mark.parametrize("stored", ["float16", "bfloat16"])
def test_sixteen_bits_are_packed_as_bfloat16(stored, tmp_path):
    directory = write_checkpoint(tmp_path, dtype=stored)
    assert load(directory, Reference()).dtype == "bfloat16"
    assert load(directory, Reference(), dtype="float32").dtype == "float32"
    wide, narrow = logits(directory, dtype="float32"), logits(directory)
    assert 0 < np.abs(wide - narrow).max() < 0.05 * (wide.max() - wide.min())


@pytest.mark.skipif(sys.platform != "linux", reason="peaks are counted in other units elsewhere")
def test_peak_memory_is_the_packed_weights(tmp_path):
    """The peak of a process that loads 250 MB of weights, over what it held before, against what they take packed."""
    sizes = {"vocab_size": 32000, "hidden_size": 1024, "num_attention_heads": 8, "intermediate_size": 4096}
    directory = write_checkpoint(tmp_path / "tiny", num_hidden_layers=1)
    edit_config(directory, **sizes, num_hidden_layers=4, num_key_value_heads=8)
    config = json.loads((directory / "config.json").read_text())
    write_zeros(directory / "model.safetensors", tensor_shapes("LlamaForCausalLM", config))
    code = """
        import pathlib, resource, sys
        from openwork.load.assemble import load
        from openwork.ops.reference import Reference
        class Ops(Reference):
            def bind(self, record):
                return record  # the reference would unpack a second copy
        peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        before = peak()
        loaded = load(pathlib.Path(sys.argv[1]), Ops())
        print(loaded.weight_bytes, peak() - before)
    """
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", textwrap.dedent(code), str(directory)]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    weights, grown = map(int, done.stdout.split())
    assert weights > 240e6
    assert grown <= 1.15 * weights


def test_an_unknown_dtype(llama):
    with pytest.raises(BackendError, match="no dtype 'int3'"):
        load(llama, Reference(), dtype="int3")


def test_progress_ends_at_the_whole(tmp_path):
    calls = []
    load(write_checkpoint(tmp_path, shards=2), Reference(), progress=lambda *call: calls.append(call))
    assert {stage for stage, _, _ in calls} == {"loading"}
    assert [done for _, done, _ in calls] == sorted(done for _, done, _ in calls)
    assert calls[-1][1] == calls[-1][2]


def test_a_tied_head_and_the_embedding_are_one(tmp_path):
    weights = load(write_checkpoint(tmp_path, tie_word_embeddings=True), Reference()).model.weights
    assert weights.head is weights.embedding


def test_a_stored_copy_of_a_tied_head_is_fine(tmp_path):
    directory = write_checkpoint(tmp_path, tie_word_embeddings=True)
    before = logits(directory)
    edit_tensors(directory, lambda all: all.update({"lm_head.weight": all["model.embed_tokens.weight"]}))
    assert logits(directory).tobytes() == before.tobytes()


def test_a_tied_head_that_differs_is_refused(tmp_path):
    directory = write_checkpoint(tmp_path, tie_word_embeddings=True)
    edit_tensors(directory, lambda all: all.update({"lm_head.weight": all["model.embed_tokens.weight"] + 1}))
    with pytest.raises(ModelError, match="differs from model") as error:
        load(directory, NoMemory())
    assert "tie_word_embeddings" in error.value.hint


@pytest.mark.parametrize(
    ("architecture", "name"),
    [
        ("LlamaForCausalLM", "model.layers.0.self_attn.rotary_emb.inv_freq"),
        ("GPT2LMHeadModel", "transformer.h.1.attn.bias"),
        ("GPT2LMHeadModel", "transformer.h.1.attn.masked_bias"),
        ("GPTNeoXForCausalLM", "gpt_neox.layers.0.attention.masked_bias"),
        ("GPTNeoXForCausalLM", "gpt_neox.layers.0.attention.rotary_emb.inv_freq"),
    ],
)
def test_buffers_of_old_exports_are_ignored(architecture, name, tmp_path):
    directory = write_checkpoint(tmp_path, architecture)
    before = logits(directory)
    edit_tensors(directory, lambda all: all.update({name: np.ones(3, np.float32)}))
    assert logits(directory).tobytes() == before.tobytes()


def test_a_missing_tensor_is_named(llama):
    edit_tensors(llama, lambda all: all.pop("model.layers.1.mlp.up_proj.weight"))
    error = refused(llama, r"is missing; config.json calls for it with shape \[112, 64\]")
    assert error.field == "model.layers.1.mlp.up_proj.weight"


def test_a_tensor_too_much_is_named(llama):
    edit_tensors(llama, lambda all: all.update({"model.layers.3.mlp.up_proj.weight": np.ones((2, 2), np.float32)}))
    assert refused(llama, "has no such tensor").field == "model.layers.3.mlp.up_proj.weight"


def test_a_wrong_shape_is_named(llama):
    edit_config(llama, intermediate_size=111)
    assert refused(llama, r"has shape \[112, 64\], but config.json calls for \[111, 64\]").field.endswith(
        "gate_proj.weight"
    )


@pytest.mark.parametrize("dtype", ["F64", "I32", "F8_E4M3"])
def test_a_wrong_dtype_is_named(llama, dtype):
    name = "model.layers.0.input_layernorm.weight"
    path = llama / "model.safetensors"
    blob = path.read_bytes()
    length = int.from_bytes(blob[:8], "little")
    header, data = json.loads(blob[8 : 8 + length]), blob[8 + length :]
    begin, end = header[name]["data_offsets"]
    width = {"F64": 8, "I32": 4, "F8_E4M3": 1}[dtype]
    grown = 64 * width - (end - begin)
    for each, entry in header.items():
        if each != "__metadata__" and entry["data_offsets"][0] >= end:
            entry["data_offsets"] = [offset + grown for offset in entry["data_offsets"]]
    header[name] = {"dtype": dtype, "shape": [64], "data_offsets": [begin, end + grown]}
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data[:begin] + bytes(64 * width) + data[end:])
    assert refused(llama, f"has dtype {dtype}").field == name


@pytest.mark.parametrize("bad", [np.nan, -np.inf])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8", "int8-channel", "int4"])
@pytest.mark.parametrize("ops", [Reference(), *([Cpu(2)] if available() else [])], ids=lambda ops: ops.name)
def test_a_weight_that_is_not_finite_is_refused_and_named(tmp_path, ops, dtype, bad):
    """Wherever it is: in the first or last entry, in a matrix that is fused, transposed, or a vector; in any format."""
    for architecture, name, place in (
        ("LlamaForCausalLM", "model.embed_tokens.weight", (0, 0)),
        ("LlamaForCausalLM", "lm_head.weight", (-1, -1)),
        ("LlamaForCausalLM", "model.layers.1.self_attn.k_proj.weight", (17, 5)),
        ("LlamaForCausalLM", "model.norm.weight", (63,)),
        ("GPT2LMHeadModel", "transformer.h.1.mlp.c_fc.weight", (3, 40)),
        ("GPT2LMHeadModel", "transformer.h.0.attn.c_attn.bias", (7,)),
    ):
        directory = tmp_path / name
        write_checkpoint(directory, architecture)
        load(directory, ops, dtype=dtype)

        def spoil(tensors, name=name, place=place):
            tensors[name][place] = bad

        edit_tensors(directory, spoil)
        with pytest.raises(ModelError, match=rf"{bad:g} at output \d+.*fetch it again") as error:
            load(directory, ops, dtype=dtype, cache="always")
        assert error.value.field == name and str(directory) in str(error.value)


@pytest.mark.parametrize("ops", [Reference(), *([Cpu(2)] if available() else [])], ids=lambda ops: ops.name)
@pytest.mark.parametrize(("dtype", "large"), [("bfloat16", 3.4e38), ("int8", 1e7), ("int4", 1e7), ("float32", None)])
def test_a_weight_that_the_format_cannot_hold_is_refused(llama, ops, dtype, large):
    def grow(tensors):
        tensors["model.layers.0.mlp.down_proj.weight"][2, 3] = large or 3.4e38

    edit_tensors(llama, grow)
    if large is None:
        load(llama, ops, dtype=dtype)
        return
    with pytest.raises(ModelError, match=rf"down_proj.*{dtype} cannot.*float32"):
        load(llama, ops, dtype=dtype)


def test_a_truncated_file(llama):
    path = llama / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])
    assert refused(llama, "1000 bytes are missing").where == str(path)


def test_no_config(tmp_path):
    refused(tmp_path, "there is no config.json here")


@pytest.mark.parametrize("text", ["", "[]", "{", '{"a": 1, "a": 2}', "[" * 100_000, "\udcff"])
def test_a_config_that_is_no_object(llama, text):
    (llama / "config.json").write_bytes(text.encode(errors="surrogateescape"))
    assert refused(llama, "JSON|UTF-8|twice").where.endswith("config.json")


def test_a_config_that_is_too_large(llama, monkeypatch):
    monkeypatch.setattr("openwork.load.document.MAX_BYTES", 100)
    refused(llama, "at most 100 are read")


def test_code_that_a_checkpoint_brings_is_never_run(llama):
    (llama / "modeling.py").write_text("raise SystemExit('the code was run')\n")
    before = logits(llama)
    auto = {"AutoModelForCausalLM": "modeling.Model"}
    edit_config(llama, auto_map=auto)
    assert logits(llama).tobytes() == before.tobytes()
    edit_config(llama, architectures=["NewForCausalLM"])
    assert (
        "LlamaForCausalLM" in refused(llama, "NewForCausalLM is not supported.*never executed", UnsupportedModel).hint
    )


def test_a_window_beyond_the_model(llama):
    with pytest.raises(ModelError, match="a context window of 513 was asked for, but the model defines 1 to 512"):
        load(llama, NoMemory(), context=513)


SIZES = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "head_dim")
VALUES = st.one_of(
    st.integers(-3, 300),
    st.sampled_from([2**20, 2**31, 2**63, 10**400, -(10**400)]),
    st.floats(),
    st.booleans(),
    st.text(max_size=3),
    st.lists(st.integers(), max_size=2),
)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.dictionaries(st.sampled_from((*SIZES, "num_key_value_heads", "rms_norm_eps", "rope_theta")), VALUES, min_size=1)
)
def test_absurd_configs_never_reach_memory(llama, changes):
    """Whatever a config says, it is refused before anything is packed, or it fits the file."""
    path = llama / "config.json"
    original = path.read_text()
    path.write_text(json.dumps(json.loads(original) | changes))
    limit, empty = 4_000_000, Packed.empty

    def small(n, k, dtype):
        assert n * k < limit
        return empty(n, k, dtype)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Packed, "empty", small)
        try:
            load(llama, Reference())
        except ModelError as error:
            named = error.field
        else:
            named = "nothing: it fits"
        finally:
            path.write_text(original)
    assert named
