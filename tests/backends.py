"""What tests that compare backends share: the backends of this machine, random arrays, and what an error is."""

from functools import cache

import numpy as np

from openwork.ops.cpu import Cpu, available
from openwork.ops.packed import Packed
from openwork.ops.reference import Reference
from openwork.ops.weights import Attention, Linear, Mlp, Norm

NATIVE = available()
BACKENDS = ("reference", *NATIVE)
# The kind of cache that goes with a kind of weights.
CACHES = {"float32": "float32", "bfloat16": "bfloat16", "int8": "int8", "int8-channel": "bfloat16", "int4": "int8"}


@cache
def ops_of(backend, threads=1):
    return Reference() if backend == "reference" else Cpu(threads, isa=backend)


def thread_counts(backend):
    return (1,) if backend == "reference" else (1, 2, 3)


def error(got, wanted):
    """Root mean square of the difference over that of what was wanted."""
    got, wanted = np.asarray(got, np.float64), np.asarray(wanted, np.float64)
    assert got.shape == wanted.shape
    return np.sqrt(np.square(got - wanted).mean()) / (np.sqrt(np.square(wanted).mean()) + 1e-30)


def normal(rng, *shape):
    return rng.standard_normal(shape, dtype=np.float32)


def matrix(rng, n, k, dtype, bias=False):
    packed = Packed.empty(n, k, dtype)
    packed.put(0, normal(rng, n, k) / np.float32(np.sqrt(k)))
    return Linear(packed, normal(rng, n) if bias else None)


def parts(rng, hidden, dtype, kind="rms"):
    """A layer: norm, attention, norm, feed-forward."""
    norms = [Norm(normal(rng, hidden), normal(rng, hidden) if kind == "layer" else None, 1e-5, kind) for _ in range(2)]
    qkv, out = matrix(rng, 8 * 32, hidden, dtype, bias=True), matrix(rng, hidden, 4 * 32, dtype)
    attention = Attention(qkv, out, num_heads=4, num_kv_heads=2, head_dim=32, rotary_dim=32, scale=0.2)
    mlp = Mlp(matrix(rng, 2 * 640, hidden, dtype), matrix(rng, hidden, 640, dtype, bias=True), "silu", gated=True)
    return norms[0], attention, norms[1], mlp
