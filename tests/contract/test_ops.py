"""One contract for all backends: every operation x odd shapes x number formats x instruction sets.

Two laws. *Meaning*: a native operation agrees with Reference, by the error relative to the size of the result.
*Bits*: a row's bytes are the same alone and in any batch, for any number of threads, chunks and placement of blocks.
The second law holds for Reference too. Instruction sets this processor lacks are not tested here.
"""

import numpy as np
import pytest
from backends import BACKENDS, NATIVE, error, matrix, normal, ops_of, thread_counts

from openwork.ops.cpu import Cpu
from openwork.ops.packed import Packed
from openwork.ops.reference import Reference
from openwork.ops.weights import Linear, Mlp, Norm

DTYPES = ("float32", "bfloat16")  # of keys and values
WEIGHTS = (*DTYPES, "int8", "int8-channel", "int4")
# Root mean square of the difference over that of the result. A product differs by the order of its sums only. A block
# of products rounds intermediate rows to bfloat16, or to 255 steps, where a difference in the last bit may become one
# in the eighth.
SUMS = 3e-6
ROUNDED = {"float32": SUMS, "bfloat16": 2e-3, "int8": 5e-3, "int8-channel": 5e-3, "int4": 5e-3}


def both(backend, record):
    return ops_of(backend).bind(record), Reference().bind(record)


# -- rows --------------------------------------------------------------------------------------------------------------

SHAPES = [(1, 1, 1), (1, 37, 33), (2, 16, 64), (5, 100, 7), (8, 257, 96), (9, 31, 130), (23, 515, 65), (70, 129, 300)]


@pytest.mark.parametrize("dtype", WEIGHTS)
@pytest.mark.parametrize("backend", NATIVE)
def test_linear_and_logits(backend, dtype):
    rng = np.random.default_rng(1)
    for rows, n, k in SHAPES:
        x, (native, plain) = normal(rng, rows, k), both(backend, matrix(rng, n, k, dtype, bias=rows % 2 == 0))
        wanted = Reference().linear(x, plain)
        assert error(ops_of(backend).linear(x, native), wanted) < SUMS, (rows, n, k)
        for cap in (None, 0.7):
            assert error(ops_of(backend).logits(x, native, cap), Reference().logits(x, plain, cap)) < SUMS


@pytest.mark.parametrize("dtype", WEIGHTS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_row_of_a_product_is_the_same_in_any_batch(backend, dtype):
    rng = np.random.default_rng(2)
    for n, k in ((37, 33), (530, 200), (64, 4200)):
        w, x = matrix(rng, n, k, dtype, bias=True), normal(rng, 45, k)
        alone = ops_of(backend).bind(w)
        wanted = np.concatenate([ops_of(backend).linear(x[i : i + 1], alone) for i in range(len(x))])
        for threads in thread_counts(backend):
            ops = ops_of(backend, threads)
            bound = ops.bind(w)
            for begin, end in (
                (0, 45),
                (0, 2),
                (1, 4),
                (3, 7),
                (5, 10),
                (4, 10),
                (7, 14),
                (11, 19),
                (20, 29),
                (29, 43),
            ):
                assert ops.linear(x[begin:end], bound).tobytes() == wanted[begin:end].tobytes(), (n, k, begin, threads)


QUANTISED = WEIGHTS[2:]


@pytest.mark.parametrize("dtype", QUANTISED)
@pytest.mark.parametrize("backend", BACKENDS)
def test_rows_that_are_hard_to_quantise(backend, dtype):
    rng = np.random.default_rng(21)
    w, x = matrix(rng, 50, 150, dtype), normal(rng, 12, 150)
    x[0] = 0
    x[1, :40], x[1, 40:] = 0, 1e-35  # codes of nothing
    x[2], x[2, 99] = 1e-3, 1e20  # an outlier hides its group, no other
    x[3, 149], x[4, 31], x[5, 64] = np.nan, np.inf, -np.inf
    x[6] = 1e-42  # subnormal
    x[7] *= 1e30
    ops = ops_of(backend)
    out = ops.linear(x, ops.bind(w))
    assert (out[[0, 1, 6]] == 0).all()
    assert np.isnan(out[3:6]).all() and np.isfinite(np.delete(out, (3, 4, 5), axis=0)).all()
    for row in (2, 7, 8, 9, 10, 11):
        assert error(out[row], w.weight.unpack().astype(np.float64) @ x[row]) < 0.02


@pytest.mark.parametrize("dtype", QUANTISED)
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_weight_that_is_no_number_shows(backend, dtype):
    rng = np.random.default_rng(22)
    source = normal(rng, 20, 70)
    source[3, 69], source[18, 0] = np.inf, np.nan
    packed = Packed.empty(20, 70, dtype)
    ops_of(backend).pack_rows(packed, 0, source)
    w = ops_of(backend).bind(Linear(packed))
    out = ops_of(backend).linear(normal(rng, 11, 70), w)
    assert np.isnan(out[:, [3, 18]]).all() and np.isfinite(np.delete(out, (3, 18), axis=1)).all()
    assert np.isnan(ops_of(backend).embed(w, np.array([18, 3]))).any(axis=1).all()


@pytest.mark.parametrize("dtype", WEIGHTS)
@pytest.mark.parametrize("backend", NATIVE)
def test_what_was_in_scratch_memory_before_does_not_count(backend, dtype):
    rng = np.random.default_rng(23)
    ops = Cpu(1, isa=backend)
    poison, w = ops.bind(matrix(rng, 70, 400, dtype)), ops.bind(matrix(rng, 21, 45, dtype))
    mlp = ops.bind(Mlp(matrix(rng, 90, 45, dtype), matrix(rng, 45, 45, dtype), "silu", True))
    x, bad = normal(rng, 11, 45), np.full((11, 400), np.nan, np.float32)
    fresh = Cpu(1, isa=backend)
    wanted, whole = fresh.linear(x, w), fresh.mlp_block(x, mlp)
    assert np.isnan(ops.linear(bad, poison)).all()  # leaves NaN scales where the next rows are prepared
    assert ops.linear(x, w).tobytes() == wanted.tobytes()
    assert np.isnan(ops.mlp_block(np.full((11, 45), np.nan, np.float32), mlp)).all()
    assert ops.mlp_block(x, mlp).tobytes() == whole.tobytes()


@pytest.mark.parametrize("dtype", QUANTISED)
@pytest.mark.parametrize("backend", NATIVE)
def test_the_largest_sums_of_a_group_are_exact(backend, dtype):
    n, k = 33, 320
    packed = Packed.empty(n, k, dtype)
    packed.put(0, np.full((n, k), -1, np.float32))
    ops = ops_of(backend)
    out = ops.linear(np.full((9, k), -1, np.float32), ops.bind(Linear(packed)))
    assert error(out, np.full((9, n), k)) < 2e-3 and (out == out[0, 0]).all()


@pytest.mark.parametrize("kind", ["rms", "layer"])
@pytest.mark.parametrize("backend", NATIVE)
def test_norm(backend, kind):
    rng = np.random.default_rng(3)
    for size in (1, 8, 15, 16, 17, 64, 65, 200, 1000):
        w = Norm(normal(rng, size), normal(rng, size) if kind == "layer" else None, 1e-5, kind)
        native, plain = both(backend, w)
        x = normal(rng, 9, size) * 3 + 1
        out = ops_of(backend).norm(x, native)
        assert error(out, Reference().norm(x, plain)) < SUMS, size
        three = x[:6].reshape(2, 3, size)  # heads: the last axis counts
        assert ops_of(backend).norm(three, native).tobytes() == out[:6].tobytes()
        for threads in (2, 3):
            ops = ops_of(backend, threads)
            assert ops.norm(x, ops.bind(w)).tobytes() == out.tobytes()
            assert ops.norm(x[4:5], ops.bind(w)).tobytes() == out[4:5].tobytes()


@pytest.mark.parametrize("kind", ["silu", "gelu", "gelu_tanh", "relu"])
@pytest.mark.parametrize("backend", NATIVE)
def test_act(backend, kind):
    rng = np.random.default_rng(4)
    for size in (1, 15, 33, 40_000):
        x = normal(rng, 3, size) * 4
        out = ops_of(backend).act(x, kind)
        np.testing.assert_allclose(out, Reference().act(x, kind), rtol=1e-6, atol=1e-6)
        assert ops_of(backend, 3).act(x, kind).tobytes() == out.tobytes()
        assert ops_of(backend).act(x[1:2, size // 2 :], kind).tobytes() == out[1:2, size // 2 :].tobytes()


@pytest.mark.parametrize("dtype", WEIGHTS)
@pytest.mark.parametrize("backend", NATIVE)
def test_embed_and_add(backend, dtype):
    rng = np.random.default_rng(5)
    for n, k in ((3, 5), (50, 33), (1000, 64)):
        native, plain = both(backend, matrix(rng, n, k, dtype))
        for ids in (np.array([n - 1, 0, n // 2], np.int32), rng.integers(0, n, 40), np.empty(0, np.int32)):
            got = ops_of(backend).embed(native, ids, 1.5)
            assert got.tobytes() == Reference().embed(plain, ids, 1.5).tobytes()
    for size in (7, 100_001):
        x, y = normal(rng, 1, size), normal(rng, 1, size)
        for threads in (1, 2):
            total = x.copy()
            assert ops_of(backend, threads).add(total, y) is total
            assert total.tobytes() == (x + y).tobytes()


@pytest.mark.parametrize("activation", ["silu", "gelu", "gelu_tanh", "relu"])
@pytest.mark.parametrize("dtype", WEIGHTS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_mlp_block(backend, dtype, activation):
    rng = np.random.default_rng(6)
    for hidden, size, gated in ((33, 45, True), (64, 130, False), (48, 1100, True), (40, 192, True), (33, 128, False)):
        up = matrix(rng, 2 * size if gated else size, hidden, dtype, bias=not gated)
        w = Mlp(up, matrix(rng, hidden, size, dtype, bias=True), activation, gated)
        native, plain = both(backend, w)
        x = normal(rng, 19, hidden)
        out = ops_of(backend).mlp_block(x, native)
        assert error(out, Reference().mlp_block(x, plain)) < ROUNDED[dtype]
        for threads in thread_counts(backend):
            ops = ops_of(backend, threads)
            bound = ops.bind(w)
            for begin, end in ((0, 19), (3, 4), (5, 11), (9, 18)):
                assert ops.mlp_block(x[begin:end], bound).tobytes() == out[begin:end].tobytes()


# -- packing and blocks ------------------------------------------------------------------------------------------------


def sources(rng, rows, k):
    whole = normal(rng, rows, k)
    yield whole
    yield whole.astype(np.float16)
    yield (whole.view(np.uint32) >> 16).astype(np.uint16)  # bfloat16 bits
    yield normal(rng, rows * 2, k + 5)[::2, 3 : 3 + k]
    yield normal(rng, k, rows).T  # the (k, n) matrices of some checkpoints
    yield whole[::-1]
    yield np.float16([[np.inf, -np.inf, np.nan, 6e-8, -0.0, 6e-5, 65504]]).repeat(rows, 0).repeat(-(-k // 7), 1)[:, :k]


@pytest.mark.parametrize("dtype", WEIGHTS)
@pytest.mark.parametrize("backend", NATIVE)
def test_pack_rows(backend, dtype):
    rng = np.random.default_rng(7)
    for n, k, row, rows in ((40, 33, 0, 40), (40, 33, 5, 20), (17, 8, 16, 1), (300, 129, 30, 255), (16, 1, 3, 0)):
        for source in sources(rng, rows, k):
            got, wanted = Packed.empty(n, k, dtype), Packed.empty(n, k, dtype)
            ops_of(backend, 2).pack_rows(got, row, source)
            Reference().pack_rows(wanted, row, source)
            assert got.data.tobytes() == wanted.data.tobytes(), (n, k, row, source.dtype, source.strides)


# -- the head ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", NATIVE)
def test_head_over_rows(backend):
    rng = np.random.default_rng(9)
    for vocab in (1, 15, 16, 17, 1000, 50_257):
        logits = normal(rng, 3, vocab) * 5
        logits[1, vocab // 2] = logits[1, vocab // 3] = 40
        wanted = Reference().logsumexp(logits)
        for threads in (1, 2):
            ops = ops_of(backend, threads)
            np.testing.assert_allclose(ops.logsumexp(logits), wanted, rtol=1e-13, atol=1e-13)
            assert ops.logsumexp(logits[1:2]) == ops.logsumexp(logits)[1]
            assert ops.argmax(logits).tolist() == Reference().argmax(logits).tolist()
        for strange, finite in ((np.nan, False), (np.inf, False), (-np.inf, vocab > 1)):
            odd = logits.copy()
            odd[2, vocab - 1] = strange
            assert ops_of(backend).is_finite(odd).tolist() == [True, True, finite]


@pytest.mark.parametrize("backend", NATIVE)
def test_order_and_rank(backend):
    ops, rng = ops_of(backend), np.random.default_rng(10)
    for vocab in (1, 2, 40, 3000):
        for logits in (normal(rng, vocab), np.round(normal(rng, vocab)), np.arange(vocab, dtype=np.float32)):
            logits[vocab // 2] = -0.0
            for k in (1, 2, 7, vocab - 1, vocab, vocab + 3):
                assert ops.top_k(logits, k).tolist() == Reference().top_k(logits, k).tolist()
            order = Reference().top_k(logits, vocab).tolist()
            for place in {0, vocab // 2, vocab - 1}:
                assert ops.rank(logits, order[place]) == Reference().rank(logits, order[place]) == place + 1
