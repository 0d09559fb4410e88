"""Plan: what is measured, and in which order. Whatever cannot be measured is named with its reason.

For each format: prefill, then decoding in batches at the first context, then one sequence at the other contexts. One
model is in memory at a time. At the end, new processes in each format, so that the files they write disturb nothing.
For a shape they run on a checkpoint that is written into a temporary directory, with a weight cache of its own, and
both are removed.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from openwork.bench import checkpoint, start, work
from openwork.bench.figure import Figure
from openwork.bench.limits import Limits
from openwork.bench.shapes import SHAPES
from openwork.build import Built, build, build_shape
from openwork.core.errors import BackendError, MemoryTooSmall, RequestError
from openwork.core.settings import LoadSettings, ScheduleSettings
from openwork.ops.cpu import Cpu
from openwork.wiring import Info

CACHE_VARIABLE = "OPENWORK_CACHE"
Finding = tuple[str, Any]  # ("model", Info) | ("limits", dict) | ("figure", Figure) | ("skipped", why)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to measure. Raises RequestError, naming the parameter."""

    model: str | None = None  # None and no shape: the embedded model
    shape: str | None = None
    dtypes: tuple[str, ...] = ("auto",)
    kv_dtype: str = "auto"
    batches: tuple[int, ...] = (1, 8, 32)
    contexts: tuple[int, ...] = (128,)
    prefills: tuple[int, ...] | None = None  # None: 512 tokens, or half of a window that is shorter
    steps: int = 8
    starts: bool = True
    threads: int | None = None

    def __post_init__(self) -> None:
        if self.model is not None and self.shape is not None:
            raise RequestError("--model and --shape exclude one another", "Give one of them.", param="shape")
        if self.shape is not None and self.shape not in SHAPES:
            raise RequestError(f"there is no shape {self.shape!r}", f"There are {', '.join(SHAPES)}.", param="shape")


def carry_out(plan: Plan) -> Iterator[Finding]:
    """Everything, as it is found. The ceilings come first, and once more at the end: the best of the whole run."""
    limits: Limits | None = None
    loaded: list[Info] = []
    for number, dtype in enumerate(plan.dtypes):
        try:
            built = _build(plan, dtype)
        except MemoryTooSmall as error:
            if len(plan.dtypes) == 1:
                raise
            yield "skipped", f"{dtype}: {error}"
            continue
        try:
            if not isinstance(built.ops, Cpu):
                raise BackendError("only the native core is measured")
            limits = limits or Limits(built.ops)
            if number == 0:
                yield "limits", limits.summary()
            yield "model", built.info
            yield from _measure(plan, built, limits)
            loaded.append(built.info)
        finally:
            built.engine.close()
        del built  # its memory is free before the next model, or a new process, takes its own
    if limits is not None:
        yield "limits", limits.summary()
        del limits
    if plan.starts and loaded:
        yield from _starts(plan, loaded)


def _build(plan: Plan, dtype: str) -> Built:
    most = max(plan.batches)
    settings = LoadSettings(dtype=dtype, kv_dtype=plan.kv_dtype, threads=plan.threads, backend="cpu")
    schedule = ScheduleSettings(max_step_tokens=512 + most, max_running=most)
    if plan.shape is not None:
        return build_shape(plan.shape, SHAPES[plan.shape], settings, schedule)
    return build(plan.model, settings, schedule)


def _measure(plan: Plan, built: Built, limits: Limits) -> Iterator[Finding]:
    window = built.info.context
    work.warm_up(built)
    for length in plan.prefills or (_prompt(window),):
        if length >= window:
            yield "skipped", f"prefill of {length} tokens: the window has {window}"
            continue
        yield "figure", work.prefill(built, limits, length, turns=work.TURNS if length <= 1024 else 3)
    first = plan.contexts[0]
    for batch, context in [*((each, first) for each in plan.batches), *((1, each) for each in plan.contexts[1:])]:
        needed = work.room_for(batch, context, plan.steps)
        if needed > window:
            yield "skipped", f"decoding at {context} tokens: {needed} would be needed, the window has {window}"
            continue
        yield "figure", work.decode(built, limits, batch, context, plan.steps)


def _starts(plan: Plan, loaded: list[Info]) -> Iterator[Finding]:
    """New processes: on the model, or on a checkpoint in the plan's shape that lives as long as they do."""
    threads = [] if plan.threads is None else ["--threads", str(plan.threads)]
    if plan.shape is None:
        model = [] if plan.model is None else ["--model", plan.model]
        for info in loaded:
            yield from _start([*model, *threads], {}, info)
        return
    with tempfile.TemporaryDirectory(prefix="openwork-bench-") as temporary:
        directory, cache = Path(temporary, "model"), Path(temporary, "cache")
        try:
            checkpoint.write(directory, SHAPES[plan.shape])
        except OSError as error:
            yield "skipped", f"the start of a process: a checkpoint could not be written to {directory}: {error}"
            return
        for info in loaded:
            yield from _start(["--model", str(directory), *threads], {CACHE_VARIABLE: str(cache)}, info)


def _start(arguments: list[str], variables: dict[str, str], info: Info) -> Iterator[Finding]:
    arguments = [*arguments, "--dtype", info.dtype, "--kv-dtype", info.kv_dtype]
    first, later = start.first_token(arguments, variables)
    dtype, kv_dtype = info.dtype, info.kv_dtype
    is_first = bool(variables)  # the cache was new, and empty
    yield (
        "figure",
        Figure(
            name="first_token",
            dtype=dtype,
            kv_dtype=kv_dtype,
            seconds=later,
            first_seconds=first if is_first else None,
        ),
    )
    prompt = _prompt(info.context)
    peak = start.peak_bytes(arguments, variables, prompt)
    if peak is None:
        yield "skipped", "memory: this system does not tell the peak of another process"
        return
    yield (
        "figure",
        Figure(
            name="memory",
            dtype=dtype,
            kv_dtype=kv_dtype,
            context=prompt,
            peak_bytes=peak,
            weight_bytes=info.weight_bytes,
        ),
    )


def _prompt(window: int) -> int:
    return min(512, window // 2)
