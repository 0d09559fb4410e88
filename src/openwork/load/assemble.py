"""Assemble: a checkpoint directory becomes a model, or one ModelError and nothing.

The order is what keeps it safe: config (every number checked), survey (every tensor's name, shape and type against the
config, and none too many), and only then memory. What runs the model, and with how much cache, is not known here.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from openwork.core.errors import ModelError
from openwork.core.spec import ModelSpec
from openwork.load.checkpoint import Checkpoint
from openwork.load.document import read_object
from openwork.load.formats import choose_dtype
from openwork.load.generation import GenerationDefaults as GenerationDefaults
from openwork.load.generation import generation_defaults
from openwork.load.safetensors import FLOATS
from openwork.load.store import Pack, Store, Survey
from openwork.load.take import Take
from openwork.load.weight_cache import WORTH_BYTES, Mapped, WeightCache
from openwork.models.config import Config
from openwork.models.decoder import Decoder
from openwork.models.parts import Model, Weights
from openwork.models.table import find
from openwork.ops.packed import DType
from openwork.ops.reference import Reference

Progress = Callable[[str, int, int], None]  # ("packing", "saving" or "loading", bytes done, bytes in all)
CacheUse = Literal["never", "big", "always"]


@dataclass(frozen=True, slots=True, eq=False)
class Loaded:
    """A model that is ready to run."""

    directory: Path
    spec: ModelSpec
    model: Decoder
    dtype: DType  # that was asked for; load/formats.py says which matrix has another
    generation: GenerationDefaults
    weight_bytes: int  # of the packed weights in memory
    read_bytes_per_token: int  # of matrices in one decode step of one sequence
    cache_file: Path | None = None  # of the weight cache, where these weights now are
    is_mapped: bool = False  # they were there before, and were not packed


@dataclass(frozen=True, slots=True)
class Inspection:
    """What a checkpoint is, without reading a weight."""

    directory: Path
    spec: ModelSpec
    generation: GenerationDefaults
    stored_dtype: str  # that of most entries, as the format spells it: F32, F16 or BF16
    dtype: DType  # that the weights would be packed in
    num_tensors: int
    num_parameters: int  # entries of all tensors that the model uses, a tied head once
    file_bytes: int
    packed_bytes: int  # of the weights in memory
    read_bytes_per_token: int  # of matrices in one decode step of one sequence


def inspect(directory: Path, dtype: str = "auto", context: int | None = None) -> Inspection:
    """Survey a checkpoint: what load would do with these arguments, without reading a weight. Raises as load does."""
    config, model, spec, generation = _open(directory, context)
    with Checkpoint(directory) as checkpoint:
        survey = _survey(checkpoint, model, config, spec)
        stored = _stored_dtype(checkpoint)
        chosen = choose_dtype(dtype, stored)
        return Inspection(
            directory=directory,
            spec=spec,
            generation=generation,
            stored_dtype=stored,
            dtype=chosen,
            num_tensors=len(checkpoint.tensors),
            num_parameters=survey.num_parameters,
            file_bytes=checkpoint.num_bytes,
            packed_bytes=survey.packed_bytes(chosen),
            read_bytes_per_token=survey.read_bytes_per_token(chosen),
        )


def load(
    directory: Path,
    ops: Reference,
    dtype: str = "auto",
    context: int | None = None,
    progress: Progress | None = None,
    cache: CacheUse = "never",
) -> Loaded:
    """Read a checkpoint directory into memory, ready to run on ``ops``.

    ``dtype`` is what weights are packed in; auto is bfloat16 when the checkpoint's are 16 bits wide, else float32.
    ``context`` is the window that the engine will be opened with, None the longest there is: LongRoPE models choose
    their frequencies by it. Unless ``cache`` is "never", weights are mapped from the weight cache when they are in it,
    and else put there when they are "big", or "always". Memory: the packed weights and a slab of 8 MiB. Raises
    ModelError, BackendError for an unknown dtype.
    """
    config, model, spec, generation = _open(directory, context)
    with Checkpoint(directory) as checkpoint:
        survey = _survey(checkpoint, model, config, spec)
        chosen = choose_dtype(dtype, _stored_dtype(checkpoint))
        sizes = survey.packed_bytes(chosen), survey.read_bytes_per_token(chosen)
        kept = None if cache == "never" else _cache(checkpoint, chosen, ops)
        weights = None if kept is None else _mapped(kept, checkpoint, model, config, spec, chosen, progress)
        is_mapped = weights is not None
        if not is_mapped and cache == "big" and sizes[0] < WORTH_BYTES:
            kept = None
        if weights is None:
            _survey(checkpoint, model, config, spec, checks_copies=True)
            stage = "loading" if kept is None else "packing"
            store = Pack(ops, chosen, survey.source_bytes, _as_stage(progress, stage))
            weights, _ = _take(checkpoint, model, config, spec, store)
            if kept is not None and not kept.save(store.entries, _as_stage(progress, "saving")):
                kept = None
        decoder = Decoder(spec, ops, weights, model)
        file = None if kept is None else kept.path
        return Loaded(directory, spec, decoder, chosen, generation, *sizes, file, is_mapped)


def _cache(checkpoint: Checkpoint, dtype: DType, ops: Reference) -> WeightCache | None:
    try:
        return WeightCache(checkpoint, dtype, ops)
    except (OSError, RuntimeError):  # a file that vanished, which packing will speak of; a user without a home
        return None


def _mapped(
    cache: WeightCache,
    checkpoint: Checkpoint,
    model: Model,
    config: Config,
    spec: ModelSpec,
    dtype: DType,
    progress: Progress | None,
) -> Weights | None:
    """The weights from the cache; None when they are not there, or not as this model wants them."""
    file = cache.find(_as_stage(progress, "loading"))
    if file is None:
        return None
    try:
        return _take(checkpoint, model, config, spec, Mapped(file, dtype))[0]
    except ModelError:  # written by a version that took other things from the checkpoint
        return None


def _as_stage(progress: Progress | None, stage: str) -> Callable[[int, int], None] | None:
    return None if progress is None else lambda done, total: progress(stage, done, total)


def _open(directory: Path, context: int | None) -> tuple[Config, Model, ModelSpec, GenerationDefaults]:
    path = directory / "config.json"
    if not path.is_file():
        raise ModelError("there is no config.json here; a model is a directory that holds one", where=str(directory))
    config = Config(read_object(path), str(path))
    model = find(config)
    return config, model, model.spec(config, context), generation_defaults(directory, config)


def _take(
    checkpoint: Checkpoint, model: Model, config: Config, spec: ModelSpec, store: Store
) -> tuple[Weights, set[str]]:
    take = Take(checkpoint.tensors, spec, store, str(checkpoint.directory))
    return model.weights(take, config, spec), take.used


def _survey(
    checkpoint: Checkpoint, model: Model, config: Config, spec: ModelSpec, checks_copies: bool = False
) -> Survey:
    """Check every tensor against the config. Raises ModelError for the first that is missing, wrong or too much."""
    survey = Survey(checks_copies)
    _, used = _take(checkpoint, model, config, spec, survey)
    ignored = [re.compile(pattern) for pattern in model.IGNORED]
    extra = [
        name for name in sorted(checkpoint.tensors.keys() - used) if not any(each.search(name) for each in ignored)
    ]
    if extra:
        more = f" (and {len(extra) - 1} others)" if len(extra) > 1 else ""
        raise ModelError(
            f"is in the checkpoint, but {spec.architecture} with this config.json has no such tensor{more}",
            "Either config.json does not belong to these weights, or the model has parts that are not supported.",
            where=str(checkpoint.directory),
            field=extra[0][:200],
        )
    return survey


def _stored_dtype(checkpoint: Checkpoint) -> str:
    """The float type of most entries."""
    entries: Counter[str] = Counter()
    for tensor in checkpoint.tensors.values():
        if tensor.dtype in FLOATS:
            entries[tensor.dtype] += tensor.num_entries
    return entries.most_common(1)[0][0]
