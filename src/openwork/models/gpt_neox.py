"""GPT-NeoX: Pythia, GPT-NeoX-20B and their relatives.

Source: Black et al. 2022 (GPT-NeoX-20B). LayerNorm, a part of each head rotated, and usually attention and feed-forward
side by side on the same stream. The fused projection is stored head by head and put in order when it is loaded.
"""

from __future__ import annotations

import numpy as np

from openwork.core.spec import ModelSpec
from openwork.core.stamp import FEED_FORWARD, OUTPUT
from openwork.models import parts
from openwork.models.config import Config
from openwork.models.parts import Layer, Take, Weights
from openwork.models.rope import rope
from openwork.ops.paged import PagedKV, Rows
from openwork.ops.reference import Reference

IGNORED = (parts.ROTARY_BUFFERS, parts.MASK_BUFFERS)


def spec(config: Config, context: int | None = None) -> ModelSpec:
    numbers = parts.numbers(config)
    turning, positions = rope(
        config,
        numbers["head_dim"],
        config.whole("max_position_embeddings", 1, parts.MAX_POSITIONS),
        context,
        theta_name="rotary_emb_base",
        partial_name="rotary_pct",
        partial=0.25,
    )
    return ModelSpec(
        architecture="GPTNeoXForCausalLM",
        intermediate_size=config.whole("intermediate_size", 1, parts.MAX_WIDTH),
        max_positions=parts.reach(config, context, positions),
        norm="layer",
        norm_eps=config.real("layer_norm_eps", 0, 1, 1e-5),
        activation=config.choice("hidden_act", parts.ACTIVATIONS, "gelu"),
        gated=False,
        windows=(None,) * numbers["num_layers"],
        rope=turning,
        **numbers,
    )


def weights(take: Take, config: Config, spec: ModelSpec) -> Weights:
    bias, is_parallel = config.flag("attention_bias", True), config.flag("use_parallel_residual", True)

    def one(index: int) -> Layer:
        at = f"gpt_neox.layers.{index}."
        qkv, out = at + "attention.query_key_value", at + "attention.dense"
        return Layer(
            attention_norm=take.norm(at + "input_layernorm"),
            attention=take.attention(index, [qkv], out, qkv_bias=bias, out_bias=bias, per_head=True),
            mlp_norm=take.norm(at + "post_attention_layernorm"),
            mlp=take.mlp([at + "mlp.dense_h_to_4h"], at + "mlp.dense_4h_to_h", bias=True),
            is_parallel=is_parallel,
        )

    embedding = take.embedding("gpt_neox.embed_in")
    return Weights(
        embedding=embedding,
        layers=tuple(one(index) for index in range(spec.num_layers)),
        norm=take.norm("gpt_neox.final_layer_norm"),
        head=take.head("embed_out", "lm_head", embedding=embedding),
    )


def layer(ops: Reference, w: Layer, x: np.ndarray, rows: Rows, kv: PagedKV, index: int) -> np.ndarray:
    if not w.is_parallel:
        return parts.pre_norm_layer(ops, w, x, rows, kv, index)
    fed = ops.mlp_block(ops.norm(x, w.mlp_norm), w.mlp)  # before x changes in place
    attended = ops.attention_block(ops.norm(x, w.attention_norm), w.attention, rows, kv, index)
    ops.stamp(attended, rows, index, OUTPUT)
    x = ops.add(x, ops.add(fed, attended))
    ops.stamp(x, rows, index, FEED_FORWARD)
    return x
