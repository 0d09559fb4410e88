"""Stores: where the tensors go that a model file asks for, by way of Take.

    Survey   looks at names, shapes and types only: what is missing, what is too much, how many bytes it will be
    Pack     reads, fuses and packs, slab by slab
    Mapped   (mapped.py) finds them packed in a file already

All answer the same calls of the same model file, in the same order. Load surveys first, so that a checkpoint which does
not fit its config is refused before anything is allocated; NaN or infinity is refused where it is packed.
Memory while packing: the packed weights, and one slab of the file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from openwork.core.errors import ModelError
from openwork.load.formats import Role, format_of, packed_bytes
from openwork.load.safetensors import Tensor
from openwork.ops.packed import LANES, DType, Packed, from_bfloat16
from openwork.ops.reference import Reference

SLAB_BYTES = 8 * 2**20

Piece = tuple[Tensor, int, int]  # outputs first .. last - 1 of a tensor


class Store(Protocol):
    """Where tensors go."""

    @property
    def checks_copies(self) -> bool:
        """Whether a tied head that is stored all the same is to be compared with the embedding, entry by entry."""

    def vector(self, pieces: Sequence[Piece], offset: float) -> np.ndarray:
        """The pieces of 1-D tensors, one after the other, plus ``offset`` -> (size,) float32."""

    def matrix(self, pieces: Sequence[Piece], k: int, transposed: bool, role: Role) -> Packed:
        """The pieces of 2-D tensors, (outputs, k) or transposed (k, outputs), one below the other."""


class Survey:
    """Takes nothing, counts everything."""

    def __init__(self, checks_copies: bool = False) -> None:
        self.checks_copies = checks_copies
        self.source_bytes = 0
        self.vector_entries = 0
        self.matrices: list[tuple[int, int, Role]] = []  # (n, k, role)

    def vector(self, pieces: Sequence[Piece], offset: float) -> np.ndarray:
        self.vector_entries += num_outputs(pieces)
        self.source_bytes += sum((last - first) * bytes_an_output(tensor, 0) for tensor, first, last in pieces)
        return np.empty(0, np.float32)

    def matrix(self, pieces: Sequence[Piece], k: int, transposed: bool, role: Role) -> Packed:
        n = num_outputs(pieces)
        self.matrices.append((n, k, role))
        axis = 1 if transposed else 0
        self.source_bytes += sum((last - first) * bytes_an_output(tensor, axis) for tensor, first, last in pieces)
        return Packed("float32", n, k, np.empty(0, np.float32))

    @property
    def num_parameters(self) -> int:
        """Entries of all tensors the model uses."""
        return self.vector_entries + sum(n * k for n, k, _ in self.matrices)

    def packed_bytes(self, dtype: DType) -> int:
        """Bytes that the weights will take in memory."""
        return 4 * self.vector_entries + sum(packed_bytes(n, k, format_of(role, dtype)) for n, k, role in self.matrices)

    def read_bytes_per_token(self, dtype: DType) -> int:
        """Bytes that one decode step reads of the matrices: every layer, and the head, which may be the embedding."""
        has_head = any(role == "head" for _, _, role in self.matrices)
        read = ("layer", "head" if has_head else "embedding")
        return sum(packed_bytes(n, k, format_of(role, dtype)) for n, k, role in self.matrices if role in read)


@dataclass(frozen=True, slots=True, eq=False)
class Entry:
    """One array as it was packed: what it was made from, and what it is."""

    name: str  # of the first tensor in it
    recipe: str  # a hash of all that it was made from: names, ranges, offsets
    packed: Packed | None  # None: a vector
    data: np.ndarray


class Pack:
    """Reads and packs, and keeps a list of what it packed. ``progress`` is told (bytes read, bytes in all).

    Raises ModelError for the first tensor whose weights are not all finite.
    """

    checks_copies = False

    def __init__(
        self, ops: Reference, dtype: DType, total: int, progress: Callable[[int, int], None] | None = None
    ) -> None:
        self._ops, self._dtype = ops, dtype
        self._done, self._total, self._progress = 0, total, progress
        self.entries: list[Entry] = []

    def vector(self, pieces: Sequence[Piece], offset: float) -> np.ndarray:
        parts = [_float32(tensor.rows(first, last)) for tensor, first, last in pieces]
        for (tensor, first, _), part in zip(pieces, parts, strict=True):
            if not np.isfinite(part).all():
                raise _not_finite(tensor, part, first, "float32")
        self._advance(sum((last - first) * bytes_an_output(tensor, 0) for tensor, first, last in pieces))
        whole = np.concatenate(parts)
        whole = whole + np.float32(offset) if offset else whole
        self.entries.append(Entry(pieces[0][0].name, recipe(pieces, offset), None, whole))
        return whole

    def matrix(self, pieces: Sequence[Piece], k: int, transposed: bool, role: Role) -> Packed:
        packed = Packed.empty(num_outputs(pieces), k, format_of(role, self._dtype))
        row = 0
        for tensor, first, last in pieces:
            row_bytes = bytes_an_output(tensor, 1 if transposed else 0)
            # A transposed slab touches every page of the tensor: take it in one go rather than read it many times.
            step = last - first if transposed else max(LANES, SLAB_BYTES // row_bytes // LANES * LANES)
            for start in range(first, last, step):
                stop = min(start + step, last)
                source = tensor.rows(0, k)[:, start:stop].T if transposed else tensor.rows(start, stop)
                if not self._ops.pack_rows(packed, row, source):
                    raise _not_finite(tensor, source, start, packed.dtype)
                row += stop - start
                tensor.drop()
                self._advance((stop - start) * row_bytes)
        self.entries.append(Entry(pieces[0][0].name, recipe(pieces, k, transposed), packed, packed.data))
        return packed

    def _advance(self, count: int) -> None:
        self._done += count
        if self._progress is not None:
            self._progress(self._done, self._total)


def num_outputs(pieces: Sequence[Piece]) -> int:
    return sum(last - first for _, first, last in pieces)


def bytes_an_output(tensor: Tensor, axis: int) -> int:
    """Bytes of a tensor for one of its outputs, which lie along ``axis``."""
    return tensor.num_bytes // tensor.shape[axis]


def recipe(pieces: Sequence[Piece], *how: float) -> str:
    """What an array is made from, as a short hash: two recipes that are equal make equal arrays."""
    parts = [(tensor.name, tensor.dtype, tensor.shape, first, last) for tensor, first, last in pieces]
    return hashlib.sha256(repr((parts, how)).encode()).hexdigest()[:16]


def _not_finite(tensor: Tensor, values: np.ndarray, first: int, dtype: DType) -> ModelError:
    """What to say of a part of a tensor, (outputs,) or (outputs, k) from output ``first`` on."""
    floats = _float32(values)
    bad = np.argwhere(~np.isfinite(floats))
    where = {"where": str(tensor.file.path), "field": tensor.name}
    if not len(bad):
        largest = float(np.abs(floats).max())
        return ModelError(f"holds {largest:.3g}, which {dtype} cannot", "Load it with dtype float32.", **where)
    output, *rest = bad[0].tolist()
    place = ", ".join([f"output {first + output}", *(f"input {each}" for each in rest)])
    what = f"holds {floats[tuple(bad[0])]:g} at {place}"
    hint = "The file is damaged, or the model was saved broken: fetch it again, or ask whoever made it."
    return ModelError(f"{what}; every answer would be NaN", hint, **where)


def _float32(values: np.ndarray) -> np.ndarray:
    return from_bfloat16(values) if values.dtype == np.uint16 else values.astype(np.float32)
