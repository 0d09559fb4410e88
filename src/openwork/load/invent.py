"""Invent: a model of a given shape with noise for weights, where only the time it takes matters.

The same model file lays it out as would read a checkpoint, so its matrices, their packing and the work of a token are
those of the real thing. What it says is nonsense. Norm weights are one, biases zero, matrices small noise of both
signs, so that logits stay finite. No file is read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from openwork.core.spec import ModelSpec
from openwork.load.assemble import Loaded
from openwork.load.generation import GenerationDefaults
from openwork.load.safetensors import Tensor
from openwork.load.take import Piece, Survey, Take
from openwork.models.config import Config
from openwork.models.decoder import Decoder
from openwork.models.table import find
from openwork.ops.packed import DType, Packed
from openwork.ops.reference import Reference

_TILE = 1 << 20  # entries of noise, repeated: making it must not take longer than measuring


class _Noise:
    """A Store that makes up what it is asked for."""

    def __init__(self, dtype: DType, seed: int) -> None:
        bits = np.random.default_rng(seed).integers(0, 512, _TILE, dtype=np.uint16)
        # bfloat16 between 1/128 and 1/32, the lowest bit of the draw its sign
        self._tile = 0x3C00 + (bits >> 1) | (bits & 1) << 15
        if dtype == "float32":
            self._tile = (self._tile.astype(np.uint32) << 16).view(np.float32)
        self._dtype = dtype

    def vector(self, pieces: Sequence[Piece], offset: float) -> np.ndarray:
        size = sum(last - first for _, first, last in pieces)
        return np.full(size, 0 if pieces[0][0].name.endswith(".bias") else 1, np.float32)

    def matrix(self, pieces: Sequence[Piece], k: int, transposed: bool) -> Packed:
        packed = Packed.empty(sum(last - first for _, first, last in pieces), k, self._dtype)
        flat = packed.data.reshape(-1)
        for start in range(0, flat.size, _TILE):
            part = flat[start : start + _TILE]
            part[...] = self._tile[: part.size]
        return packed


class _TakeAnything(Take):
    """Take for which every tensor exists, in the shape that is called for."""

    def _find(self, name: str, shape: tuple[int, ...]) -> Tensor:
        num_bytes = 2 * int(np.prod(shape))
        return Tensor(name, "BF16", shape, 0, num_bytes, None)  # type: ignore[arg-type]


def survey(config: Mapping[str, Any], dtype: DType, context: int | None = None) -> tuple[ModelSpec, int]:
    """The spec of a shape, and the bytes its packed weights will take. Raises ModelError as load does."""
    checked = Config(config, "the shape")
    model = find(checked)
    spec, store = model.spec(checked, context), Survey()
    model.weights(_TakeAnything({}, spec, store, "the shape"), checked, spec)
    return spec, store.packed_bytes(dtype)


def invent(
    config: Mapping[str, Any], ops: Reference, dtype: DType, context: int | None = None, seed: int = 0
) -> Loaded:
    """A model of the shape that ``config``, the content of a config.json, describes. Raises ModelError."""
    checked = Config(config, "the shape")
    model = find(checked)
    spec = model.spec(checked, context)
    weights = model.weights(_TakeAnything({}, spec, _Noise(dtype, seed), "the shape"), checked, spec)
    _, packed_bytes = survey(config, dtype, context)
    return Loaded(Path("noise"), spec, Decoder(spec, ops, weights, model), dtype, GenerationDefaults(), packed_bytes)
