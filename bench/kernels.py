"""How near the native kernels come to what this machine can do, measured in the same run.

    python bench/kernels.py [--threads N] [--isa NAME] [--quick] [--json]

Each figure stands beside its ceiling, measured in turn with it because a shared machine drifts: reading a buffer far
larger than the caches, or multiplying and adding in registers. The shortest of many short runs counts.

    products     1, 4 and 8 rows as a share of read bandwidth (bytes of packed weights), 512 rows of the peak
    attention    context 4096; one row as a share of read bandwidth (bytes of keys and values), 64 of the float32 peak
    calls        what one call costs from Python with next to no work in it
    choosing     a token out of 150,000

Only ratios inside one run mean anything. Figures worth keeping go into docs/log.md by hand.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable
from functools import partial
from statistics import median

import numpy as np

from openwork.ops.cpu import Cpu
from openwork.ops.packed import DTYPES, DType, Packed
from openwork.ops.paged import PagedKV, Rows
from openwork.ops.weights import Attention, Linear, Norm

CACHED: tuple[DType, ...] = ("bfloat16", "float32")  # formats of keys and values


def clock(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def best_of(run: Callable[[], object], repeats: int) -> float:
    """The shortest of some runs, in seconds, after one that warms up."""
    run()
    return min(clock(run) for _ in range(repeats))


class Bench:
    def __init__(self, ops: Cpu, quick: bool) -> None:
        self.ops = ops
        self.device = ops._device
        self.repeats = 20 if quick else 60
        self.budget = 128 << 20  # bytes of weights: no cache holds them, and one pass is short
        self.buffer = np.ones(self.budget, np.uint8)
        self.rng = np.random.default_rng(0)

    def beside(self, run: Callable[[], object], ceiling: Callable[[], object]) -> tuple[float, float]:
        """The shortest runs, in seconds, of two things done in turn: both see the same machine."""
        run()
        ceiling()
        pairs = [(clock(run), clock(ceiling)) for _ in range(self.repeats)]
        return min(a for a, _ in pairs), min(b for _, b in pairs)

    def read(self) -> None:
        self.device.read_all(self.buffer)

    def multiply(self, dtype: DType) -> float:
        """Multiplies and adds in registers; returns how many floating-point operations, of all threads."""
        return self.ops.multiply_all(dtype, 100_000)

    def against_reading(self, what: str, num_bytes: int, run: Callable[[], object]) -> dict[str, object]:
        seconds, ceiling = self.beside(run, self.read)
        rate, limit = num_bytes / seconds / 1e9, self.budget / ceiling / 1e9
        return {"what": what, "ms": seconds * 1e3, "GB/s": rate, "ceiling": limit, "of": rate / limit}

    def against_peak(self, what: str, flops: float, dtype: DType, run: Callable[[], object]) -> dict[str, object]:
        seconds, ceiling = self.beside(run, lambda: self.multiply(dtype))
        rate, limit = flops / seconds / 1e9, self.multiply(dtype) / ceiling / 1e9
        return {"what": what, "ms": seconds * 1e3, "GFLOP/s": rate, "ceiling": limit, "of": rate / limit}

    def rows(self, count: int, size: int) -> np.ndarray:
        return self.rng.standard_normal((count, size), dtype=np.float32)

    def packed(self, n: int, k: int, dtype: DType) -> Linear:
        weight = Packed.empty(n, k, dtype)
        if weight.is_quantised:  # any code, and scales that are small numbers
            weight.data[...] = self.rng.integers(0x20, 0x30, weight.data.size, dtype=np.uint8).reshape(
                weight.data.shape
            )
            return self.ops.bind(Linear(weight))
        bits = self.rng.integers(0x3C00, 0x3D00, weight.data.size, dtype=np.uint16)
        if dtype == "bfloat16":
            weight.data[...] = bits.reshape(weight.data.shape)
        else:
            weight.data[...] = (bits.astype(np.uint32) << 16).view(np.float32).reshape(weight.data.shape)
        return self.ops.bind(Linear(weight))

    def products(self, dtype: DType) -> list[dict[str, object]]:
        k = 2048
        n = 16 * (self.budget // Packed.empty(16, k, dtype).num_bytes)
        weight, found = self.packed(n, k, dtype), []
        num_bytes = weight.weight.num_bytes
        for count in (1, 4, 8):
            x, out = self.rows(count, k), np.empty((count, n), np.float32)
            run = partial(self.device.linear, x, weight.native, out)
            found.append(self.against_reading(f"{dtype} product, {count} rows", num_bytes, run))
        for n, k in ((3072, 1024), (2048, 2048), (1024, 3072), (512, 8192)):
            weight, x, out = self.packed(n, k, dtype), self.rows(512, k), np.empty((512, n), np.float32)
            run = partial(self.device.linear, x, weight.native, out)
            found.append(self.against_peak(f"{dtype} product, 512 rows, {n} x {k}", 1024 * n * k, dtype, run))
        return found

    def attention(self, dtype: DType) -> list[dict[str, object]]:
        found = []
        heads, kv_heads, dim, context, layers = 32, 8, 128, 4096, 4
        blocks = context // 16
        kv = self.ops.bind(PagedKV.empty(layers, blocks, kv_heads, dim, 16, dtype))
        kv.keys[...] = 1 if dtype == "float32" else 0x3F80
        kv.values[...] = kv.keys.reshape(-1)[0]
        qkv, out = self.packed((heads + 2 * kv_heads) * dim, 32, dtype), self.packed(32, heads * dim, dtype)
        record = self.ops.bind(Attention(qkv, out, heads, kv_heads, dim, 0, 1 / math.sqrt(dim)))
        table = self.rng.permutation(blocks).astype(np.int32)[None]
        for count in (1, 64):
            positions = np.arange(context - count, context, dtype=np.int32)
            rows = self.ops.bind_rows(Rows(positions, np.array([0, count], np.int32), table, None, None))
            q, mixed = self.rows(count, heads * dim), np.empty((count, heads * dim), np.float32)

            def run(q: np.ndarray = q, rows: Rows = rows, mixed: np.ndarray = mixed) -> None:
                for layer in range(layers):
                    self.device.attend(q, kv.native, layer, rows.native, record.native, mixed)

            what = f"{dtype} attention, {count} rows at {context}"
            if count == 1:
                found.append(self.against_reading(what, kv.num_bytes, run))
            else:
                flops = 4 * sum(range(context - count + 1, context + 1)) * heads * dim * layers
                found.append(self.against_peak(what, flops, "float32", run))
        return found

    def calls(self) -> list[dict[str, object]]:
        """Microseconds of a call with next to no work, the median of many."""
        weight, x = self.packed(16, 16, "float32"), self.rows(1, 16)
        norm = self.ops.bind(Norm(np.ones(16, np.float32), None, 1e-5, "rms"))

        def cost(run: Callable[[], object]) -> float:
            return median(best_of(lambda: [run() for _ in range(1000)], 3) for _ in range(5)) * 1e3

        return [
            {"what": "call: norm", "us": cost(lambda: self.ops.norm(x, norm))},
            {"what": "call: add", "us": cost(lambda: self.ops.add(x, x))},
            {"what": "call: linear", "us": cost(lambda: self.ops.linear(x, weight))},
        ]

    def choosing(self) -> list[dict[str, object]]:
        logits = self.rows(1, 150_000)[0] * np.float32(3)
        kinds = {
            "argmax": lambda: self.ops.argmax(logits[None]),
            "logsumexp": lambda: self.ops.logsumexp(logits[None]),
            "top 20": lambda: self.ops.top_k(logits, 20),
            "temperature": lambda: self.ops.choose(logits, 0.8, len(logits), 1.0, 0.0, 0.5),
            "temperature, top_k 50": lambda: self.ops.choose(logits, 0.8, 50, 1.0, 0.0, 0.5),
            "temperature, top_p 0.95": lambda: self.ops.choose(logits, 0.8, len(logits), 0.95, 0.0, 0.5),
        }
        return [{"what": f"150k: {name}", "us": best_of(run, 20) * 1e6} for name, run in kinds.items()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, help="default: the cores this process may run on")
    parser.add_argument("--isa", help="default: the best there is")
    parser.add_argument("--quick", action="store_true", help="smaller and fewer")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    options = parser.parse_args()
    ops = Cpu(options.threads, options.isa)
    bench = Bench(ops, options.quick)
    lines: list[dict[str, object]] = []
    for dtype in DTYPES:
        lines += bench.products(dtype)
    for dtype in CACHED:
        lines += bench.attention(dtype)
    lines += bench.calls() + bench.choosing()
    if options.json:
        print(json.dumps({"contract": ops.contract_id, "threads": ops.num_threads, "lines": lines}))
        return
    print(f"{ops.contract_id}, {ops.num_threads} threads")
    for line in lines:
        figures = "   ".join(
            f"{value:6.0%}" if key == "of" else f"{value:9.2f} {key}"
            for key, value in line.items()
            if key != "what" and isinstance(value, float)
        )
        print(f"{line['what']:36}{figures}")


if __name__ == "__main__":
    main()
