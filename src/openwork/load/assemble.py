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
from typing import cast, get_args

from openwork.core.errors import BackendError, ModelError
from openwork.core.spec import ModelSpec
from openwork.load.checkpoint import Checkpoint
from openwork.load.document import read_object
from openwork.load.generation import GenerationDefaults as GenerationDefaults
from openwork.load.generation import generation_defaults
from openwork.load.safetensors import FLOATS
from openwork.load.take import Pack, Store, Survey, Take
from openwork.models.config import Config
from openwork.models.decoder import Decoder
from openwork.models.parts import Model, Weights
from openwork.models.table import find
from openwork.ops.packed import DType
from openwork.ops.reference import Reference

Progress = Callable[[int, int], None]  # (bytes read, bytes in all)


@dataclass(frozen=True, slots=True, eq=False)
class Loaded:
    """A model that is ready to run."""

    directory: Path
    spec: ModelSpec
    model: Decoder
    dtype: DType  # of the packed weights
    generation: GenerationDefaults
    weight_bytes: int  # of the packed weights in memory


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
        )


def load(
    directory: Path,
    ops: Reference,
    dtype: str = "auto",
    context: int | None = None,
    progress: Progress | None = None,
) -> Loaded:
    """Read a checkpoint directory into memory, ready to run on ``ops``.

    ``dtype`` is what weights are packed in; auto is bfloat16 when the checkpoint's are 16 bits wide, else float32.
    ``context`` is the window that the engine will be opened with, None the longest there is: LongRoPE models choose
    their frequencies by it. Memory: the packed weights and a slab of 8 MiB. Raises ModelError, BackendError for an
    unknown dtype.
    """
    config, model, spec, generation = _open(directory, context)
    with Checkpoint(directory) as checkpoint:
        survey = _survey(checkpoint, model, config, spec)
        chosen = choose_dtype(dtype, _stored_dtype(checkpoint))
        weights, _ = _take(checkpoint, model, config, spec, Pack(ops, chosen, survey.source_bytes, progress))
        decoder = Decoder(spec, ops, weights, model)
        return Loaded(directory, spec, decoder, chosen, generation, survey.packed_bytes(chosen))


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


def _survey(checkpoint: Checkpoint, model: Model, config: Config, spec: ModelSpec) -> Survey:
    """Check every tensor against the config. Raises ModelError for the first that is missing, wrong or too much."""
    survey = Survey()
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


def choose_dtype(dtype: str, stored: str) -> DType:
    """What weights are packed in, when they are ``stored`` so (F32, F16 or BF16). Raises BackendError for no dtype."""
    if dtype == "auto":
        return "float32" if stored == "F32" else "bfloat16"
    for known in get_args(DType):
        if dtype == known:
            return cast(DType, known)
    raise BackendError(f"there is no dtype {dtype!r}", f"Choose auto, {' or '.join(get_args(DType))}.")
