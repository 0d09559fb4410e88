"""The contract of attention and its cache: head sizes x number formats x instruction sets, as test_ops.py has it.

*Meaning*: what a backend attends agrees with Reference. *Bits*: a row's bytes are the same alone and in any batch, for
any number of threads, chunks and placement of blocks, in a cache that starts out full of rubbish.
"""

from collections import Counter
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from backends import BACKENDS, NATIVE, error, matrix, normal, ops_of, thread_counts

from openwork.ops.packed import Packed, bfloat16_round
from openwork.ops.paged import PagedKV, Rows
from openwork.ops.reference import Reference
from openwork.ops.weights import Attention, Linear, Norm

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


LENGTH = 560  # more than two splits


@cache
def block_case(number, dtype, length):
    """Weights, a block table and rows, and what Reference makes of the rows."""
    hidden, heads, kv_heads, dim, how = ATTENTIONS[number]
    rng = np.random.default_rng(12)
    w = attention(rng, hidden, heads, kv_heads, dim, WEIGHTS[dtype], **how)
    table = rng.permutation(-(-length // 16)).astype(np.int32)[None]
    x = normal(rng, length, hidden)
    return w, table, x, run_whole(Reference(), w, table, length, 16, dtype, x, [length])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("number", range(len(ATTENTIONS)))
@pytest.mark.parametrize("backend", BACKENDS)
def test_attention_block(backend, number, dtype):
    length = 120 if backend == "reference" else LENGTH
    w, table, x, wanted = block_case(number, dtype, length)
    whole = run_whole(ops_of(backend), w, table, length, 16, dtype, x, [length])
    assert error(whole, wanted) < ROUNDED[dtype]
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


HEADS = [  # kv_heads, group, head_dim, block_size, window, softcap
    (2, 1, 1, 16, None, None),
    (1, 2, 20, 32, 37, None),
    (2, 4, 33, 64, 256, 3.0),
    (1, 8, 64, 16, 301, None),
    (1, 3, 80, 48, None, 30.0),
    (2, 5, 128, 32, None, None),
    (1, 7, 128, 64, 1, None),
    (1, 1, 256, 16, 255, None),
]


def heads_only(kv_heads, group, dim, window, softcap):
    """Attention whose projections nobody calls."""
    heads = kv_heads * group
    qkv, out = (
        Linear(Packed.empty((heads + 2 * kv_heads) * dim, 1, "float32")),
        Linear(Packed.empty(1, heads * dim, "float32")),
    )
    return Attention(qkv, out, heads, kv_heads, dim, 0, dim**-0.5, softcap, window)


def written(ops, table, k, v, block_size, dtype):
    """A cache of rubbish in which one sequence wrote its keys and values, bound."""
    kv = ops.bind(rubbish(PagedKV.empty(1, int(table.max()) + 1, k.shape[1], k.shape[2], block_size, dtype)))
    ops.write(kv, 0, k, v, step(ops, table, 0, (0, 0, len(k))))
    return kv


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", HEADS)
@pytest.mark.parametrize("backend", NATIVE)
def test_heads_of_every_size(backend, shape, dtype):
    kv_heads, group, dim, block_size, window, softcap = shape
    rng, length = np.random.default_rng(15), 535  # odd, and beyond two splits
    w = heads_only(kv_heads, group, dim, window, softcap)
    table = rng.permutation(-(-length // block_size)).astype(np.int32)[None]
    q, k, v = (normal(rng, length, h, dim) for h in (kv_heads * group, kv_heads, kv_heads))
    plain = written(Reference(), table, k, v, block_size, dtype)
    kv = written(ops_of(backend), table, k, v, block_size, dtype)
    places = np.repeat(table[0], block_size)[:length], np.arange(length) % block_size
    for got, wanted in zip(kv.take(0, *places), plain.take(0, *places), strict=True):
        assert got.tobytes() == wanted.tobytes()
    whole = ops_of(backend).attend(q, kv, 0, step(ops_of(backend), table, 0, (0, 0, length)), w)
    for row in (0, 1, 2, 17, 36, 255, 256, 257, 302, 511, 534):
        wanted = Reference().attend(q[row : row + 1], plain, 0, step(Reference(), table, 0, (0, row, row + 1)), w)
        assert error(whole[row : row + 1], wanted) < SUMS[dtype], row
    for threads in (1, 2):
        ops = ops_of(backend, threads)
        for first, last in ((534, 535), (0, 1), (3, 12), (250, 261), (300, 352)):
            got = ops.attend(q[first:last], ops.bind(kv), 0, step(ops, table, 0, (0, first, last)), w)
            assert got.tobytes() == whole[first:last].tobytes(), (first, last, threads)


def alike(rng, num_blocks, block_size, longest):
    """Sequences some of which begin with the same blocks: (tables, runs), those of a step in any order.

    a b c d e f      the first n blocks of a line are another's; its rows lie behind them
    a b c g h
    a b c g i j
    """
    free = list(rng.permutation(num_blocks))
    lines, runs = [], []
    while len(free) > longest // block_size and len(lines) < 14:
        parent = lines[rng.integers(len(lines))] if lines and rng.random() < 0.8 else []
        kept = int(rng.integers(len(parent) + 1)) if rng.random() < 0.3 else len(parent) * 2 // 3
        own = int(rng.integers(1, max(2, longest // block_size - kept)))
        line = parent[:kept] + [free.pop() for _ in range(own)]
        first = block_size * kept + int(rng.integers(block_size * own))
        count = 1 if rng.random() < 0.6 else int(rng.integers(1, block_size * len(line) - first + 1))
        runs.append((len(lines), first, first + count))
        lines.append(line)
    tables = np.zeros((len(lines), max(map(len, lines))), np.int32)
    for place, line in enumerate(lines):
        tables[place, : len(line)] = line
    return tables, [runs[i] for i in rng.permutation(len(runs))]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", HEADS)
@pytest.mark.parametrize("backend", NATIVE)
def test_sequences_that_begin_alike_are_read_together_and_change_no_bit(backend, shape, dtype):
    kv_heads, group, dim, block_size, window, softcap = shape
    rng = np.random.default_rng(19)
    w = heads_only(kv_heads, group, dim, window, softcap)
    num_blocks, num_shared = 5000 // block_size, 0
    every = np.arange(num_blocks, dtype=np.int32)[None]
    k, v = (normal(rng, num_blocks * block_size, kv_heads, dim) for _ in range(2))
    kv = written(ops_of(backend), every, k, v, block_size, dtype)
    for _ in range(4):
        tables, runs = alike(rng, num_blocks, block_size, 1000)
        behind = {s: tables[s, : a // block_size].tolist() for s, a, _ in runs}
        heads = Counter(tuple(line[: 256 // block_size]) for line in behind.values() if len(line) >= 256 // block_size)
        num_shared += sum(heads.values()) - len(heads)
        q = normal(rng, sum(b - a for _, a, b in runs), kv_heads * group, dim)
        alone, at = [], 0
        for run in runs:
            size = run[2] - run[1]
            rows = step(ops_of(backend), tables, 0, run)
            alone.append(ops_of(backend).attend(q[at : at + size], kv, 0, rows, w))
            at += size
        for threads in thread_counts(backend):
            ops = ops_of(backend, threads)
            together = ops.attend(q, ops.bind(kv), 0, step(ops, tables, 0, *runs), w)
            assert together.tobytes() == np.concatenate(alone).tobytes(), threads
    assert num_shared > 4  # sequences whose first split, if none further, was another's


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("backend", NATIVE)
def test_what_a_row_does_not_see_may_hold_anything(backend, dtype):
    rng, ops = np.random.default_rng(16), ops_of(backend)
    w, table = heads_only(2, 2, 36, 21, None), np.arange(20, dtype=np.int32)[None]
    q, k, v = normal(rng, 300, 4, 36), normal(rng, 300, 2, 36), normal(rng, 300, 2, 36)
    for row in (40, 41, 254, 255, 256, 275, 276, 277):
        at = step(ops, table, 0, (0, row, row + 1))
        clean = ops.attend(q[row : row + 1], written(ops, table, k, v, 16, dtype), 0, at, w)
        for strange in (np.nan, np.inf):
            other_k, other_v = k.copy(), v.copy()
            for x in (other_k, other_v):
                x[: row - 20] = strange  # before the window
                x[row + 1 :] = strange  # of rows that come later
            kv = written(ops, table, other_k, other_v, 16, dtype)
            assert ops.attend(q[row : row + 1], kv, 0, at, w).tobytes() == clean.tobytes(), (row, strange)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("backend", NATIVE)
def test_what_is_not_finite_shows(backend, dtype):
    rng, ops = np.random.default_rng(17), ops_of(backend)
    w, table = heads_only(1, 1, 40, None, None), np.arange(20, dtype=np.int32)[None]
    rows = step(ops, table, 0, (0, 299, 300))
    for which in range(3):
        for place in (0, 150, 299):
            arrays = [normal(rng, 300, 1, 40) for _ in range(3)]
            arrays[which][place, 0, 7] = np.nan
            q, k, v = arrays
            out = ops.attend(q[299:], written(ops, table, k, v, 16, dtype), 0, rows, w)
            shown = which != 0 or place == 299  # of queries only the last is asked
            assert np.isnan(out).any() == shown, (which, place)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("backend", NATIVE)
def test_zeros_and_outliers(backend, dtype):
    rng, ops = np.random.default_rng(18), ops_of(backend)
    w, table = heads_only(1, 2, 24, None, None), np.arange(4, dtype=np.int32)[None]
    rows = step(ops, table, 0, (0, 0, 50))
    q, k, v = normal(rng, 50, 2, 24), normal(rng, 50, 1, 24), normal(rng, 50, 1, 24)
    nothing = np.zeros_like(v)
    assert not ops.attend(q, written(ops, table, k, nothing, 16, dtype), 0, rows, w).any()
    mean = ops.attend(q * 0, written(ops, table, k, v, 16, dtype), 0, rows, w).reshape(50, 2, 24)
    assert error(mean[49, 1], v[:, 0].mean(0)) < {"float32": 1e-6, "bfloat16": 1e-2, "int8": 2e-2}[dtype]
    for huge in (k * 0, np.full_like(k, 1e-38), k * np.float32(1e30)):
        got = ops.attend(q, written(ops, table, huge, v, 16, dtype), 0, rows, w)
        plain = written(Reference(), table, huge, v, 16, dtype)
        assert error(got, Reference().attend(q, plain, 0, step(Reference(), table, 0, (0, 0, 50)), w)) < SUMS[dtype]
    no_rows = step(ops, table, 0, (0, 7, 7))
    assert ops.attend(q[:0], written(ops, table, k, v, 16, dtype), 0, no_rows, w).shape == (0, 48)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("head_dim", [1, 20, 33, 64, 128])
def test_the_size_of_a_block(head_dim, dtype):
    kv = PagedKV.empty(3, 5, 2, head_dim, 48, dtype)
    assert kv.num_bytes == 5 * PagedKV.block_bytes(3, 2, head_dim, 48, dtype)
    assert not kv.keys.any() and not kv.values.any()
    assert kv.keys.ctypes.data % 64 == kv.values.ctypes.data % 64 == 0
    with pytest.raises(ValueError, match="multiple of 16"):
        PagedKV.empty(3, 5, 2, head_dim, 24, dtype)


@pytest.mark.skipif(not NATIVE, reason="the native core is not installed")
@pytest.mark.parametrize("dtype", DTYPES)
def test_arrays_of_another_shape_are_refused(dtype):
    ops, kv = ops_of(NATIVE[0]), PagedKV.empty(2, 3, 2, 20, 32, dtype)
    ops.bind(kv)
    short, strange = kv.values[..., :-1].copy(), kv.values.astype(np.int16 if dtype == "bfloat16" else np.float16)
    for change in (
        {"head_dim": 40},
        {"block_size": 16},
        {"block_size": 24},
        {"keys": kv.keys[:1]},
        {"keys": kv.keys[:, :2].copy()},
        {"keys": kv.keys.reshape(-1)},
        {"values": short},
        {"values": strange},
        {"values": kv.values[:, :, 0].copy()},
        {"keys": kv.keys.view(np.uint8), "values": kv.values.view(np.uint8), "head_dim": 21},
    ):
        with pytest.raises(ValueError, match=r"keys|values|block_size|head"):
            ops.bind(replace(kv, **change))
