"""Qwen 3, the dense models.

Source: Yang et al. 2025 (Qwen3). Llama with an RMSNorm over every head of the queries and keys before they are rotated;
heads are 128 wide unless the config says otherwise, whatever the hidden size.
"""

from __future__ import annotations

from dataclasses import replace

from openwork.core.spec import ModelSpec
from openwork.models import parts
from openwork.models.config import Config
from openwork.models.parts import Layer, Take, Weights

IGNORED = (parts.ROTARY_BUFFERS,)


def spec(config: Config, context: int | None = None) -> ModelSpec:
    spec = parts.gated_spec(config, "Qwen3ForCausalLM", context, head_dim=128)
    return replace(spec, windows=parts.late_windows(config, spec.num_layers))


def weights(take: Take, config: Config, spec: ModelSpec) -> Weights:
    bias = config.flag("attention_bias", False)

    def one(at: str, index: int) -> Layer:
        q_norm = take.norm(at + "self_attn.q_norm", size=spec.head_dim)
        k_norm = take.norm(at + "self_attn.k_norm", size=spec.head_dim)
        return Layer(
            attention_norm=take.norm(at + "input_layernorm"),
            attention=parts.separate_attention(
                take, at, index, qkv_bias=bias, out_bias=bias, q_norm=q_norm, k_norm=k_norm
            ),
            mlp_norm=take.norm(at + "post_attention_layernorm"),
            mlp=parts.separate_mlp(take, at),
        )

    return parts.decoder_weights(take, spec, one)


layer = parts.pre_norm_layer
