"""The weights of the parts of a layer, as records of arrays: what a model is made of and an op is called with.

All vectors are float32, all matrices Packed. A record never changes after it is made. ``native`` is where a backend
keeps what it prepared for the record (Reference.bind); nobody else looks at it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from openwork.ops.packed import Packed


@dataclass(frozen=True, slots=True, eq=False)
class Norm:
    """RMSNorm (no bias) or LayerNorm. Gemma's 1 + weight is added when the checkpoint is loaded."""

    weight: np.ndarray  # (size,)
    bias: np.ndarray | None  # (size,)
    eps: float
    kind: str  # "rms" | "layer"
    native: Any = None


@dataclass(frozen=True, slots=True, eq=False)
class Linear:
    """y = W x + bias."""

    weight: Packed
    bias: np.ndarray | None = None  # (n,)
    native: Any = None


@dataclass(frozen=True, slots=True, eq=False)
class Attention:
    """Fused query/key/value projection, optional norms of each head's q and k, output projection.

    qkv outputs, in order:  q (num_heads * head_dim) | k (num_kv_heads * head_dim) | v (num_kv_heads * head_dim)
    """

    qkv: Linear
    out: Linear
    num_heads: int
    num_kv_heads: int
    head_dim: int
    rotary_dim: int  # 0: no rotation
    scale: float
    softcap: float | None = None
    window: int | None = None  # own key included
    q_norm: Norm | None = None  # over head_dim
    k_norm: Norm | None = None
    native: Any = None


@dataclass(frozen=True, slots=True, eq=False)
class Mlp:
    """down(act(gate) * up) when gated, with gate | up fused into one matrix; else down(act(up))."""

    up: Linear  # gated: outputs gate (size) | up (size)
    down: Linear
    activation: str  # "silu" | "gelu" | "gelu_tanh" | "relu"
    gated: bool
    native: Any = None
