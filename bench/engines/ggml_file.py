"""A Hugging Face directory of ours as a GGUF file in bfloat16, for llama.cpp.

    header | key-value pairs | what each tensor is, and where | padding | data, every tensor at a multiple of 32 bytes

Source: the GGUF specification, version 3, in the ggml repository. Only what two architectures need is written.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from engines import tensors
from engines.checkpoint import SPECIAL, vocabulary

ALIGNMENT = 32
_U32, _F32, _BOOL, _STRING, _ARRAY, _I32 = 4, 6, 7, 8, 9, 5
_TENSOR_TYPES = {"F32": 0, "BF16": 30}
_NORMAL, _CONTROL = 1, 3
_MOSTLY_BF16 = 32
_PARTS = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}


def write(directory: Path, path: Path) -> None:
    """Write ``directory``'s model as GGUF to ``path``, unless it is there."""
    if path.exists():
        return
    config = json.loads((directory / "config.json").read_text())
    held = tensors.read(directory / "model.safetensors")
    named = [(_name(name), name) for name in held]
    pairs = _pairs(config)
    infos, at = [], 0
    for there, here in named:
        tensor = held[here]
        kind = "F32" if tensor.values.ndim == 1 else "BF16"  # norms are wanted in float32
        size = tensor.values.size * (4 if kind == "F32" else 2)
        infos.append(_text(there) + struct.pack("<I", tensor.values.ndim))
        infos.append(struct.pack(f"<{tensor.values.ndim}Q", *reversed(tensor.values.shape)))  # fastest axis first
        infos.append(struct.pack("<IQ", _TENSOR_TYPES[kind], at))
        at += _padded(size)
    head = struct.pack("<4sIQQ", b"GGUF", 3, len(named), len(pairs)) + b"".join(pairs) + b"".join(infos)
    unfinished = path.with_suffix(".unfinished")
    with unfinished.open("wb") as file:
        file.write(head + bytes(_padded(len(head)) - len(head)))
        for _, here in named:
            data = _bytes(here, held[here], config)
            file.write(data + bytes(_padded(len(data)) - len(data)))
    unfinished.rename(path)


def _pairs(config: dict) -> list[bytes]:
    kind = config["model_type"]
    tokens, merges = vocabulary(config["vocab_size"])
    types = [_NORMAL] * (len(tokens) - len(SPECIAL)) + [_CONTROL] * len(SPECIAL)
    numbers = {
        "block_count": config["num_hidden_layers"],
        "context_length": config["max_position_embeddings"],
        "embedding_length": config["hidden_size"],
        "feed_forward_length": config["intermediate_size"],
        "attention.head_count": config["num_attention_heads"],
        "attention.head_count_kv": config["num_key_value_heads"],
        "attention.key_length": config["head_dim"],
        "attention.value_length": config["head_dim"],
        "rope.dimension_count": config["head_dim"],
        "vocab_size": config["vocab_size"],
    }
    return [
        _pair("general.architecture", _STRING, _text(kind)),
        _pair("general.file_type", _U32, struct.pack("<I", _MOSTLY_BF16)),
        *(_pair(f"{kind}.{key}", _U32, struct.pack("<I", value)) for key, value in numbers.items()),
        _pair(f"{kind}.rope.freq_base", _F32, struct.pack("<f", config["rope_theta"])),
        _pair(f"{kind}.attention.layer_norm_rms_epsilon", _F32, struct.pack("<f", config["rms_norm_eps"])),
        _pair("tokenizer.ggml.model", _STRING, _text("gpt2")),
        _pair("tokenizer.ggml.pre", _STRING, _text("qwen2" if kind == "qwen3" else "llama-bpe")),
        _array("tokenizer.ggml.tokens", _STRING, [_text(each) for each in tokens]),
        _array("tokenizer.ggml.token_type", _I32, [struct.pack("<i", each) for each in types]),
        _array("tokenizer.ggml.merges", _STRING, [_text(" ".join(pair)) for pair in merges]),
        _pair("tokenizer.ggml.bos_token_id", _U32, struct.pack("<I", config["bos_token_id"])),
        _pair("tokenizer.ggml.eos_token_id", _U32, struct.pack("<I", config["eos_token_id"])),
        _pair("tokenizer.ggml.add_bos_token", _BOOL, b"\0"),
    ]


def _name(name: str) -> str:
    outer = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
    stem = name.removesuffix(".weight")
    if stem in outer:
        return outer[stem] + ".weight"
    _, _, layer, part = stem.split(".", 3)
    return f"blk.{layer}.{_PARTS[part]}.weight"


def _bytes(name: str, tensor: tensors.Tensor, config: dict) -> bytes:
    values = tensor.values
    if values.ndim == 1:
        return tensor.floats().tobytes()
    if config["model_type"] == "llama" and ("q_proj" in name or "k_proj" in name):
        # this architecture turns neighbours in a GGUF, where checkpoints turn the two halves of a head:
        #     a0 a1 a2 b0 b1 b2  ->  a0 b0 a1 b1 a2 b2
        halves = values.reshape(-1, 2, config["head_dim"] // 2, values.shape[1])
        values = np.swapaxes(halves, 1, 2).reshape(values.shape)
    return values.tobytes()


def _padded(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


def _text(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def _pair(key: str, kind: int, value: bytes) -> bytes:
    return _text(key) + struct.pack("<I", kind) + value


def _array(key: str, kind: int, values: Sequence[bytes]) -> bytes:
    return _pair(key, _ARRAY, struct.pack("<IQ", kind, len(values)) + b"".join(values))
