"""The work that is measured: decoding and prefill.

It runs through the engine as any request does, so scheduling, batching and choosing are in the figures. What it must
cost at least is counted by ``cost``; what the machine could do beside it is measured by ``share``.
"""

from __future__ import annotations

import time
from itertools import count

import numpy as np

from openwork.bench import cost
from openwork.bench.cost import Cost, Weights
from openwork.bench.figure import Figure, Name
from openwork.bench.limits import Limits
from openwork.bench.share import Share, beside
from openwork.build import Built
from openwork.core.event import Token
from openwork.core.request import Request, SamplingParams
from openwork.engine.service import Stream

TURNS = 7


def weights_of(built: Built) -> Weights:
    """How the model lies in memory."""
    spec, info = built.spec, built.info
    kv_bytes = info.kv_bytes / (info.num_blocks * info.block_size * spec.num_layers)
    return Weights(spec, info.dtype, info.kv_dtype, info.read_bytes_per_token, kv_bytes)


def warm_up(built: Built) -> None:
    """One short request: every weight has been read, every kernel has run."""
    stream = built.engine.submit(request_of(built, 32, SamplingParams(temperature=0, max_tokens=4), 0))
    wait_for_token(built, stream)
    built.engine.drain()


def decode(built: Built, limits: Limits, batch: int, context: int, steps: int) -> Figure:
    """Tokens a second of ``batch`` sequences with about ``context`` tokens each; ``steps`` between two ceilings.

    The window must have room for room_for(batch, context, steps) tokens.
    """
    engine, weights = built.engine, weights_of(built)
    params = SamplingParams(temperature=0, ignore_eos=True)  # without an end: cancelled when enough was measured
    streams = [engine.submit(request_of(built, context, params, seed)) for seed in range(batch)]
    lengths = [context + wait_for_token(built, stream) for stream in streams]
    _land(built, streams, lengths)

    def work() -> tuple[float, Cost]:
        mean = [length + (steps - 1) / 2 for length in lengths]  # a new token sees itself and all before it
        began = time.perf_counter()
        for _ in range(steps):
            engine.turn()
        engine.land()  # the step in flight is one of ours, and must not run into the ceiling's measurement
        seconds = time.perf_counter() - began
        _land(built, streams, lengths)
        return seconds / steps, cost.decode(weights, mean)

    before = cost.decode(weights, [float(each) for each in lengths])
    share = beside(work, limits, weights, TURNS)
    for stream in streams:
        engine.cancel(stream)
    engine.drain()
    return _figure("decode", weights, share, before, batch, context)


def prefill(built: Built, limits: Limits, length: int, turns: int) -> Figure:
    """Tokens a second of one prompt of ``length`` tokens, to its first token."""
    seeds, weights = count(), weights_of(built)
    params = SamplingParams(temperature=0, max_tokens=1, ignore_eos=True)
    needed = cost.prefill(weights, length)

    def work() -> tuple[float, Cost]:
        stream = built.engine.submit(request_of(built, length, params, next(seeds)))
        began = time.perf_counter()
        wait_for_token(built, stream)
        return time.perf_counter() - began, needed

    if length <= 1024:  # once unmeasured, where that is cheap
        work()
    share = beside(work, limits, weights, turns)
    built.engine.drain()
    return _figure("prefill", weights, share, needed, 1, length)


def room_for(batch: int, context: int, steps: int) -> int:
    """Tokens that a sequence may have at the end: the first ones decode while the last are still prefilled."""
    return context + steps * TURNS + batch * (2 + context // 128)


def request_of(built: Built, length: int, params: SamplingParams, seed: int) -> Request:
    prompt = np.random.default_rng(seed).integers(0, built.spec.vocab_size, length).tolist()
    return Request(tuple(prompt), params, built.limits)


def wait_for_token(built: Built, stream: Stream) -> int:
    """Turn the engine until the stream has a token; how many it had by then."""
    while not (tokens := _tokens(stream)):
        built.engine.turn()
    return tokens


def _land(built: Built, streams: list[Stream], lengths: list[int]) -> None:
    """Commit the step in flight, and count what every sequence has become."""
    built.engine.land()
    for at, stream in enumerate(streams):
        lengths[at] += _tokens(stream)


def _tokens(stream: Stream) -> int:
    return sum(isinstance(event, Token) for event in stream.take())


def _figure(name: Name, weights: Weights, share: Share, cost: Cost, batch: int, context: int) -> Figure:
    return Figure(
        name=name,
        dtype=weights.dtype,
        kv_dtype=weights.kv_dtype,
        batch=batch,
        context=context,
        tok_s=share.tok_s,
        limit_tok_s=share.limit_tok_s,
        share=share.share,
        bound=share.bound,
        memory_tok_s=share.memory_tok_s,
        arithmetic_tok_s=share.arithmetic_tok_s,
        linear_share=share.linear_share if name == "prefill" else None,
        num_bytes=cost.num_bytes,
        operations=cost.operations,
    )
