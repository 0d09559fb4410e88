"""Phi-3, 3.5 and 4 (the dense, text-only models).

Source: Abdin et al. 2024 (Phi-3). Llama with the projections stored fused, part of each head rotated in the small
models of Phi-4, and LongRoPE for the long windows. A config that does not mention the training length means 4096.
"""

from __future__ import annotations

from dataclasses import replace

from openwork.core.spec import ModelSpec
from openwork.models import parts
from openwork.models.config import Config
from openwork.models.parts import Layer, Take, Weights

IGNORED = (parts.ROTARY_BUFFERS,)
_OLD_SCALINGS = {"su": "longrope", "yarn": "longrope"}  # what the first exports called it


def spec(config: Config, context: int | None = None) -> ModelSpec:
    spec = parts.gated_spec(config, "Phi3ForCausalLM", context, eps=1e-5, original=4096, renamed=_OLD_SCALINGS)
    return replace(spec, windows=parts.same_window(config, spec.num_layers))


def weights(take: Take, config: Config, spec: ModelSpec) -> Weights:
    def one(at: str, index: int) -> Layer:
        return Layer(
            attention_norm=take.norm(at + "input_layernorm"),
            attention=take.attention(index, [at + "self_attn.qkv_proj"], at + "self_attn.o_proj"),
            mlp_norm=take.norm(at + "post_attention_layernorm"),
            mlp=take.mlp([at + "mlp.gate_up_proj"], at + "mlp.down_proj"),
        )

    return parts.decoder_weights(take, spec, one)


layer = parts.pre_norm_layer
