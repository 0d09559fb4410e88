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
from openwork.load.formats import Role, format_of
from openwork.load.generation import GenerationDefaults
from openwork.load.safetensors import Tensor
from openwork.load.store import Piece, Survey, num_outputs
from openwork.load.take import Take
from openwork.models.config import Config
from openwork.models.decoder import Decoder
from openwork.models.table import find
from openwork.ops.packed import LANES, DType, Packed
from openwork.ops.reference import Reference

_BLOCKS = 4  # different column blocks of a matrix; making noise must not take longer than measuring


class _Noise:
    """A Store that makes up what it is asked for: a few column blocks, packed once for each width, and repeated."""

    checks_copies = False

    def __init__(self, ops: Reference, dtype: DType, seed: int) -> None:
        self._ops, self._dtype = ops, dtype
        self._random = np.random.default_rng(seed)
        self._tiles: dict[tuple[int, DType], np.ndarray] = {}

    def vector(self, pieces: Sequence[Piece], offset: float) -> np.ndarray:
        return np.full(num_outputs(pieces), 0 if pieces[0][0].name.endswith(".bias") else 1, np.float32)

    def matrix(self, pieces: Sequence[Piece], k: int, transposed: bool, role: Role) -> Packed:
        dtype = format_of(role, self._dtype)
        packed, tile = Packed.empty(num_outputs(pieces), k, dtype), self._tile(k, dtype)
        for block in range(0, len(packed.data), _BLOCKS):
            part = packed.data[block : block + _BLOCKS]
            part[...] = tile[: len(part)]
        return packed

    def _tile(self, k: int, dtype: DType) -> np.ndarray:
        """Packed column blocks (_BLOCKS, ...) of bfloat16 from 1/128 to 1/32, the lowest bit of the draw its sign."""
        if (k, dtype) not in self._tiles:
            bits = self._random.integers(0, 512, (_BLOCKS * LANES, k), dtype=np.uint16)
            packed = Packed.empty(_BLOCKS * LANES, k, dtype)
            self._ops.pack_rows(packed, 0, 0x3C00 + (bits >> 1) | (bits & 1) << 15)
            self._tiles[k, dtype] = packed.data
        return self._tiles[k, dtype]


class _TakeAnything(Take):
    """Take for which every tensor exists, in the shape that is called for."""

    def _find(self, name: str, shape: tuple[int, ...]) -> Tensor:
        num_bytes = 2 * int(np.prod(shape))
        return Tensor(name, "BF16", shape, 0, num_bytes, None)  # type: ignore[arg-type]


def survey(config: Mapping[str, Any], dtype: DType, context: int | None = None) -> tuple[ModelSpec, int]:
    """The spec of a shape, and the bytes its packed weights will take. Raises ModelError as load does."""
    spec, found = _survey(config, context)
    return spec, found.packed_bytes(dtype)


def _survey(config: Mapping[str, Any], context: int | None) -> tuple[ModelSpec, Survey]:
    checked = Config(config, "the shape")
    model = find(checked)
    spec, store = model.spec(checked, context), Survey()
    model.weights(_TakeAnything({}, spec, store, "the shape"), checked, spec)
    return spec, store


def invent(
    config: Mapping[str, Any], ops: Reference, dtype: DType, context: int | None = None, seed: int = 0
) -> Loaded:
    """A model of the shape that ``config``, the content of a config.json, describes. Raises ModelError."""
    checked = Config(config, "the shape")
    model = find(checked)
    spec, found = _survey(config, context)
    weights = model.weights(_TakeAnything({}, spec, _Noise(ops, dtype, seed), "the shape"), checked, spec)
    sizes = found.packed_bytes(dtype), found.read_bytes_per_token(dtype)
    return Loaded(Path("noise"), spec, Decoder(spec, ops, weights, model), dtype, GenerationDefaults(), *sizes)
