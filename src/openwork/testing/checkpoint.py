"""A tiny random checkpoint of any supported architecture, written without torch.

The weights are noise from a seed, scaled so that logits spread over a few units: greedy choices have clear margins and
probabilities are neither flat nor saturated. Config and tensor names are those that public checkpoints have, so
whatever reads those reads these. What the weights mean to a model is not known here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

_LLAMA = {
    "vocab_size": 259,
    "hidden_size": 64,
    "intermediate_size": 112,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "hidden_act": "silu",
    "tie_word_embeddings": False,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_CONFIGS: dict[str, dict[str, Any]] = {
    "LlamaForCausalLM": _LLAMA | {"model_type": "llama"},
    "MistralForCausalLM": _LLAMA | {"model_type": "mistral", "sliding_window": 24},
    "Qwen2ForCausalLM": _LLAMA
    | {"model_type": "qwen2", "use_sliding_window": True, "sliding_window": 24, "max_window_layers": 1},
    "Qwen3ForCausalLM": _LLAMA | {"model_type": "qwen3", "head_dim": 24, "tie_word_embeddings": True},
    "Gemma2ForCausalLM": _LLAMA
    | {
        "model_type": "gemma2",
        "head_dim": 24,
        "sliding_window": 24,
        "query_pre_attn_scalar": 20,
        "attn_logit_softcapping": 50.0,
        "final_logit_softcapping": 30.0,
        "hidden_activation": "gelu_pytorch_tanh",
        "tie_word_embeddings": True,
    },
    "Phi3ForCausalLM": _LLAMA
    | {"model_type": "phi3", "original_max_position_embeddings": 512, "sliding_window": None, "pad_token_id": 0},
    "GPT2LMHeadModel": {
        "model_type": "gpt2",
        "vocab_size": 259,
        "n_embd": 64,
        "n_layer": 3,
        "n_head": 4,
        "n_positions": 512,
        "activation_function": "gelu_new",
        "layer_norm_epsilon": 1e-5,
        "tie_word_embeddings": True,
        "bos_token_id": 1,
        "eos_token_id": 2,
    },
    "GPTNeoXForCausalLM": {
        "model_type": "gpt_neox",
        "vocab_size": 259,
        "hidden_size": 64,
        "intermediate_size": 112,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "max_position_embeddings": 512,
        "rotary_pct": 0.25,
        "rotary_emb_base": 10000,
        "use_parallel_residual": True,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-5,
        "tie_word_embeddings": False,
        "bos_token_id": 1,
        "eos_token_id": 2,
    },
}
ARCHITECTURES = tuple(_CONFIGS)


def write_checkpoint(
    directory: Path,
    architecture: str = "LlamaForCausalLM",
    seed: int = 0,
    dtype: str = "float32",
    shards: int = 1,
    **overrides: Any,
) -> Path:
    """Write config.json, generation_config.json and model.safetensors, or ``shards`` files and their index.

    ``dtype`` is float32, float16 or bfloat16; ``overrides`` are fields of config.json (None is written as null).
    Returns the directory. Raises ValueError for an unknown architecture.
    """
    if architecture not in _CONFIGS:
        raise ValueError(f"unknown architecture {architecture!r}; there are {', '.join(ARCHITECTURES)}")
    config = {"architectures": [architecture], "torch_dtype": dtype} | _CONFIGS[architecture] | overrides
    directory.mkdir(parents=True, exist_ok=True)
    _write_json(directory / "config.json", config)
    ids = {name: config[name] for name in ("bos_token_id", "eos_token_id")}
    _write_json(directory / "generation_config.json", ids)
    tensors = random_tensors(architecture, config, seed)
    if shards == 1:
        write_safetensors(directory / "model.safetensors", tensors, dtype)
        return directory
    names = list(tensors)
    places = {name: f"model-{at % shards + 1:05}-of-{shards:05}.safetensors" for at, name in enumerate(names)}
    for shard in sorted(set(places.values())):
        write_safetensors(directory / shard, {name: tensors[name] for name in names if places[name] == shard}, dtype)
    _write_json(directory / "model.safetensors.index.json", {"metadata": {}, "weight_map": places})
    return directory


def tensor_shapes(architecture: str, config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """The tensors that a config calls for, by name."""
    shapes = {"GPT2LMHeadModel": _gpt2_shapes, "GPTNeoXForCausalLM": _neox_shapes}.get(architecture, _llama_shapes)
    return shapes(config, architecture)


def random_tensors(architecture: str, config: Mapping[str, Any], seed: int) -> dict[str, np.ndarray]:
    """Values for them, float32."""
    noise = np.random.default_rng(seed)
    shapes = tensor_shapes(architecture, config)
    return {name: _values(noise, name, shape, architecture) for name, shape in shapes.items()}


def write_safetensors(path: Path, tensors: Mapping[str, np.ndarray], dtype: str = "float32") -> None:
    """Write float32 tensors in the given type, one after the other, behind an aligned header."""
    kind = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}[dtype]
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    blobs, at = [], 0
    for name, values in tensors.items():
        blob = _encode(values, dtype)
        header[name] = {"dtype": kind, "shape": list(values.shape), "data_offsets": [at, at + len(blob)]}
        blobs.append(blob)
        at += len(blob)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"".join(blobs))


def _encode(values: np.ndarray, dtype: str) -> bytes:
    if dtype != "bfloat16":
        return values.astype(dtype).tobytes()
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)  # finite, so rounding cannot meet a NaN
    return ((bits + np.uint32(0x7FFF) + ((bits >> 16) & 1)) >> 16).astype(np.uint16).tobytes()


def _values(noise: np.random.Generator, name: str, shape: tuple[int, ...], architecture: str) -> np.ndarray:
    values = noise.standard_normal(shape, np.float32)
    if name.endswith(".bias"):
        return values * np.float32(0.1)
    is_gemma = architecture == "Gemma2ForCausalLM"
    if len(shape) == 1:  # norms: around 1, except where the model adds the 1 itself
        center = (2 if name == "model.norm.weight" else 0) if is_gemma else 1
        return values * np.float32(0.1) + np.float32(center)
    if "wte" in name or "wpe" in name or "embed_in" in name or "embed_tokens" in name:
        return values * np.float32(0.12 if is_gemma else 0.4)  # Gemma scales what it looks up, too
    inputs = shape[0] if ".c_" in name else shape[-1]  # GPT-2 stores (inputs, outputs)
    return values * np.float32((4 if "head" in name or "embed_out" in name else 1.2) / inputs**0.5)


def _llama_shapes(config: Mapping[str, Any], architecture: str) -> dict[str, tuple[int, ...]]:
    hidden, inner, vocab = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    head_dim = config.get("head_dim") or hidden // heads
    q, kv = heads * head_dim, kv_heads * head_dim
    has_bias = config.get("attention_bias", False)
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (vocab, hidden)}
    for index in range(config["num_hidden_layers"]):
        at = f"model.layers.{index}."
        shapes[at + "input_layernorm.weight"] = (hidden,)
        shapes[at + "post_attention_layernorm.weight"] = (hidden,)
        if architecture == "Phi3ForCausalLM":
            shapes[at + "self_attn.qkv_proj.weight"] = (q + 2 * kv, hidden)
            shapes[at + "mlp.gate_up_proj.weight"] = (2 * inner, hidden)
        else:
            for name, size in (("q", q), ("k", kv), ("v", kv)):
                shapes[at + f"self_attn.{name}_proj.weight"] = (size, hidden)
                if has_bias or architecture == "Qwen2ForCausalLM":
                    shapes[at + f"self_attn.{name}_proj.bias"] = (size,)
            for name in ("gate", "up"):
                shapes[at + f"mlp.{name}_proj.weight"] = (inner, hidden)
                if config.get("mlp_bias", False):
                    shapes[at + f"mlp.{name}_proj.bias"] = (inner,)
        shapes[at + "self_attn.o_proj.weight"] = (hidden, q)
        shapes[at + "mlp.down_proj.weight"] = (hidden, inner)
        if has_bias:
            shapes[at + "self_attn.o_proj.bias"] = (hidden,)
        if config.get("mlp_bias", False):
            shapes[at + "mlp.down_proj.bias"] = (hidden,)
        if architecture == "Qwen3ForCausalLM":
            shapes[at + "self_attn.q_norm.weight"] = shapes[at + "self_attn.k_norm.weight"] = (head_dim,)
        if architecture == "Gemma2ForCausalLM":
            shapes[at + "pre_feedforward_layernorm.weight"] = (hidden,)
            shapes[at + "post_feedforward_layernorm.weight"] = (hidden,)
    shapes["model.norm.weight"] = (hidden,)
    if not config["tie_word_embeddings"]:
        shapes["lm_head.weight"] = (vocab, hidden)
    return shapes


def _gpt2_shapes(config: Mapping[str, Any], architecture: str) -> dict[str, tuple[int, ...]]:
    hidden, vocab = config["n_embd"], config["vocab_size"]
    inner = config.get("n_inner") or 4 * hidden
    shapes: dict[str, tuple[int, ...]] = {
        "transformer.wte.weight": (vocab, hidden),
        "transformer.wpe.weight": (config["n_positions"], hidden),
    }
    for index in range(config["n_layer"]):
        at = f"transformer.h.{index}."
        for name in ("ln_1", "ln_2"):
            shapes[at + f"{name}.weight"] = shapes[at + f"{name}.bias"] = (hidden,)
        linears = {"attn.c_attn": 3 * hidden, "attn.c_proj": hidden, "mlp.c_fc": inner, "mlp.c_proj": hidden}
        for name, size in linears.items():
            shapes[at + f"{name}.weight"] = (inner if name == "mlp.c_proj" else hidden, size)
            shapes[at + f"{name}.bias"] = (size,)
    shapes["transformer.ln_f.weight"] = shapes["transformer.ln_f.bias"] = (hidden,)
    if not config["tie_word_embeddings"]:
        shapes["lm_head.weight"] = (vocab, hidden)
    return shapes


def _neox_shapes(config: Mapping[str, Any], architecture: str) -> dict[str, tuple[int, ...]]:
    hidden, inner, vocab = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    shapes: dict[str, tuple[int, ...]] = {"gpt_neox.embed_in.weight": (vocab, hidden)}
    for index in range(config["num_hidden_layers"]):
        at = f"gpt_neox.layers.{index}."
        for name in ("input_layernorm", "post_attention_layernorm"):
            shapes[at + f"{name}.weight"] = shapes[at + f"{name}.bias"] = (hidden,)
        linears = {
            "attention.query_key_value": (3 * hidden, hidden),
            "attention.dense": (hidden, hidden),
            "mlp.dense_h_to_4h": (inner, hidden),
            "mlp.dense_4h_to_h": (hidden, inner),
        }
        for name, shape in linears.items():
            shapes[at + f"{name}.weight"] = shape
            if name.startswith("mlp") or config.get("attention_bias", True):
                shapes[at + f"{name}.bias"] = shape[:1]
    shapes["gpt_neox.final_layer_norm.weight"] = shapes["gpt_neox.final_layer_norm.bias"] = (hidden,)
    if not config["tie_word_embeddings"]:
        shapes["embed_out.weight"] = (vocab, hidden)
    return shapes


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n")
