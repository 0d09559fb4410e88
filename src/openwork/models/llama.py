"""Llama 1 to 3, and all that is exported under its name.

Source: Touvron et al. 2023 (LLaMA); Grattafiori et al. 2024 (Llama 3). RMSNorm, rotary positions with any scaling,
grouped queries, gated SiLU. Guarantees nothing beyond the numbers, names and wiring below.
"""

from __future__ import annotations

from openwork.core.spec import ModelSpec
from openwork.models import parts
from openwork.models.config import Config
from openwork.models.parts import Layer, Take, Weights

IGNORED = (parts.ROTARY_BUFFERS,)


def spec(config: Config, context: int | None = None) -> ModelSpec:
    return parts.gated_spec(config, "LlamaForCausalLM", context)


def weights(take: Take, config: Config, spec: ModelSpec) -> Weights:
    attention_bias, mlp_bias = config.flag("attention_bias", False), config.flag("mlp_bias", False)

    def one(at: str, index: int) -> Layer:
        return Layer(
            attention_norm=take.norm(at + "input_layernorm"),
            attention=parts.separate_attention(take, at, index, qkv_bias=attention_bias, out_bias=attention_bias),
            mlp_norm=take.norm(at + "post_attention_layernorm"),
            mlp=parts.separate_mlp(take, at, bias=mlp_bias),
        )

    return parts.decoder_weights(take, spec, one)


layer = parts.pre_norm_layer
