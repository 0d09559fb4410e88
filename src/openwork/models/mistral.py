"""Mistral 7B and its descendants.

Source: Jiang et al. 2023 (Mistral 7B). Llama without biases, with a sliding window in every layer. A config that does
not mention the window means 4096; null means none.
"""

from __future__ import annotations

from dataclasses import replace

from openwork.core.errors import UnsupportedModel
from openwork.core.spec import ModelSpec
from openwork.models import parts
from openwork.models.config import Config
from openwork.models.parts import Layer, Take, Weights

IGNORED = (parts.ROTARY_BUFFERS,)


def spec(config: Config, context: int | None = None) -> ModelSpec:
    if config.has("layer_types"):
        raise UnsupportedModel("a window in some layers only is not Mistral", where=config.where, field="layer_types")
    spec = parts.gated_spec(config, "MistralForCausalLM", context)
    return replace(spec, windows=parts.same_window(config, spec.num_layers, 4096))


def weights(take: Take, config: Config, spec: ModelSpec) -> Weights:
    def one(at: str, index: int) -> Layer:
        return Layer(
            attention_norm=take.norm(at + "input_layernorm"),
            attention=parts.separate_attention(take, at, index),
            mlp_norm=take.norm(at + "post_attention_layernorm"),
            mlp=parts.separate_mlp(take, at),
        )

    return parts.decoder_weights(take, spec, one)


layer = parts.pre_norm_layer
