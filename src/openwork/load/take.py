"""Take: what a model file asks the loader for, answered from a checkpoint.

    Survey   looks at names, shapes and types only: what is missing, what is too much, how many bytes it will be
    Pack     reads, fuses and packs, slab by slab

Both answer the same calls of the same model file. Load surveys first, so that a checkpoint which does not fit its
config is refused before anything is allocated. Memory while packing: the packed weights, and one slab of the file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import numpy as np

from openwork.core.errors import ModelError
from openwork.core.spec import ModelSpec
from openwork.load.safetensors import FLOATS, Tensor
from openwork.ops.packed import LANES, DType, Packed, from_bfloat16, round_up
from openwork.ops.reference import Reference
from openwork.ops.weights import Attention, Linear, Mlp, Norm

SLAB_BYTES = 8 * 2**20

Piece = tuple[Tensor, int, int]  # outputs first .. last - 1 of a tensor


class Store(Protocol):
    """Where tensors go."""

    def vector(self, pieces: Sequence[Piece], offset: float) -> np.ndarray:
        """The pieces of 1-D tensors, one after the other, plus ``offset`` -> (size,) float32."""

    def matrix(self, pieces: Sequence[Piece], k: int, transposed: bool) -> Packed:
        """The pieces of 2-D tensors, (outputs, k) or transposed (k, outputs), one below the other."""


class Survey:
    """Takes nothing, counts everything."""

    def __init__(self) -> None:
        self.source_bytes = 0
        self.vector_entries = 0
        self.shapes: list[tuple[int, int]] = []  # (n, k) of every matrix

    def vector(self, pieces: Sequence[Piece], offset: float) -> np.ndarray:
        self.vector_entries += sum(last - first for _, first, last in pieces)
        self.source_bytes += sum((last - first) * _bytes_an_output(tensor, 0) for tensor, first, last in pieces)
        return np.empty(0, np.float32)

    def matrix(self, pieces: Sequence[Piece], k: int, transposed: bool) -> Packed:
        n = sum(last - first for _, first, last in pieces)
        self.shapes.append((n, k))
        axis = 1 if transposed else 0
        self.source_bytes += sum((last - first) * _bytes_an_output(tensor, axis) for tensor, first, last in pieces)
        return Packed("float32", n, k, np.empty(0, np.float32))

    @property
    def num_parameters(self) -> int:
        """Entries of all tensors the model uses."""
        return self.vector_entries + sum(n * k for n, k in self.shapes)

    def packed_bytes(self, dtype: DType) -> int:
        """Bytes that the weights will take in memory."""
        unit, itemsize = (1, 4) if dtype == "float32" else (2, 2)
        matrices = sum(round_up(n, LANES) * round_up(k, unit) * itemsize for n, k in self.shapes)
        return matrices + 4 * self.vector_entries


class Pack:
    """Reads and packs. ``progress`` is told (bytes read, bytes in all) after every slab."""

    def __init__(
        self, ops: Reference, dtype: DType, total: int, progress: Callable[[int, int], None] | None = None
    ) -> None:
        self._ops, self._dtype = ops, dtype
        self._done, self._total, self._progress = 0, total, progress

    def vector(self, pieces: Sequence[Piece], offset: float) -> np.ndarray:
        parts = [_float32(tensor.rows(first, last)) for tensor, first, last in pieces]
        self._advance(sum((last - first) * _bytes_an_output(tensor, 0) for tensor, first, last in pieces))
        whole = np.concatenate(parts)
        return whole + np.float32(offset) if offset else whole

    def matrix(self, pieces: Sequence[Piece], k: int, transposed: bool) -> Packed:
        packed = Packed.empty(sum(last - first for _, first, last in pieces), k, self._dtype)
        row = 0
        for tensor, first, last in pieces:
            row_bytes = _bytes_an_output(tensor, 1 if transposed else 0)
            # A transposed slab touches every page of the tensor: take it in one go rather than read it many times.
            step = last - first if transposed else max(LANES, SLAB_BYTES // row_bytes // LANES * LANES)
            for start in range(first, last, step):
                stop = min(start + step, last)
                source = tensor.rows(0, k)[:, start:stop].T if transposed else tensor.rows(start, stop)
                self._ops.pack_rows(packed, row, source)
                row += stop - start
                tensor.drop()
                self._advance((stop - start) * row_bytes)
        return packed

    def _advance(self, count: int) -> None:
        self._done += count
        if self._progress is not None:
            self._progress(self._done, self._total)


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
        return self._linear([name], [self._spec.vocab_size], self._spec.hidden_size)

    def positions(self, name: str) -> Linear:
        return self._linear([name], [self._spec.max_positions], self._spec.hidden_size)

    def head(self, *names: str, embedding: Linear) -> Linear:
        found = next((name for name in names if name + ".weight" in self._tensors), names[0])
        if not self._spec.tied_head:
            return self._linear([found], [self._spec.vocab_size], self._spec.hidden_size)
        if found + ".weight" in self._tensors and isinstance(self._store, Survey):
            self._check_copy(found + ".weight")
        return embedding

    def _check_copy(self, name: str) -> None:
        """A head that is stored although it is tied must be the embedding, byte for byte."""
        assert self._embedding is not None
        shape = (self._spec.vocab_size, self._spec.hidden_size)
        head, step = self._find(name, shape), max(1, SLAB_BYTES // (4 * self._spec.hidden_size))
        for start in range(0, shape[0], step):
            stop = min(start + step, shape[0])
            if not np.array_equal(head.rows(start, stop), self._embedding.rows(start, stop)):
                raise ModelError(
                    f"differs from {self._embedding.name}, although config.json says that they are the same",
                    'If the head is meant to be its own, set "tie_word_embeddings": false in config.json.',
                    where=str(head.file.path),
                    field=name,
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
        packed = self._store.matrix(weights, k, transposed)
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


def _bytes_an_output(tensor: Tensor, axis: int) -> int:
    """Bytes of a tensor for one of its outputs, which lie along ``axis``."""
    return tensor.num_bytes // tensor.shape[axis]


def _float32(values: np.ndarray) -> np.ndarray:
    return from_bfloat16(values) if values.dtype == np.uint16 else values.astype(np.float32)
