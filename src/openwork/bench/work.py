"""The work that is measured: decoding, prefill, the first token of a new process, and memory.

It runs through the engine as any request does, so scheduling, batching and choosing are in the figures. What a step
must do at least is counted from the model's numbers:

    decode    every matrix once, and the keys and values of every sequence      bytes, over read bandwidth
    prefill   two operations for every entry of the layers' matrices and token  operations, over the dot-product peak

Attention and head of a prefill are not in its ceiling's count, so its share is a little unfair to us.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from itertools import count
from typing import Any

import numpy as np

from openwork.bench.limits import Limits, Share, beside
from openwork.build import Built
from openwork.core.errors import EngineError
from openwork.core.event import Token
from openwork.core.request import Request, SamplingParams
from openwork.engine.service import Stream

PAIRS = 7
ITEMSIZE = {"float32": 4, "bfloat16": 2}


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured thing. ``tok_s`` and ``limit_tok_s`` are tokens a second; ``value`` is for what is not a rate."""

    name: str  # "decode" | "prefill" | "first_token" | "memory"
    dtype: str
    batch: int = 1
    context: int = 0
    tok_s: float | None = None
    limit_tok_s: float | None = None
    share: float | None = None
    value: float | None = None  # seconds to the first token; bytes of peak memory

    def record(self) -> dict[str, Any]:
        """For JSON: what was not measured is left out."""
        return {name: value for name, value in asdict(self).items() if value is not None}


def warm_up(built: Built) -> None:
    """One short request: every weight has been read, every kernel has run."""
    stream = built.engine.submit(request_of(built, 32, SamplingParams(temperature=0, max_tokens=4), 0))
    wait_for_token(built, stream)
    built.engine.drain()


def decode(built: Built, limits: Limits, batch: int, context: int, steps: int) -> Figure:
    """Tokens a second of ``batch`` sequences with about ``context`` tokens each; ``steps`` between two ceilings.

    The window must have room for room_for(batch, context, steps) tokens.
    """
    engine, spec = built.engine, built.spec
    params = SamplingParams(temperature=0, ignore_eos=True)  # without an end: cancelled when enough was measured
    streams = [engine.submit(request_of(built, context, params, seed)) for seed in range(batch)]
    for stream in streams:
        wait_for_token(built, stream)
    engine.land()

    def work() -> float:
        began = time.perf_counter()
        for _ in range(steps):
            engine.turn()
        engine.land()  # the step in flight is one of ours, and must not run into the ceiling's measurement
        return batch * steps / (time.perf_counter() - began)

    itemsize = ITEMSIZE[built.info.dtype]
    bytes_a_step = spec.weights_read_per_token * itemsize + batch * context * spec.kv_bytes_per_token(itemsize)
    share = beside(work, lambda: batch * limits.read_bytes_s() / bytes_a_step, PAIRS)
    for stream in streams:
        engine.cancel(stream)
    engine.drain()
    return _figure("decode", built, share, batch, context)


def prefill(built: Built, limits: Limits, length: int, pairs: int) -> Figure:
    """Tokens a second of one prompt of ``length`` tokens, to its first token."""
    spec, seeds = built.spec, count()
    params = SamplingParams(temperature=0, max_tokens=1, ignore_eos=True)

    def work() -> float:
        stream = built.engine.submit(request_of(built, length, params, next(seeds)))
        began = time.perf_counter()
        wait_for_token(built, stream)
        return length / (time.perf_counter() - began)

    work()
    flops = 2 * spec.num_layers * spec.layer_weights
    share = beside(work, lambda: limits.flops_s(built.info.dtype) / flops, pairs)
    built.engine.drain()
    return _figure("prefill", built, share, 1, length)


def first_token(model: str | None, dtype: str, runs: int = 7) -> Figure:
    """Seconds from the start of a new process to its first byte of text: the median of several, one to warm up.

    Raises EngineError when the process fails.
    """
    command = [sys.executable, "-m", "openwork", "generate", "--ids", "1,2,3", "--max-tokens", "1", "--ignore-eos"]
    command += ["--dtype", dtype, "--no-echo", *([] if model is None else ["--model", model])]
    seconds = []
    for _ in range(runs + 1):
        began = time.perf_counter()
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.read(1)
            seconds.append(time.perf_counter() - began)
            _, errors = process.communicate()
        if process.returncode:
            raise EngineError(f"openwork generate failed: {errors.decode(errors='replace').strip()[:500]}")
    return Figure("first_token", dtype, value=float(np.median(seconds[1:])))


def memory(built: Built) -> Figure:
    """Bytes of peak memory of this process so far. Ask before there are Limits, whose buffer is large."""
    unit = 1 if sys.platform == "darwin" else 1024
    return Figure("memory", built.info.dtype, value=float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit))


def room_for(batch: int, context: int, steps: int) -> int:
    """Tokens that a sequence may have at the end: the first ones decode while the last are still prefilled."""
    return context + steps * PAIRS + batch * (2 + context // 128)


def _figure(name: str, built: Built, share: Share, batch: int, context: int) -> Figure:
    return Figure(name, built.info.dtype, batch, context, share.rate, share.limit, share.share)


def request_of(built: Built, length: int, params: SamplingParams, seed: int) -> Request:
    prompt = np.random.default_rng(seed).integers(0, built.spec.vocab_size, length).tolist()
    return Request(tuple(prompt), params, built.limits)


def wait_for_token(built: Built, stream: Stream) -> None:
    while not any(isinstance(event, Token) for event in stream.take()):
        built.engine.turn()
