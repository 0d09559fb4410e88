"""Qwen 2 and 2.5.

Source: Yang et al. 2024 (Qwen2). Llama with biases on the query, key and value projections, and optionally a sliding
window in the layers from `max_window_layers` on.
"""

from __future__ import annotations

from dataclasses import replace

from openwork.core.spec import ModelSpec
from openwork.models import parts
from openwork.models.config import Config
from openwork.models.parts import Layer, Take, Weights

IGNORED = (parts.ROTARY_BUFFERS,)


def spec(config: Config, context: int | None = None) -> ModelSpec:
    spec = parts.gated_spec(config, "Qwen2ForCausalLM", context)
    return replace(spec, windows=parts.late_windows(config, spec.num_layers))


def weights(take: Take, config: Config, spec: ModelSpec) -> Weights:
    def one(at: str, index: int) -> Layer:
        return Layer(
            attention_norm=take.norm(at + "input_layernorm"),
            attention=parts.separate_attention(take, at, index, qkv_bias=True),
            mlp_norm=take.norm(at + "post_attention_layernorm"),
            mlp=parts.separate_mlp(take, at),
        )

    return parts.decoder_weights(take, spec, one)


layer = parts.pre_norm_layer
