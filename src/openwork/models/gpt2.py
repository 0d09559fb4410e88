"""GPT-2.

Source: Radford et al. 2019. LayerNorm, learned positions, a fused query/key/value projection, the tanh form of GELU.
Matrices are stored (inputs, outputs). Names come with and without a leading `transformer.`.
"""

from __future__ import annotations

from openwork.core.errors import UnsupportedModel
from openwork.core.spec import ModelSpec
from openwork.models import parts
from openwork.models.config import Config
from openwork.models.parts import Layer, Take, Weights

IGNORED = (parts.MASK_BUFFERS,)
_NAMES = {"hidden_size": "n_embd", "num_attention_heads": "n_head", "num_hidden_layers": "n_layer"}


def spec(config: Config, context: int | None = None) -> ModelSpec:
    if config.flag("add_cross_attention", False):
        raise UnsupportedModel("only decoders without an encoder are", where=config.where, field="add_cross_attention")
    numbers = parts.numbers(config, tied=True, names=_NAMES)
    if not config.flag("scale_attn_weights", True):
        numbers["attention_scale"] = 1.0
    return ModelSpec(
        architecture="GPT2LMHeadModel",
        intermediate_size=config.whole("n_inner", 1, parts.MAX_WIDTH, 4 * numbers["hidden_size"]),
        max_positions=parts.reach(config, context, config.whole("n_positions", 1, parts.MAX_POSITIONS)),
        norm="layer",
        norm_eps=config.real("layer_norm_epsilon", 0, 1, 1e-5),
        activation=config.choice("activation_function", parts.ACTIVATIONS, "gelu_new"),
        gated=False,
        windows=(None,) * numbers["num_layers"],
        **numbers,
    )


def weights(take: Take, config: Config, spec: ModelSpec) -> Weights:
    root = take.prefix("transformer.", "", probe="wte.weight")
    falls = config.flag("scale_attn_by_inverse_layer_idx", False)

    def one(index: int) -> Layer:
        at = f"{root}h.{index}."
        return Layer(
            attention_norm=take.norm(at + "ln_1"),
            attention=take.attention(
                index,
                [at + "attn.c_attn"],
                at + "attn.c_proj",
                qkv_bias=True,
                out_bias=True,
                transposed=True,
                scale=spec.attention_scale / (index + 1) if falls else None,
            ),
            mlp_norm=take.norm(at + "ln_2"),
            mlp=take.mlp([at + "mlp.c_fc"], at + "mlp.c_proj", bias=True, transposed=True),
        )

    embedding = take.embedding(root + "wte")
    return Weights(
        embedding=embedding,
        positions=take.positions(root + "wpe"),
        layers=tuple(one(index) for index in range(spec.num_layers)),
        norm=take.norm(root + "ln_f"),
        head=take.head("lm_head", embedding=embedding),
    )


layer = parts.pre_norm_layer
