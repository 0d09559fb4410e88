"""Take: what a model file asks the loader for, answered from the tensors of a checkpoint by way of a Store.

It finds each tensor, checks it against the spec, says which pieces of which tensors make one matrix or vector, and what
part the matrix plays. It reads nothing itself, but for one comparison of a tied head. Where tensors go, and in which
format, is the Store's business.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from openwork.core.errors import ModelError
from openwork.core.spec import ModelSpec
from openwork.load.formats import Role
from openwork.load.safetensors import FLOATS, Tensor
from openwork.load.store import SLAB_BYTES, Piece, Store
from openwork.ops.weights import Attention, Linear, Mlp, Norm


class Take:
    """models.parts.Take over the tensors of a checkpoint. Remembers which it used."""

    def __init__(self, tensors: Mapping[str, Tensor], spec: ModelSpec, store: Store, where: str) -> None:
        self._tensors, self._spec, self._store, self._where = tensors, spec, store, where
        self._embedding: Tensor | None = None
        self.used: set[str] = set()

    def prefix(self, *choices: str, probe: str) -> str:
        return next((each for each in choices if each + probe in self._tensors), choices[0])

    def norm(self, name: str, *, size: int | None = None, offset: float = 0.0) -> Norm:
        size, kind = size or self._spec.hidden_size, self._spec.norm
        weight = self._store.vector([(self._find(name + ".weight", (size,)), 0, size)], offset)
        bias = self._store.vector([(self._find(name + ".bias", (size,)), 0, size)], 0) if kind == "layer" else None
        return Norm(weight, bias, self._spec.norm_eps, kind)

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
        spec = self._spec
        sizes = [spec.q_size, spec.kv_size, spec.kv_size]
        order = _heads_apart(spec.num_heads, spec.head_dim) if per_head else None
        return Attention(
            qkv=self._linear(qkv, sizes, spec.hidden_size, qkv_bias, transposed, order),
            out=self._linear([out], [spec.hidden_size], spec.q_size, out_bias, transposed),
            num_heads=spec.num_heads,
            num_kv_heads=spec.num_kv_heads,
            head_dim=spec.head_dim,
            rotary_dim=0 if spec.rope is None else spec.rope.dim,
            scale=spec.attention_scale if scale is None else scale,
            softcap=spec.attention_softcap,
            window=spec.windows[index],
            q_norm=q_norm,
            k_norm=k_norm,
        )

    def mlp(self, up: Sequence[str], down: str, *, bias: bool = False, transposed: bool = False) -> Mlp:
        spec = self._spec
        sizes = [spec.intermediate_size] * (2 if spec.gated else 1)
        return Mlp(
            up=self._linear(up, sizes, spec.hidden_size, bias, transposed),
            down=self._linear([down], [spec.hidden_size], spec.intermediate_size, bias, transposed),
            activation=spec.activation,
            gated=spec.gated,
        )

    def embedding(self, name: str) -> Linear:
        self._embedding = self._find(name + ".weight", (self._spec.vocab_size, self._spec.hidden_size))
        return self._linear([name], [self._spec.vocab_size], self._spec.hidden_size, role="embedding")

    def positions(self, name: str) -> Linear:
        return self._linear([name], [self._spec.max_positions], self._spec.hidden_size, role="positions")

    def head(self, *names: str, embedding: Linear) -> Linear:
        found = next((name for name in names if name + ".weight" in self._tensors), names[0])
        if not self._spec.tied_head:
            return self._linear([found], [self._spec.vocab_size], self._spec.hidden_size, role="head")
        if found + ".weight" in self._tensors:
            copy = self._find(found + ".weight", (self._spec.vocab_size, self._spec.hidden_size))
            if self._store.checks_copies:
                self._check_copy(copy)
        return embedding

    def _check_copy(self, head: Tensor) -> None:
        """A head that is stored although it is tied must be the embedding, byte for byte."""
        assert self._embedding is not None
        shape, step = head.shape, max(1, SLAB_BYTES // (4 * self._spec.hidden_size))
        for start in range(0, shape[0], step):
            stop = min(start + step, shape[0])
            if not np.array_equal(head.rows(start, stop), self._embedding.rows(start, stop)):
                raise ModelError(
                    f"differs from {self._embedding.name}, although config.json says that they are the same",
                    'If the head is meant to be its own, set "tie_word_embeddings": false in config.json.',
                    where=str(head.file.path),
                    field=head.name,
                )
            head.drop()
            self._embedding.drop()

    def _linear(
        self,
        names: Sequence[str],
        sizes: Sequence[int],
        k: int,
        bias: bool = False,
        transposed: bool = False,
        order: Sequence[tuple[int, int]] | None = None,
        role: Role = "layer",
    ) -> Linear:
        """Outputs of the given sizes, one tensor each or one for all; ``order`` lists ranges of the fused tensor."""
        sizes = sizes if len(names) > 1 else [sum(sizes)]
        weights: list[Piece] = []
        biases: list[Piece] = []
        for name, size in zip(names, sizes, strict=True):
            weight = self._find(name + ".weight", (k, size) if transposed else (size, k))
            weights += [(weight, *each) for each in order or [(0, size)]]
            if bias:
                vector = self._find(name + ".bias", (size,))
                biases += [(vector, *each) for each in order or [(0, size)]]
        packed = self._store.matrix(weights, k, transposed, role)
        return Linear(packed, self._store.vector(biases, 0) if bias else None)

    def _find(self, name: str, shape: tuple[int, ...]) -> Tensor:
        tensor = self._tensors.get(name)
        if tensor is None:
            raise ModelError(
                f"is missing; config.json calls for it with shape {list(shape)}", where=self._where, field=name
            )
        where = str(tensor.file.path)
        if tensor.shape != shape:
            raise ModelError(
                f"has shape {list(tensor.shape)}, but config.json calls for {list(shape)}", where=where, field=name
            )
        if tensor.dtype not in FLOATS:
            raise ModelError(
                f"has dtype {tensor.dtype}; weights must be {', '.join(FLOATS)}",
                "Convert the checkpoint to float32, float16 or bfloat16.",
                where=where,
                field=name,
            )
        self.used.add(name)
        return tensor


def _heads_apart(heads: int, head_dim: int) -> list[tuple[int, int]]:
    """Ranges of outputs that bring |q0 k0 v0|q1 k1 v1|... into the order |q0 q1 ...|k0 k1 ...|v0 v1 ...|."""
    starts = [(3 * head + part) * head_dim for part in range(3) for head in range(heads)]
    return [(start, start + head_dim) for start in starts]
