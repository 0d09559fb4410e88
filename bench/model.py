"""How near a whole model comes to what this machine can do: decoding against read bandwidth, prefill against the peak.

    python bench/model.py MODEL [--dtype bfloat16] [--batch 1,8,32] [--context 128,4096] [--prefill 512] [--json]

A decode step reads every weight once and the keys and values of every sequence; its ceiling is those bytes over the
machine's read bandwidth. A prefill multiplies every weight of the layers with every token; its ceiling is those
operations over the peak of the dot-product instruction. Work and ceiling are measured in turn, pair by pair, because a
shared machine drifts; a share is the median over the pairs. Everything is counted: scheduling, attention, head, choice.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator

import numpy as np

from openwork import LLM, SamplingParams
from openwork.core.event import Token
from openwork.core.request import Request
from openwork.core.settings import ScheduleSettings

PAIRS, STEPS = 7, 6
READ_BYTES = 512 << 20
ITEMSIZE = {"bfloat16": 2, "float32": 4}


class Machine:
    """The two ceilings, each measured on demand in some tens of milliseconds."""

    def __init__(self, llm: LLM) -> None:
        self._ops = llm._engine._loop._runner._ops
        self._dtype = llm.info.dtype
        self._buffer = np.ones(READ_BYTES, np.uint8)

    def read_bytes_s(self) -> float:
        began = time.perf_counter()
        self._ops._device.read_all(self._buffer)
        return READ_BYTES / (time.perf_counter() - began)

    def flops_s(self) -> float:
        steps, began = 4_000_000, time.perf_counter()
        self._ops._device.multiply_all(self._dtype, steps)
        seconds = time.perf_counter() - began
        pair = 2 if self._dtype == "bfloat16" else 1
        return steps * self._ops._device.flops_per_step * pair * self._ops.num_threads / seconds


def in_pairs(work: Callable[[], float], ceiling: Callable[[], float], pairs: int) -> tuple[float, float, float]:
    """Medians of a rate, of its ceiling in the same unit, and of the share, measured in turn."""
    found = [(work(), ceiling()) for _ in range(pairs)]
    shares = [rate / limit for rate, limit in found]
    return (*(statistics.median(each) for each in zip(*found, strict=True)), statistics.median(shares))


def decoding(llm: LLM, machine: Machine, batch: int, context: int) -> dict[str, object]:
    """Tokens a second of ``batch`` sequences that have about ``context`` tokens each."""
    engine, spec = llm._engine, llm.spec
    params = SamplingParams(temperature=0, max_tokens=STEPS * PAIRS + 40, ignore_eos=True)
    prompts = [prompt_of(context, spec.vocab_size, seed) for seed in range(batch)]
    streams = [engine.submit(Request(tuple(prompt), params, llm._limits)) for prompt in prompts]
    waiting = set(range(batch))
    while waiting:
        engine.turn()
        waiting -= {i for i in waiting if any(isinstance(event, Token) for event in streams[i].take())}

    def work() -> float:
        began = time.perf_counter()
        for _ in range(STEPS):
            engine.turn()
        return batch * STEPS / (time.perf_counter() - began)

    itemsize = ITEMSIZE[llm.info.dtype]
    step_bytes = spec.weights_read_per_token * itemsize + batch * context * spec.kv_bytes_per_token(itemsize)
    rate, limit, share = in_pairs(work, lambda: batch * machine.read_bytes_s() / step_bytes, PAIRS)
    for stream in streams:
        engine.cancel(stream)
    engine.drain()
    return {"name": "decode", "batch": batch, "context": context, "tok_s": rate, "limit_tok_s": limit, "share": share}


def prefilling(llm: LLM, machine: Machine, length: int) -> dict[str, object]:
    """Tokens a second of one prompt; the ceiling counts the products of the layers, not attention or head."""
    spec = llm.spec
    seeds: Iterator[int] = iter(range(1000))

    def work() -> float:
        prompt = prompt_of(length, spec.vocab_size, next(seeds))
        output = llm.generate([prompt], SamplingParams(temperature=0, max_tokens=1, ignore_eos=True))[0]
        return length / output.timings.prefill_s

    work()
    flops = 2 * spec.num_layers * spec.layer_weights
    rate, limit, share = in_pairs(work, lambda: machine.flops_s() / flops, 5)
    return {"name": "prefill", "batch": 1, "context": length, "tok_s": rate, "limit_tok_s": limit, "share": share}


def prompt_of(length: int, vocab_size: int, seed: int) -> list[int]:
    return np.random.default_rng(seed).integers(0, vocab_size, length).tolist()


def numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",") if part]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", help="a checkpoint; default: the embedded model")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--batch", type=numbers, default=[1, 8, 32], help="sequences at a time")
    parser.add_argument(
        "--context", type=numbers, default=[128], help="tokens of each; the batch is 1 beyond the first"
    )
    parser.add_argument("--prefill", type=numbers, default=[512], help="prompt lengths")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    asked = parser.parse_args()
    schedule = ScheduleSettings(max_step_tokens=512, max_running=64)
    with LLM(asked.model, dtype=asked.dtype, threads=asked.threads, backend="cpu", schedule=schedule) as llm:
        machine, info = Machine(llm), llm.info
        if not asked.json:
            print(f"{info.model}, {info.dtype}, {info.contract_id}, {info.threads} threads")
        runs = [lambda n=n: prefilling(llm, machine, n) for n in asked.prefill]
        runs += [lambda m=m: decoding(llm, machine, m, asked.context[0]) for m in asked.batch]
        runs += [lambda c=c: decoding(llm, machine, 1, c) for c in asked.context[1:]]
        for run in runs:
            found = run()
            if asked.json:
                print(json.dumps({"dtype": info.dtype, **found}), flush=True)
                continue
            what = f"{found['name']:8} batch {found['batch']:3}  context {found['context']:6}"
            print(f"{what}   {found['tok_s']:8.1f} tok/s   ceiling {found['limit_tok_s']:8.1f}   {found['share']:4.0%}")


if __name__ == "__main__":
    main()
