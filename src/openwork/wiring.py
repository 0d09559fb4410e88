"""Wiring: a loaded model, a cache, a policy and a runner joined into what a loop turns, and a recorder for it.

What goes in has been chosen and loaded; what comes out is Wired, which names all its parts. It knows neither how a
checkpoint is found, nor what fits, nor who turns the loop.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from openwork import sizing
from openwork.core.errors import ModelError
from openwork.core.request import Limits
from openwork.core.settings import AdmissionSettings, CacheSettings, RecordSettings, ScheduleSettings
from openwork.core.spec import ModelSpec
from openwork.core.terms import Tenants
from openwork.core.version import VERSION
from openwork.engine.ports import Clock, Runner
from openwork.kv.cache import KVCache
from openwork.load.assemble import GenerationDefaults, Loaded
from openwork.ops.paged import KVDType, PagedKV
from openwork.ops.reference import Reference
from openwork.run.capture import Examiner
from openwork.run.clock import MonotonicClock
from openwork.run.drafter import Drafter, Guesses
from openwork.run.runner import Tap, TensorRunner
from openwork.schedule.scheduler import Scheduler
from openwork.text.guide import Guide
from openwork.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from openwork.trace.log import FlightRecorder


@dataclass(frozen=True, slots=True)
class Info:
    """What was chosen and wired, for people to read."""

    model: str
    directory: str
    architecture: str
    dtype: str  # of the weights
    kv_dtype: str  # of keys and values
    backend: str
    contract_id: str
    threads: int
    context: int  # longest sequence, prompt and output together
    block_size: int
    num_blocks: int
    weight_bytes: int
    read_bytes_per_token: int  # of weights, in one decode step of one sequence
    kv_bytes: int  # a draft model's cache included
    is_mapped: bool  # the packed weights came from the weight cache


@dataclass(frozen=True, slots=True, eq=False)
class Wired:
    """A scheduler and the runner it plans for, and what whoever turns them needs to know."""

    scheduler: Scheduler
    runner: Runner
    guide: Guide  # the runner's: compile a constraint with it before a step waits for that
    clock: Clock
    kv: PagedKV
    ops: Reference
    spec: ModelSpec
    limits: Limits
    generation: GenerationDefaults
    info: Info
    examiner: Examiner  # looks into sequences with this model
    cache: CacheSettings
    schedule: ScheduleSettings
    admission: AdmissionSettings


Hashing = tuple[bool, int]  # whether rows are hashed; of how many rows one is stamped


def hashing_for(record: RecordSettings | None, spec: ModelSpec) -> Hashing:
    """What a recording asks of the runner."""
    return (False, 0) if record is None else (record.keeps_prompts, record.stamp_every(spec.num_layers))


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """What is known before any memory is taken."""

    directory: Path
    spec: ModelSpec
    ops: Reference
    kv_dtype: KVDType
    cache: CacheSettings
    context: int
    draft_block_bytes: int = 0  # what a block of the cache takes more, for a draft model
    load_drafter: Callable[[], Drafter] | None = None


def join(
    name: str,
    loaded: Loaded,
    plan: Plan,
    schedule: ScheduleSettings,
    tap: Tap | None,
    admission: AdmissionSettings | None = None,
    tenants: Tenants | None = None,
    tokenizer: Tokenizer | None = None,
    hashing: Hashing = (False, 0),
) -> Wired:
    """Take the cache's memory and the draft model's, and join everything. Raises MemoryTooSmall, ModelError."""
    spec, ops, cache = loaded.spec, plan.ops, plan.cache
    kv = sizing.allocate(spec, cache, plan.kv_dtype)
    limits = Limits(spec.vocab_size, plan.context, frozenset(loaded.generation.eos_ids))
    guide = Guide(lambda: tokenizer or read_tokenizer(plan.directory, spec), spec.vocab_size, limits.eos_ids)
    runner = TensorRunner(ops, loaded.model, ops.bind(kv), tap, guide, *hashing)
    info = Info(
        model=name,
        directory=str(loaded.directory),
        architecture=spec.architecture,
        dtype=loaded.dtype,
        kv_dtype=plan.kv_dtype,
        backend=ops.name,
        contract_id=ops.contract_id,
        threads=ops.num_threads,
        context=plan.context,
        block_size=cache.block_size,
        num_blocks=cache.num_blocks,
        weight_bytes=loaded.weight_bytes,
        read_bytes_per_token=loaded.read_bytes_per_token,
        kv_bytes=kv.num_bytes + cache.num_blocks * plan.draft_block_bytes,
        is_mapped=loaded.is_mapped,
    )
    admission = admission or AdmissionSettings()
    drafter = None if plan.load_drafter is None else plan.load_drafter()
    make_proposer = None if drafter is None else partial(Guesses, drafter)
    return Wired(
        scheduler=Scheduler(schedule, KVCache(cache, tenants), admission, make_proposer),
        runner=runner,
        guide=guide,
        clock=MonotonicClock(),
        kv=kv,
        ops=ops,
        spec=spec,
        limits=limits,
        generation=loaded.generation,
        info=info,
        examiner=Examiner(loaded.model, plan.kv_dtype, limits, name, loaded.dtype, guide),
        cache=cache,
        schedule=schedule,
        admission=admission,
    )


def make_recorder(
    record: RecordSettings, wired: Wired, tell: Callable[[str], None] = lambda message: None, insists: bool = True
) -> FlightRecorder:
    """A flight recorder for a loop around ``wired``, with the arguments of FlightRecorder. Raises TraceError."""
    from openwork.trace.entry import Began
    from openwork.trace.log import FlightRecorder

    info, now = wired.info, wired.clock.now()
    began = Began(
        time=now,
        unix_s=time.time(),
        model=info.model,
        contract_id=info.contract_id,
        dtype=info.dtype,
        kv_dtype=info.kv_dtype,
        threads=info.threads,
        vocab_size=wired.limits.vocab_size,
        has_tokens=record.keeps_prompts,
        cache=wired.cache,
        schedule=wired.schedule,
        admission=wired.admission,
        tenants=wired.scheduler.cache.tenants.known,
        version=VERSION,
        weights=wired.examiner.fingerprint(),
        step_bytes=info.read_bytes_per_token,
        position_bytes=wired.kv.num_bytes // wired.cache.capacity,
    )
    return FlightRecorder(record, began, tell, insists)


def read_tokenizer(directory: Path, spec: ModelSpec) -> Tokenizer | None:
    """The checkpoint's, None where it has none. Raises ModelError when it is damaged or belongs to another model."""
    path = directory / "tokenizer.json"
    if not path.exists():
        return None
    tokenizer = Tokenizer.load(directory)
    if tokenizer.vocab_size > spec.vocab_size:
        raise ModelError(
            f"has ids up to {tokenizer.vocab_size - 1}, but the embedding only {spec.vocab_size} rows",
            "The tokenizer belongs to another model: take both from the same checkpoint.",
            where=str(path),
        )
    return tokenizer
