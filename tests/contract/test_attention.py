"""The contract of attention and its cache: head sizes x number formats x instruction sets, as test_ops.py has it.

*Meaning*: what a backend attends agrees with Reference. *Bits*: a row's bytes are the same alone and in any batch, for
any number of threads, chunks and placement of blocks, in a cache that starts out full of rubbish.
"""

import numpy as np
import pytest
from backends import BACKENDS, NATIVE, error, matrix, normal, ops_of, thread_counts

from openwork.ops.packed import bfloat16_round
from openwork.ops.paged import PagedKV, Rows
from openwork.ops.reference import Reference
from openwork.ops.weights import Attention, Norm

DTYPES = ("float32", "bfloat16", "int8")
WEIGHTS = {"float32": "float32", "bfloat16": "bfloat16", "int8": "float32"}  # of the projections beside such a cache
# Root mean square of the difference over that of the result: sums in another order; a rounding that falls the other way
# in a weight (int8: one of 14 bits); and in a cached number or, bfloat16, in a projection's input.
SUMS = {"float32": 3e-6, "bfloat16": 1e-3, "int8": 1e-4}
ROUNDED = {"float32": 3e-6, "bfloat16": 4e-3, "int8": 1e-2}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("backend", NATIVE)
def test_copy_blocks_one_after_the_other(backend, dtype):
    rng = np.random.default_rng(8)
    one, two = (PagedKV.empty(3, 6, 2, 20, 16, dtype) for _ in range(2))
    for array, other in ((one.keys, two.keys), (one.values, two.values)):
        array[...] = rng.integers(0, 250, array.shape)
        other[...] = array
    sources, targets = [0, 1, 3, 3, 5], [1, 2, 4, 3, 0]
    ops_of(backend, 2).copy_blocks(ops_of(backend, 2).bind(one), sources, targets)
    Reference().copy_blocks(two, sources, targets)
    assert one.keys.tobytes() == two.keys.tobytes() and one.values.tobytes() == two.values.tobytes()


def attention(rng, hidden, heads, kv_heads, dim, dtype, rotary=None, norms=False, **how):
    head_norm = Norm(normal(rng, dim), None, 1e-6, "rms") if norms else None
    return Attention(
        qkv=matrix(rng, (heads + 2 * kv_heads) * dim, hidden, dtype, bias=True),
        out=matrix(rng, hidden, heads * dim, dtype),
        num_heads=heads,
        num_kv_heads=kv_heads,
        head_dim=dim,
        rotary_dim=dim if rotary is None else rotary,
        scale=dim**-0.5,
        q_norm=head_norm,
        k_norm=head_norm,
        **how,
    )


def step(ops, table, rotary, *runs):
    """Rows of one step; a run is (sequence, first position, last position + 1)."""
    positions = np.concatenate([np.arange(a, b, dtype=np.int32) for _, a, b in runs])
    starts = np.cumsum([0, *(b - a for _, a, b in runs)], dtype=np.int32)
    tables = np.stack([table[s] for s, _, _ in runs])
    angles = positions[:, None] * np.geomspace(1, 0.01, rotary // 2)[None]
    cos, sin = (f(angles).astype(np.float32) for f in (np.cos, np.sin)) if rotary else (None, None)
    return ops.bind_rows(Rows(positions, starts, tables, cos, sin))


def rubbish(kv):
    """What other sequences left behind must not count."""
    for array in (kv.keys, kv.values):
        array.view(np.uint8)[...] = 0xFF  # a NaN in every format, and in the scales of int8
    return kv


ATTENTIONS = [  # hidden, heads, kv_heads, head_dim, and the rest
    (24, 2, 2, 8, {}),
    (40, 6, 2, 20, {"rotary": 12, "softcap": 20.0, "norms": True}),
    (33, 4, 1, 80, {"window": 70}),
    (64, 5, 5, 96, {"window": 300, "softcap": 5.0}),
    (16, 28, 1, 12, {"rotary": 0}),
    (32, 3, 3, 256, {"norms": True}),
]


def run_whole(ops, w, table, length, block_size, dtype, x, chunks):
    """The rows of one sequence, cut into chunks, in a cache of rubbish."""
    kv = ops.bind(rubbish(PagedKV.empty(2, int(table.max()) + 2, w.num_kv_heads, w.head_dim, block_size, dtype)))
    bound, out, at = ops.bind(w), [], 0
    for size in chunks:
        rows = step(ops, table, w.rotary_dim, (0, at, at + size))
        out.append(ops.attention_block(x[at : at + size], bound, rows, kv, 1))
        at += size
    assert at == length
    return np.concatenate(out)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", ATTENTIONS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_attention_block(backend, shape, dtype):
    hidden, heads, kv_heads, dim, how = shape
    rng = np.random.default_rng(12)
    w = attention(rng, hidden, heads, kv_heads, dim, WEIGHTS[dtype], **how)
    length = 120 if backend == "reference" else 560  # more than two splits
    table = rng.permutation(-(-length // 16)).astype(np.int32)[None]
    x = normal(rng, length, hidden)
    whole = run_whole(ops_of(backend), w, table, length, 16, dtype, x, [length])
    if backend != "reference":
        tail = slice(0, length, 37)
        wanted = run_whole(Reference(), w, table, length, 16, dtype, x, [length])
        assert error(whole[tail], wanted[tail]) < ROUNDED[dtype]
    in_order = np.arange(table.size, dtype=np.int32)[None]
    chunks = [1, 1, 5, 25, 8]
    chunks += [1] * 3 + [length - sum(chunks) - 6] + [1] * 3
    for threads in thread_counts(backend):
        ops = ops_of(backend, threads)
        assert run_whole(ops, w, in_order, length, 16, dtype, x, chunks).tobytes() == whole.tobytes()
        wide = in_order[:, : -(-length // 48)]
        assert run_whole(ops, w, wide, length, 48, dtype, x, [length]).tobytes() == whole.tobytes()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("backend", BACKENDS)
def test_sequences_in_one_step_do_not_touch_each_other(backend, dtype):
    rng = np.random.default_rng(13)
    w = attention(rng, 24, 4, 2, 16, WEIGHTS[dtype])
    lengths = (40, 3, 18) if backend == "reference" else (600, 3, 290)
    tables = rng.permutation(3 * 40).astype(np.int32).reshape(3, 40)
    xs = [normal(rng, n, 24) for n in lengths]
    alone = [run_whole(ops_of(backend), w, tables[s : s + 1], n, 16, dtype, xs[s], [n]) for s, n in enumerate(lengths)]
    for threads in thread_counts(backend):
        ops = ops_of(backend, threads)
        bound = ops.bind(w)
        kv = ops.bind(rubbish(PagedKV.empty(2, 120, 2, 16, 16, dtype)))
        runs = [(s, 0, n - 2) for s, n in enumerate(lengths)], [(s, n - 2, n - 1) for s, n in enumerate(lengths)]
        for step_runs in (*runs, [(2, lengths[2] - 1, lengths[2]), (0, lengths[0] - 1, lengths[0])]):
            x = np.concatenate([xs[s][a:b] for s, a, b in step_runs])
            wanted = np.concatenate([alone[s][a:b] for s, a, b in step_runs])
            rows = step(ops, tables, w.rotary_dim, *step_runs)
            assert ops.attention_block(x, bound, rows, kv, 0).tobytes() == wanted.tobytes()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("backend", NATIVE)
def test_the_parts_of_attention(backend, dtype):
    rng = np.random.default_rng(14)
    w = attention(rng, 16, 6, 3, 18, WEIGHTS[dtype], rotary=10)
    table = rng.permutation(20).astype(np.int32)[None]
    ops, plain = ops_of(backend, 2), Reference()
    one, two = (rubbish(PagedKV.empty(2, 20, 3, 18, 16, dtype)) for _ in range(2))
    q, k, v = normal(rng, 300, 6, 18), normal(rng, 300, 3, 18), normal(rng, 300, 3, 18)
    rows = step(ops, table, 10, (0, 0, 300))
    assert error(ops.rotate(q, rows, 10), plain.rotate(q, rows, 10)) < SUMS["float32"]
    ops.write(ops.bind(one), 1, k, v, rows)
    plain.write(two, 1, k, v, rows)
    for got, wanted in zip(plain.read(one, 1, table[0], 0, 300), plain.read(two, 1, table[0], 0, 300), strict=True):
        assert got.tobytes() == wanted.tobytes()
    if dtype == "bfloat16":
        q = bfloat16_round(q)
    mixed = ops.attend(q, ops.bind(one), 1, rows, ops.bind(w))
    assert error(mixed, plain.attend(q, two, 1, rows, w)) < SUMS[dtype]
    few = step(ops, table, 10, (0, 299, 300))  # one row, two splits, three kv heads: the splits are shared out
    assert ops.attend(q[299:], ops.bind(one), 1, few, ops.bind(w)).tobytes() == mixed[299:].tobytes()
