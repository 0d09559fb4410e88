"""The composition root: the only place that chooses, and has things wired.

A checkpoint's name and a few wishes go in; an engine with everything behind it comes out, or, for whoever turns a loop
of its own and knows no text, a scheduler and a runner. "auto" is resolved here, into values that are never changed
afterwards. Nothing is left half-built: what cannot work is refused before memory is taken.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from openwork import drafting, sizing
from openwork.core.errors import BackendError
from openwork.core.request import Limits
from openwork.core.settings import AdmissionSettings, LoadSettings, RecordSettings, ScheduleSettings
from openwork.core.spec import ModelSpec
from openwork.core.terms import Tenants
from openwork.engine.loop import Loop
from openwork.engine.ports import Recorder
from openwork.engine.service import Engine
from openwork.load import assemble, invent, source
from openwork.load.assemble import GenerationDefaults, Loaded
from openwork.load.formats import choose_dtype, choose_kv_dtype
from openwork.ops.paged import KVDType
from openwork.ops.reference import Reference
from openwork.run.capture import Examiner
from openwork.run.runner import Tap
from openwork.text.guide import Guide
from openwork.text.tokenizer import Tokenizer
from openwork.wiring import Info, Plan, Wired, hashing_for, join, make_recorder, read_tokenizer

BACKENDS = ("auto", "cpu", "reference")
Progress = Callable[[str, int, int], None]  # (stage, done, total)


@dataclass(frozen=True, slots=True, eq=False)
class Built:
    """An engine and what its faces need to know about it."""

    engine: Engine
    ops: Reference
    guide: Guide  # compile a constraint with it before a request that has one is submitted, or its first step waits
    tokenizer: Tokenizer | None  # None: the checkpoint has none, and only token ids can be given
    spec: ModelSpec
    limits: Limits
    generation: GenerationDefaults
    info: Info
    examiner: Examiner  # computes its sequences again, with this model


def make_ops(backend: str = "auto", threads: int | None = None, isa: str | None = None) -> Reference:
    """The operations: the C++ core where it is installed, else the NumPy reference with a warning.

    ``isa`` is the core's instruction set; None: the best there is, or what the environment says.

    Raises BackendError for an unknown name, or when "cpu" is asked for and not there.
    """
    if backend not in BACKENDS:
        raise BackendError(f"there is no backend {backend!r}", f"Choose one of {', '.join(BACKENDS)}.")
    if backend != "reference":
        from openwork.ops.cpu import Cpu

        try:
            return Cpu(threads, isa)
        except BackendError as error:
            if backend == "cpu" or not error.is_missing:
                raise
            warnings.warn(f"{error} The slow NumPy reference is used instead.", RuntimeWarning, stacklevel=2)
    return Reference()


def build(
    model: str | Path | None,
    settings: LoadSettings,
    schedule: ScheduleSettings,
    progress: Progress | None = None,
    tap: Tap | None = None,
    hashes: bool = False,
    record: RecordSettings | None = None,
    stamp_every: int = 0,
) -> Built:
    """Load a checkpoint and wire an engine around it.

    ``model`` None is the embedded one; ``progress`` hears of bytes loaded, packed and saved, ``tap`` sees every row of
    logits, ``hashes`` gives each choice the hash of its row and ``stamp_every`` some of them a stamp, ``record`` writes
    a recording, with both where it keeps tokens. Raises ModelError, MemoryTooSmall, BackendError, RequestError or
    TraceError, each saying what to do.
    """
    plan = _plan(model, settings, schedule)
    with ThreadPoolExecutor(1) as beside:  # a large tokenizer takes as long to read as mapped weights take to check
        reading = beside.submit(read_tokenizer, plan.directory, plan.spec)
        loaded = _load(plan.directory, plan.ops, plan.context, settings, progress)
        tokenizer = reading.result()
    hashing = hashing_for(record, plan.spec) if record is not None else (hashes, stamp_every)
    wired = join(str(model or source.EMBEDDED), loaded, plan, schedule, tap, tokenizer=tokenizer, hashing=hashing)
    recorder = None if record is None else make_recorder(record, wired, _warn)
    return _face(wired, tokenizer, recorder)


def wire(
    model: str | Path | None,
    settings: LoadSettings,
    schedule: ScheduleSettings,
    admission: AdmissionSettings,
    tenants: Tenants,
    progress: Progress | None = None,
    record: RecordSettings | None = None,
) -> Wired:
    """Load a checkpoint, without its tokenizer, for a loop of the caller's own.

    ``tenants`` is kept: what is replaced in it later takes effect. ``record`` is what make_recorder will be given.
    Raises as build does.
    """
    plan = _plan(model, settings, schedule)
    loaded = _load(plan.directory, plan.ops, plan.context, settings, progress)
    hashing = hashing_for(record, plan.spec)
    return join(str(model or source.EMBEDDED), loaded, plan, schedule, None, admission, tenants, hashing=hashing)


def examiner(
    model: str | Path | None,
    settings: LoadSettings,
    progress: Progress | None = None,
    contract_id: str | None = None,
) -> Examiner:
    """Load a checkpoint to compute sequences again and look into them, without an engine and its cache.

    ``contract_id`` names arithmetic to be used if this machine has it, in place of the settings' backend;
    ``kv_cache_bytes`` and ``block_size`` of the settings are not used. Raises as build does.
    """
    isa = None
    if contract_id is not None:
        from openwork.ops.cpu import available

        isa = next((each for each in available() if contract_id.rsplit("-", 1)[0] == each), None)
        is_reference = contract_id == Reference.contract_id
        settings = replace(settings, backend="reference" if is_reference else settings.backend)
    directory, ops, survey, kv_dtype = _inspect(model, settings, isa)
    sizing.check_weights(survey.packed_bytes)
    loaded = _load(directory, ops, settings.context, settings, progress)
    context = loaded.spec.max_positions if settings.context is None else settings.context
    limits = Limits(loaded.spec.vocab_size, context, frozenset(loaded.generation.eos_ids))
    guide = Guide(lambda: read_tokenizer(directory, loaded.spec), limits.vocab_size, limits.eos_ids)
    return Examiner(loaded.model, kv_dtype, limits, str(model or source.EMBEDDED), loaded.dtype, guide)


def build_shape(name: str, config: Mapping[str, Any], settings: LoadSettings, schedule: ScheduleSettings) -> Built:
    """Wire an engine around noise in the shape of a model, the content of a config.json, to measure how fast it is.

    dtype "auto" is bfloat16. Raises as build does.
    """
    ops = make_ops(settings.backend, settings.threads)
    dtype = choose_dtype(settings.dtype, "BF16")
    kv_dtype = choose_kv_dtype(settings.kv_dtype, dtype)
    spec, packed_bytes = invent.survey(config, dtype, settings.context)
    cache, context = sizing.plan_cache(spec, kv_dtype, packed_bytes, settings)
    loaded = invent.invent(config, ops, dtype, context)
    plan = Plan(loaded.directory, spec, ops, kv_dtype, cache, context)
    return _face(join(name, loaded, plan, schedule, None), None)


def _inspect(
    model: str | Path | None, settings: LoadSettings, isa: str | None = None
) -> tuple[Path, Reference, assemble.Inspection, KVDType]:
    choose_kv_dtype(settings.kv_dtype, choose_dtype(settings.dtype, "BF16"))  # refused before anything is downloaded
    directory = source.resolve(model)
    ops = make_ops(settings.backend, settings.threads, isa)
    survey = assemble.inspect(directory, dtype=settings.dtype, context=settings.context)
    return directory, ops, survey, choose_kv_dtype(settings.kv_dtype, survey.dtype)


def _plan(model: str | Path | None, settings: LoadSettings, schedule: ScheduleSettings) -> Plan:
    directory, ops, survey, kv_dtype = _inspect(model, settings)
    name = None if schedule.speculation is None else schedule.speculation.draft_model
    draft = None if name is None else drafting.plan(name, settings, survey.spec, directory)
    more = (0, 0) if draft is None else (draft.packed_bytes, draft.block_bytes)
    cache, context = sizing.plan_cache(survey.spec, kv_dtype, survey.packed_bytes + more[0], settings, more[1])
    drafter = None if draft is None else lambda: drafting.load(draft, settings, ops, survey.spec, cache.num_blocks)
    return Plan(directory, survey.spec, ops, kv_dtype, cache, context, more[1], drafter)


def _load(
    directory: Path, ops: Reference, context: int | None, settings: LoadSettings, progress: Progress | None
) -> Loaded:
    use: assemble.CacheUse = "big" if settings.cache else "never"
    return assemble.load(directory, ops, dtype=settings.dtype, context=context, progress=progress, cache=use)


def _warn(message: str) -> None:
    warnings.warn(message, RuntimeWarning, stacklevel=2)


def _face(wired: Wired, tokenizer: Tokenizer | None, recorder: Recorder | None = None) -> Built:
    return Built(
        engine=Engine(Loop(wired.scheduler, wired.runner, wired.clock, recorder)),
        ops=wired.ops,
        guide=wired.guide,
        tokenizer=tokenizer,
        spec=wired.spec,
        limits=wired.limits,
        generation=wired.generation,
        info=wired.info,
        examiner=wired.examiner,
    )
