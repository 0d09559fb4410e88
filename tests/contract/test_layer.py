"""A layer in one call, and the best token without logits: the bytes of the single operations they stand for."""

import numpy as np
import pytest
from backends import BACKENDS, CACHES, NATIVE, matrix, normal, ops_of, parts

from openwork.ops.checksum import checksum
from openwork.ops.packed import Packed
from openwork.ops.paged import PagedKV, Rows
from openwork.ops.weights import Linear, Norm

DTYPES = ("float32", "bfloat16", "int8", "int8-channel", "int4")


def rows_of(ops, counts):
    positions = np.concatenate([np.arange(count, dtype=np.int32) for count in counts])
    starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    tables = np.arange(len(counts) * 4, dtype=np.int32).reshape(len(counts), 4)
    angles = (positions[:, None] * np.linspace(1, 0.1, 16)).astype(np.float32)
    return ops.bind_rows(Rows(positions, starts, tables, np.cos(angles), np.sin(angles)))


@pytest.mark.parametrize("kind", ["rms", "layer"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_layer_in_one_call_is_the_layer_in_many(backend, dtype, kind):
    rng = np.random.default_rng(1)
    for hidden, counts in ((33, [1]), (64, [3, 1, 5]), (128, [40, 1, 1])):
        first, attention, second, mlp = parts(rng, hidden, dtype, kind)
        x = normal(rng, sum(counts), hidden)
        found = []
        for threads, whole in ((1, True), (2, True), (3, False)):
            ops = ops_of(backend, threads)
            bound = [ops.bind(each) for each in (first, attention, second, mlp)]
            kv = ops.bind(PagedKV.empty(1, 4 * len(counts), 2, 32, 16, CACHES[dtype]))
            rows, out = rows_of(ops, counts), x.copy()
            if whole:
                assert ops.pre_norm_layer(out, *bound, rows, kv, 0) is out
            else:
                out = ops.add(out, ops.attention_block(ops.norm(out, bound[0]), bound[1], rows, kv, 0))
                out = ops.add(out, ops.mlp_block(ops.norm(out, bound[2]), bound[3]))
            found.append((out.tobytes(), kv.keys.tobytes(), kv.values.tobytes()))
        assert found[0] == found[1] == found[2]
        assert not np.array_equal(np.frombuffer(found[0][0], np.float32).reshape(x.shape), x)


@pytest.mark.parametrize("backend", NATIVE)
def test_a_layer_whose_parts_do_not_fit_is_refused(backend):
    rng, ops = np.random.default_rng(2), ops_of(backend)
    first, attention, second, mlp = (ops.bind(each) for each in parts(rng, 64, "float32"))
    kv, rows = ops.bind(PagedKV.empty(1, 4, 2, 32, 16, "float32")), rows_of(ops, [3])
    small = ops.bind(Norm(normal(rng, 63), None, 1e-5, "rms"))
    other = ops.bind(parts(rng, 65, "float32")[3])
    for each in ((small, attention, second, mlp), (first, attention, small, mlp), (first, attention, second, other)):
        with pytest.raises(ValueError, match="one size"):
            ops.pre_norm_layer(normal(rng, 3, 64), *each, rows, kv, 0)
    with pytest.raises(ValueError, match="as many rows"):
        ops.pre_norm_layer(normal(rng, 2, 64), first, attention, second, mlp, rows, kv, 0)
    with pytest.raises(ValueError, match="entries a row"):
        ops.pre_norm_layer(normal(rng, 3, 63), first, attention, second, mlp, rows, kv, 0)
    with pytest.raises(IndexError, match="layer 1"):
        ops.pre_norm_layer(normal(rng, 3, 64), first, attention, second, mlp, rows, kv, 1)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("backend", BACKENDS)
def test_the_best_token_is_that_of_the_logits(backend, dtype):
    rng = np.random.default_rng(3)
    for rows, vocab, hidden, softcap in ((0, 40, 8, None), (1, 1, 5, None), (3, 1000, 33, 0.5), (70, 1300, 16, None)):
        for threads in (1, 2):
            ops = ops_of(backend, threads)
            head = ops.bind(matrix(rng, vocab, hidden, dtype))
            x = normal(rng, rows, hidden)
            logits = ops.logits(x, head, softcap)
            ids, finite = ops.best(x, head, softcap)
            assert ids.tolist() == ops.argmax(logits).tolist()
            assert finite.all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("backend", BACKENDS)
def test_the_hashes_of_best_are_the_checksums_of_the_rows_of_logits(backend, dtype):
    rng = np.random.default_rng(6)
    sizes = (
        (0, 40, None),
        (1, 1, None),
        (2, 512, None),
        (3, 1000, 0.5),
        (2, 1024, None),
        (40, 1300, None),
        (1, 2049, 3.0),
    )
    for rows, vocab, softcap in sizes:
        for threads in (1, 2):
            ops = ops_of(backend, threads)
            head = ops.bind(matrix(rng, vocab, 16, dtype))
            x, hashes = normal(rng, rows, 16), np.zeros(rows, np.uint64)
            logits = ops.logits(x, head, softcap)
            ids, finite = ops.best(x, head, softcap, hashes)
            assert ids.tolist() == ops.argmax(logits).tolist() and finite.all()
            assert hashes.tolist() == ops.hash_rows(logits).tolist() == [checksum(row) for row in logits]
            assert len(set(hashes.tolist())) == rows


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_best_of_equals_is_the_first_and_a_strange_row_is_known(backend):
    ops, rng = ops_of(backend, 2), np.random.default_rng(4)
    packed = Packed.empty(2000, 4, "float32")
    packed.put(0, np.ones((2000, 4), np.float32))
    x = normal(rng, 3, 4)
    ids, finite = ops.best(x, ops.bind(Linear(packed)))
    assert ids.tolist() == [0, 0, 0] and finite.all()
    bias = np.zeros(2000, np.float32)
    bias[[777, 1999]] = 10
    assert ops.best(x, ops.bind(Linear(packed, bias)))[0].tolist() == [777] * 3
    for strange in (np.nan, np.inf):
        for place in (0, 777, 1999):
            bias = np.zeros(2000, np.float32)
            bias[place] = strange
            assert not ops.best(x, ops.bind(Linear(packed, bias)))[1].any()


@pytest.mark.parametrize("backend", NATIVE)
def test_best_takes_only_arrays_that_fit(backend):
    ops, rng = ops_of(backend), np.random.default_rng(5)
    head = ops.bind(matrix(rng, 40, 8, "float32"))
    x = normal(rng, 3, 8)
    ids, finite, hashes = np.empty(3, np.int64), np.empty(3, np.bool_), np.empty(3, np.uint64)
    cases = (
        (x[:, :7].copy(), ids, finite, None),
        (x, ids[:2], finite, None),
        (x, ids, finite[:2], None),
        (x, finite, ids, None),
        (x, ids, finite, hashes[:2]),
        (x, ids, finite, ids),
        (x, ids, finite, np.empty(3, np.float64)),
    )
    for arguments in cases:
        with pytest.raises(ValueError, match="must"):
            ops._device.best(arguments[0], head.native, 0.0, *arguments[1:])
    for rows, out in ((x, hashes[:2]), (x, ids), (x.astype(np.float64), hashes)):
        with pytest.raises(ValueError, match="must"):
            ops._device.hash_rows(rows, out)
