"""Every architecture against `transformers`, in float32: logits, whole and in chunks, and greedy tokens.

Random tiny checkpoints with odd shapes. The measure is the largest difference over the range of the logits. Two ways
round: checkpoints that we write and both read, and checkpoints that transformers writes, with today's spelling of
configs. Skipped where torch and transformers are not installed.
"""

import numpy as np
import pytest
from agreement import GREEDY, Case, compare, prompt, read, torch
from one_sequence import OneSequence

from openwork.load.assemble import load
from openwork.ops.reference import Reference
from openwork.testing.checkpoint import write_checkpoint, write_safetensors

safetensors_numpy = pytest.importorskip("safetensors.numpy")


def backends():
    yield Reference
    try:
        from openwork.ops.cpu import Cpu

        Cpu()
    except Exception:
        return
    yield Cpu


def heads(count, kv, size, hidden=None):
    hidden = hidden or count * size
    return {"num_attention_heads": count, "num_key_value_heads": kv, "head_dim": size, "hidden_size": hidden}


def scaled(kind, **fields):
    return {"rope_scaling": {"rope_type": kind, **fields}}


LLAMA3 = scaled("llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=32)
YARN = {"factor": 4.0, "original_max_position_embeddings": 32}
LONG = {
    "short_factor": [1.0, 1.1, 1.3, 2.0, 2.5, 3.0, 3.5, 4.0],
    "long_factor": [1.0, 2.0, 3.0, 5.0, 8.0, 9.0, 9.5, 10.0],
}

CASES = [
    Case("LlamaForCausalLM"),
    Case("LlamaForCausalLM", heads(4, 4, 8) | {"vocab_size": 33}),
    Case(
        "LlamaForCausalLM", heads(8, 2, 12) | {"vocab_size": 1000, "intermediate_size": 50, "tie_word_embeddings": True}
    ),
    Case("LlamaForCausalLM", heads(8, 1, 80, 40) | {"num_hidden_layers": 2}),
    Case("LlamaForCausalLM", heads(2, 1, 256, 96) | {"attention_bias": True, "mlp_bias": True}),
    Case("LlamaForCausalLM", LLAMA3, prompt=100),
    Case("LlamaForCausalLM", scaled("linear", factor=4.0) | {"rope_theta": 500000.0}),
    Case("LlamaForCausalLM", scaled("yarn", **YARN), prompt=100),
    Case("LlamaForCausalLM", scaled("yarn", mscale=0.7, mscale_all_dim=1.3, beta_fast=16.0, beta_slow=2.0, **YARN)),
    Case("LlamaForCausalLM", scaled("yarn", attention_factor=1.2, truncate=False, **YARN)),
    Case("MistralForCausalLM", {"sliding_window": 7}),
    Case("MistralForCausalLM", {"sliding_window": 40, "head_dim": 24}),
    Case("MistralForCausalLM", {"sliding_window": None}),
    Case("Qwen2ForCausalLM"),
    Case("Qwen2ForCausalLM", heads(8, 8, 8) | {"use_sliding_window": False, "tie_word_embeddings": True}),
    Case(
        "Qwen2ForCausalLM",
        {"layer_types": ["sliding_attention", "full_attention", "sliding_attention"], "sliding_window": 16},
    ),
    Case("Qwen2ForCausalLM", {"use_sliding_window": False, **scaled("yarn", **YARN)}, prompt=100),
    Case("Qwen3ForCausalLM"),
    Case("Qwen3ForCausalLM", heads(4, 1, 256, 72) | {"tie_word_embeddings": False, "num_hidden_layers": 2}),
    Case("Qwen3ForCausalLM", heads(8, 4, 80, 56) | {"attention_bias": True, "rope_theta": 1e6}),
    Case("Gemma2ForCausalLM"),
    Case("Gemma2ForCausalLM", heads(2, 2, 256, 48) | {"query_pre_attn_scalar": 144, "sliding_window": 9}),
    Case(
        "Gemma2ForCausalLM",
        {
            "attn_logit_softcapping": None,
            "final_logit_softcapping": None,
            "hidden_activation": "gelu",
            "attention_bias": True,
        },
    ),
    Case("Gemma2ForCausalLM", {"attn_logit_softcapping": 2.0, "final_logit_softcapping": 3.0, "head_dim": 12}),
    Case("Phi3ForCausalLM"),
    Case("Phi3ForCausalLM", {"partial_rotary_factor": 0.75, "sliding_window": 16}),
    Case("Phi3ForCausalLM", scaled("longrope", **LONG) | {"original_max_position_embeddings": 256}, context=256),
    Case("Phi3ForCausalLM", scaled("longrope", **LONG) | {"original_max_position_embeddings": 64}, prompt=100),
    Case(
        "Phi3ForCausalLM",
        scaled("longrope", **LONG) | {"original_max_position_embeddings": 64, "tie_word_embeddings": True},
        context=300,
        prompt=80,
    ),
    Case("GPT2LMHeadModel"),
    Case("GPT2LMHeadModel", {"n_embd": 80, "n_head": 1, "n_inner": 50, "tie_word_embeddings": False}),
    Case("GPT2LMHeadModel", {"n_embd": 36, "n_head": 3, "scale_attn_by_inverse_layer_idx": True, "vocab_size": 101}),
    Case("GPT2LMHeadModel", {"scale_attn_weights": False, "activation_function": "relu"}),
    Case("GPTNeoXForCausalLM"),
    Case("GPTNeoXForCausalLM", {"use_parallel_residual": False, "rotary_pct": 1.0, "attention_bias": False}),
    Case(
        "GPTNeoXForCausalLM",
        {
            "hidden_size": 160,
            "num_attention_heads": 2,
            "rotary_pct": 0.5,
            "tie_word_embeddings": True,
            "vocab_size": 1001,
        },
    ),
    Case("GPTNeoXForCausalLM", scaled("linear", factor=2.0) | {"hidden_act": "gelu_new", "rotary_emb_base": 5000}),
]


@pytest.mark.parametrize("make_ops", list(backends()), ids=lambda make: make.__name__)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_our_checkpoints(case, make_ops, tmp_path):
    write_checkpoint(tmp_path, case.architecture, seed=len(str(case)), **case.overrides)
    compare(tmp_path, make_ops(), case, read(tmp_path))


BY_ARCHITECTURE = list({case.architecture: case for case in CASES if not case.overrides}.values())
SCALED = [case for case in CASES if "rope_scaling" in case.overrides or "layer_types" in case.overrides]


@pytest.mark.parametrize("case", BY_ARCHITECTURE + SCALED, ids=str)
def test_checkpoints_written_by_transformers(case, tmp_path):
    """Configs as transformers writes them today: rope_parameters, dtype, layer_types, and the tensor names of now."""
    first, second = tmp_path / "ours", tmp_path / "theirs"
    write_checkpoint(first, case.architecture, seed=1, **case.overrides)
    oracle = read(first)
    oracle.save_pretrained(second)
    compare(second, Reference(), case, oracle)


@pytest.mark.parametrize("case", BY_ARCHITECTURE, ids=str)
def test_greedy_generation(case, tmp_path):
    """Their generate, with their cache, token for token."""
    write_checkpoint(tmp_path, case.architecture, seed=2, eos_token_id=None)
    loaded = load(tmp_path, Reference())
    ids = prompt(loaded.spec.vocab_size, 21)
    theirs = read(tmp_path).generate(
        torch.tensor([ids]), max_new_tokens=GREEDY, do_sample=False, eos_token_id=None, pad_token_id=0
    )
    assert OneSequence(loaded.model).greedy(ids, GREEDY) == theirs[0, len(ids) :].tolist()


@pytest.mark.parametrize("case", [case for case in CASES if "rope_scaling" in case.overrides], ids=str)
def test_frequencies(case, tmp_path):
    """Two units in the last place at most, so that windows of any length agree."""
    write_checkpoint(tmp_path, case.architecture, **case.overrides)
    oracle = read(tmp_path)
    rotary = getattr(oracle, oracle.base_model_prefix).rotary_emb
    spec = load(tmp_path, Reference(), context=case.context).spec
    last = (case.context or spec.max_positions) - 1
    rotary(torch.zeros(1, 1), torch.tensor([[last]]))  # longrope chooses its list here
    ours = np.array(spec.rope.frequencies, np.float32)
    np.testing.assert_array_max_ulp(ours, rotary.inv_freq.numpy(), 2)
    assert spec.rope.scale == pytest.approx(rotary.attention_scaling, rel=1e-12)


@pytest.mark.parametrize("tied", [True, False])
def test_gpt2_names_without_prefix(tied, tmp_path):
    first, second = tmp_path / "with", tmp_path / "without"
    write_checkpoint(first, "GPT2LMHeadModel", tie_word_embeddings=tied)
    write_checkpoint(second, "GPT2LMHeadModel", tie_word_embeddings=tied)
    tensors = safetensors_numpy.load_file(first / "model.safetensors")
    bare = {name.removeprefix("transformer."): each for name, each in tensors.items()}
    write_safetensors(second / "model.safetensors", bare)
    compare(second, Reference(), Case("GPT2LMHeadModel"), read(first))
