"""What model files share: the numbers nearly every config has, the parts of a layer, the usual wiring, and Take.

A model file turns a config into a spec, asks a Take for its weights by the names the checkpoint gives them, and wires a
layer. It never touches a tensor: whoever implements Take (the loader) finds, checks, fuses and packs them. So the same
few lines serve to survey a checkpoint before any memory is taken, and to load it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from openwork.core.errors import ModelError
from openwork.core.spec import Activation, ModelSpec
from openwork.models.config import Config
from openwork.models.rope import rope
from openwork.ops.paged import PagedKV, Rows
from openwork.ops.reference import Reference
from openwork.ops.weights import Attention, Linear, Mlp, Norm

# Generous, and finite: nothing of these sizes exists, and nothing larger is allocated on a file's word.
MAX_VOCAB = 2**24
MAX_WIDTH = 2**20
MAX_LAYERS = 1024
MAX_HEADS = 1024
MAX_HEAD_DIM = 256
MAX_POSITIONS = 2**24

ROTARY_BUFFERS = r"rotary_emb\.(inv_freq|cos_cached|sin_cached)$"  # tables of older exports; ours are computed
MASK_BUFFERS = r"(attn|attention)\.(bias|masked_bias)$"  # causal masks of older exports

ACTIVATIONS: Mapping[str, Activation] = {
    "silu": "silu",
    "swish": "silu",
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
}


@dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """One decoder layer."""

    attention_norm: Norm
    attention: Attention
    mlp_norm: Norm
    mlp: Mlp
    after_attention: Norm | None = None  # Gemma 2 norms what a block adds to the stream, too
    after_mlp: Norm | None = None
    is_parallel: bool = False  # GPT-NeoX: attention and feed-forward read the same stream


@dataclass(frozen=True, slots=True, eq=False)
class Weights:
    """All of a model. A tied head is the embedding itself, the same object."""

    embedding: Linear  # n = vocab_size, k = hidden_size
    layers: tuple[Layer, ...]
    norm: Norm
    head: Linear
    positions: Linear | None = None  # learned positions: n = max_positions, k = hidden_size


class Take(Protocol):
    """What a model file asks of the loader. Names are those of the checkpoint, without `.weight` and `.bias`.

    Sizes come from the spec. Every method raises ModelError for a tensor that is missing or has another shape.
    """

    def prefix(self, *choices: str, probe: str) -> str:
        """The first of several name prefixes under which ``probe`` exists, else the first."""

    def norm(self, name: str, *, size: int | None = None, offset: float = 0.0) -> Norm:
        """A norm of the spec's kind over hidden_size (or ``size``) entries; ``offset`` is added to its weight."""

    def attention(
        self,
        index: int,
        qkv: Sequence[str],
        out: str,
        *,
        qkv_bias: bool = False,
        out_bias: bool = False,
        transposed: bool = False,
        per_head: bool = False,
        q_norm: Norm | None = None,
        k_norm: Norm | None = None,
        scale: float | None = None,
    ) -> Attention:
        """The attention of layer ``index``.

        ``qkv`` names one fused or three separate tensors. ``transposed``: stored (inputs, outputs). ``per_head``: the
        outputs lie q, k, v of the first head, q, k, v of the second, and are put in order. ``scale`` replaces the one
        of the spec.
        """

    def mlp(self, up: Sequence[str], down: str, *, bias: bool = False, transposed: bool = False) -> Mlp:
        """The feed-forward network; ``up`` names gate and up, one tensor with both, or up alone when not gated."""

    def embedding(self, name: str) -> Linear:
        """The token embedding (vocab_size, hidden_size)."""

    def positions(self, name: str) -> Linear:
        """The learned position embedding (max_positions, hidden_size)."""

    def head(self, *names: str, embedding: Linear) -> Linear:
        """The output head under the first name that exists, or the embedding when the spec says they are tied."""


class Model(Protocol):
    """What every model file defines."""

    IGNORED: tuple[str, ...]  # patterns of tensor names that carry nothing

    def spec(self, config: Config, context: int | None = None) -> ModelSpec:
        """The numbers. ``context`` is the window that the engine is opened with; None: the longest."""

    def weights(self, take: Take, config: Config, spec: ModelSpec) -> Weights:
        """The names."""

    def layer(self, ops: Reference, w: Layer, x: np.ndarray, rows: Rows, kv: PagedKV, index: int) -> np.ndarray:
        """The wiring: x (rows, hidden_size) float32 through layer ``index``, in place or not."""


def pre_norm_layer(ops: Reference, w: Layer, x: np.ndarray, rows: Rows, kv: PagedKV, index: int) -> np.ndarray:
    """The wiring of nearly everything since GPT-2: norm, attention, add; norm, feed-forward, add."""
    return ops.pre_norm_layer(x, w.attention_norm, w.attention, w.mlp_norm, w.mlp, rows, kv, index)


def numbers(
    config: Config, *, tied: bool = False, head_dim: int | None = None, names: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """The fields of a ModelSpec that every config has, checked against each other.

    ``tied`` and ``head_dim`` are what a config that does not say means, ``names`` other spellings of fields (GPT-2).
    Raises ModelError.
    """

    def name(usual: str) -> str:
        return (names or {}).get(usual, usual)

    hidden = config.whole(name("hidden_size"), 1, MAX_WIDTH)
    heads = config.whole(name("num_attention_heads"), 1, MAX_HEADS)
    if not config.has("head_dim") and head_dim is None and hidden % heads:
        raise config.error(
            name("num_attention_heads"), f"is {heads}, which does not divide {name('hidden_size')} {hidden}"
        )
    head_dim = config.whole("head_dim", 2, MAX_HEAD_DIM, hidden // heads if head_dim is None else head_dim)
    if head_dim % 2:
        raise config.error("head_dim", f"is {head_dim}; it must be even")
    kv_heads = config.whole("num_key_value_heads", 1, heads, heads)
    if heads % kv_heads:
        raise config.error("num_key_value_heads", f"is {kv_heads}, which does not divide the {heads} attention heads")
    return {
        "vocab_size": config.whole("vocab_size", 1, MAX_VOCAB),
        "hidden_size": hidden,
        "num_layers": config.whole(name("num_hidden_layers"), 1, MAX_LAYERS),
        "num_heads": heads,
        "num_kv_heads": kv_heads,
        "head_dim": head_dim,
        "tied_head": config.flag("tie_word_embeddings", tied),
        "attention_scale": head_dim**-0.5,
    }


def reach(config: Config, context: int | None, positions: int) -> int:
    """The longest sequence, after refusing a window that goes beyond it."""
    if context is not None and not 1 <= context <= positions:
        raise ModelError(
            f"a context window of {context} was asked for, but the model defines 1 to {positions} positions",
            where=config.where,
            field="max_position_embeddings",
        )
    return positions


def gated_spec(
    config: Config,
    architecture: str,
    context: int | None,
    *,
    tied: bool = False,
    head_dim: int | None = None,
    eps: float = 1e-6,
    activation: tuple[str, str] = ("hidden_act", "silu"),
    original: int | None = None,
    renamed: Mapping[str, str] | None = None,
) -> ModelSpec:
    """The spec of the Llama family: RMSNorm, gated feed-forward, rotary positions, full attention in every layer.

    What a config that does not say means: ``tied``, ``head_dim`` (None: hidden_size / heads), ``eps``, ``activation``
    (field, value), ``original`` (training length). ``renamed``: old names of rotary scalings.
    """
    fields = numbers(config, tied=tied, head_dim=head_dim)
    positions = config.whole("max_position_embeddings", 1, MAX_POSITIONS)
    turning, positions = rope(config, fields["head_dim"], positions, context, original=original, renamed=renamed)
    return ModelSpec(
        architecture=architecture,
        intermediate_size=config.whole("intermediate_size", 1, MAX_WIDTH),
        max_positions=reach(config, context, positions),
        norm="rms",
        norm_eps=config.real("rms_norm_eps", 0, 1, eps),
        activation=config.choice(activation[0], ACTIVATIONS, activation[1]),
        gated=True,
        windows=(None,) * fields["num_layers"],
        rope=turning,
        **fields,
    )


def decoder_weights(take: Take, spec: ModelSpec, layer: Callable[[str, int], Layer], *, offset: float = 0) -> Weights:
    """The weights of the Llama family; ``layer`` gets the prefix of a layer's names, and its index."""
    embedding = take.embedding("model.embed_tokens")
    return Weights(
        embedding=embedding,
        layers=tuple(layer(f"model.layers.{index}.", index) for index in range(spec.num_layers)),
        norm=take.norm("model.norm", offset=offset),
        head=take.head("lm_head", embedding=embedding),
    )


def separate_attention(
    take: Take,
    at: str,
    index: int,
    *,
    qkv_bias: bool = False,
    out_bias: bool = False,
    q_norm: Norm | None = None,
    k_norm: Norm | None = None,
) -> Attention:
    """Attention whose q, k and v projections are three tensors, under the names of the Llama family."""
    return take.attention(
        index,
        [f"{at}self_attn.{each}_proj" for each in "qkv"],
        f"{at}self_attn.o_proj",
        qkv_bias=qkv_bias,
        out_bias=out_bias,
        q_norm=q_norm,
        k_norm=k_norm,
    )


def separate_mlp(take: Take, at: str, *, bias: bool = False) -> Mlp:
    """A gated feed-forward network in three tensors, under the names of the Llama family."""
    return take.mlp([f"{at}mlp.gate_proj", f"{at}mlp.up_proj"], f"{at}mlp.down_proj", bias=bias)


def same_window(config: Config, layers: int, default: int | None = None) -> tuple[int | None, ...]:
    """One sliding window for every layer, or none."""
    if not config.has("sliding_window") and ("sliding_window" in config.data or default is None):
        return (None,) * layers
    return (config.whole("sliding_window", 1, MAX_POSITIONS, default),) * layers


def layer_windows(config: Config, usual: Sequence[bool], default: int) -> tuple[int | None, ...]:
    """Sliding windows of the layers that `layer_types` names, or else of those that ``usual`` (a flag a layer) says."""
    kinds = config.words("layer_types", len(usual), ("full_attention", "sliding_attention"))
    slides = usual if kinds is None else [kind == "sliding_attention" for kind in kinds]
    is_null = "sliding_window" in config.data and not config.has("sliding_window")
    if is_null or not any(slides):
        return (None,) * len(usual)
    window = config.whole("sliding_window", 1, MAX_POSITIONS, default)
    return tuple(window if each else None for each in slides)


def late_windows(config: Config, layers: int) -> tuple[int | None, ...]:
    """Qwen: none unless `use_sliding_window`; then in the layers that `layer_types` or `max_window_layers` says."""
    if not config.flag("use_sliding_window", False):
        return (None,) * layers
    first = config.whole("max_window_layers", 0, MAX_LAYERS, 28)
    return layer_windows(config, [index >= first for index in range(layers)], 4096)


def softcap(config: Config, name: str, default: float) -> float | None:
    """A soft cap; null in the config means none, absence the default."""
    if name in config.data and not config.has(name):
        return None
    return config.real(name, 0, 1e6, default)
