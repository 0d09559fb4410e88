"""ModelSpec: the numbers of an architecture, and what follows from them.

A spec holds numbers, never weights. It is made once, by a model file, from a checkpoint's config, with every
number checked. From it follow the bytes and the operations that one token costs, which is all that the
roofline, the memory plan and the simulator need. It does not know where the numbers came from.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Norm = Literal["rms", "layer"]
Activation = Literal["silu", "gelu", "gelu_tanh", "relu"]


@dataclass(frozen=True, slots=True)
class RopeSpec:
    """Rotary position embedding, with any scaling already resolved into frequencies.

    Source: Su et al. 2021 (RoFormer). Half-rotation convention: entry i is rotated with entry i + dim/2.
    """

    dim: int  # rotated entries at the front of each head; even, at most head_dim
    frequencies: tuple[float, ...]  # (dim / 2,) radians per position
    scale: float = 1.0  # multiplies cosine and sine (yarn and longrope: the attention factor)


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """The numbers of one decoder-only Transformer.

    ``windows[l]`` is the sliding window of layer l: a query sees its own key and the window - 1 before it;
    None is full attention. Soft caps are c * tanh(x / c); None is no cap.
    """

    architecture: str  # the checkpoint's own name, e.g. "LlamaForCausalLM"
    vocab_size: int
    hidden_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    intermediate_size: int
    max_positions: int  # longest sequence the architecture defines
    norm: Norm
    norm_eps: float
    activation: Activation
    gated: bool  # the feed-forward is act(gate) * up (three matrices) rather than act(up) (two)
    attention_scale: float
    windows: tuple[int | None, ...]  # (num_layers,)
    rope: RopeSpec | None = None  # None: learned positions
    attention_softcap: float | None = None
    logit_softcap: float | None = None
    embedding_scale: float = 1.0
    tied_head: bool = False

    @property
    def q_size(self) -> int:
        return self.num_heads * self.head_dim

    @property
    def kv_size(self) -> int:
        return self.num_kv_heads * self.head_dim

    @property
    def layer_weights(self) -> int:
        """Entries of the matrices of one layer (biases and norms not counted)."""
        attention = self.hidden_size * (2 * self.q_size + 2 * self.kv_size)
        mlp = (3 if self.gated else 2) * self.hidden_size * self.intermediate_size
        return attention + mlp

    @property
    def head_weights(self) -> int:
        return self.vocab_size * self.hidden_size

    @property
    def weights_read_per_token(self) -> int:
        """Matrix entries that one decode step reads: every layer and the output head (an embedding row is noise)."""
        return self.num_layers * self.layer_weights + self.head_weights

    @property
    def num_parameters(self) -> int:
        """Entries of all matrices: layers, embedding, and the head when it is not tied."""
        return self.num_layers * self.layer_weights + self.head_weights * (1 if self.tied_head else 2)

    def kv_bytes_per_token(self, itemsize: int) -> int:
        """Bytes of keys and values that one token adds to the cache, ``itemsize`` bytes an entry."""
        return 2 * self.num_layers * self.kv_size * itemsize

    def flops_per_token(self, context: int) -> int:
        """Multiply-adds times two for one token that attends to ``context`` keys."""
        attention = sum(min(window or context, context) for window in self.windows) * 4 * self.q_size
        return 2 * self.weights_read_per_token + attention
