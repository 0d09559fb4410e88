"""Gemma 2.

Source: Riviere et al. 2024 (Gemma 2). Every other layer slides over a window; scores and logits are softly capped; each
block is normed before and after; norms multiply by 1 + weight; the embedding is scaled by the root of its size; queries
are scaled by a number of their own rather than by the head's size.
"""

from __future__ import annotations

from dataclasses import replace
from math import sqrt

import numpy as np

from openwork.core.errors import UnsupportedModel
from openwork.core.spec import ModelSpec
from openwork.core.stamp import FEED_FORWARD, OUTPUT
from openwork.models import parts
from openwork.models.config import Config
from openwork.models.parts import Layer, Take, Weights
from openwork.ops.paged import PagedKV, Rows
from openwork.ops.reference import Reference

IGNORED = (parts.ROTARY_BUFFERS,)


def spec(config: Config, context: int | None = None) -> ModelSpec:
    if config.flag("use_bidirectional_attention", False):
        raise UnsupportedModel(
            "only causal attention is supported", where=config.where, field="use_bidirectional_attention"
        )
    activation = ("hidden_activation", "gelu_pytorch_tanh")
    spec = parts.gated_spec(config, "Gemma2ForCausalLM", context, tied=True, head_dim=256, activation=activation)
    slides = [index % 2 == 0 for index in range(spec.num_layers)]
    return replace(
        spec,
        windows=parts.layer_windows(config, slides, 4096),
        attention_scale=config.real("query_pre_attn_scalar", 0, 1e9, 256) ** -0.5,
        attention_softcap=parts.softcap(config, "attn_logit_softcapping", 50.0),
        logit_softcap=parts.softcap(config, "final_logit_softcapping", 30.0),
        embedding_scale=sqrt(spec.hidden_size),
    )


def weights(take: Take, config: Config, spec: ModelSpec) -> Weights:
    bias = config.flag("attention_bias", False)

    def one(at: str, index: int) -> Layer:
        return Layer(
            attention_norm=take.norm(at + "input_layernorm", offset=1),
            attention=parts.separate_attention(take, at, index, qkv_bias=bias, out_bias=bias),
            after_attention=take.norm(at + "post_attention_layernorm", offset=1),
            mlp_norm=take.norm(at + "pre_feedforward_layernorm", offset=1),
            mlp=parts.separate_mlp(take, at),
            after_mlp=take.norm(at + "post_feedforward_layernorm", offset=1),
        )

    return parts.decoder_weights(take, spec, one, offset=1)


def layer(ops: Reference, w: Layer, x: np.ndarray, rows: Rows, kv: PagedKV, index: int) -> np.ndarray:
    assert w.after_attention is not None
    assert w.after_mlp is not None
    attended = ops.attention_block(ops.norm(x, w.attention_norm), w.attention, rows, kv, index)
    x = ops.add(x, ops.norm(attended, w.after_attention))
    ops.stamp(x, rows, index, OUTPUT)
    x = ops.add(x, ops.norm(ops.mlp_block(ops.norm(x, w.mlp_norm), w.mlp), w.after_mlp))
    ops.stamp(x, rows, index, FEED_FORWARD)
    return x
