"""Stamps: what passes inside a layer has the checksums of what its single operations give, in every backend."""

from dataclasses import replace

import numpy as np
import pytest
from backends import BACKENDS, CACHES, NATIVE, normal, ops_of, parts

from openwork.core.stamp import OF_LAYER, num_points, point
from openwork.ops.checksum import checksum
from openwork.ops.paged import PagedKV, Rows
from openwork.ops.stamps import Stamps
from openwork.ops.weights import Norm

COUNTS = [3, 1, 40]
STAMPED = [0, 2, 3, 17, 43]


def step(stamps=None):
    positions = np.concatenate([np.arange(count, dtype=np.int32) for count in COUNTS])
    starts = np.concatenate([[0], np.cumsum(COUNTS)]).astype(np.int32)
    tables = np.arange(len(COUNTS) * 4, dtype=np.int32).reshape(len(COUNTS), 4)
    angles = (positions[:, None] * np.linspace(1, 0.1, 16)).astype(np.float32)
    return Rows(positions, starts, tables, np.cos(angles), np.sin(angles), stamps=stamps)


def by_hand(ops, x, layer, w):
    """What passes, one operation after the other."""
    first, attention, second, mlp = w
    rows = ops.bind_rows(step())
    kv = ops.bind(PagedKV.empty(2, 12, 2, 32, 16, CACHES[attention.qkv.weight.dtype]))
    qkv = ops.linear(ops.norm(x, first), attention.qkv).reshape(len(x), 8, 32)
    q, k, v = (np.ascontiguousarray(each) for each in (qkv[:, :4], qkv[:, 4:6], qkv[:, 6:]))
    if attention.q_norm is not None:
        q = ops.norm(q.reshape(-1, 32), attention.q_norm).reshape(q.shape)
        k = ops.norm(k.reshape(-1, 32), attention.k_norm).reshape(k.shape)
    q, k = ops.rotate(q, rows, 32), ops.rotate(k, rows, 32)
    ops.write(kv, layer, k, v, rows)
    mixed = ops.attend(q, kv, layer, rows, attention)
    behind = ops.add(x.copy(), ops.linear(mixed, attention.out))
    after = ops.add(behind.copy(), ops.mlp_block(ops.norm(behind, second), mlp))
    return np.concatenate([q, k, v], axis=1).reshape(len(x), -1), mixed, behind, after


@pytest.mark.parametrize("has_norms", [False, True])
@pytest.mark.parametrize("dtype", CACHES)
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_stamp_is_of_what_single_operations_give(backend, dtype, has_norms):
    rng = np.random.default_rng(1)
    first, attention, second, mlp = parts(rng, 64, dtype)
    if has_norms:
        norms = [Norm(normal(rng, 32), None, 1e-5, "rms") for _ in range(2)]
        attention = replace(attention, q_norm=norms[0], k_norm=norms[1])
    x = normal(rng, sum(COUNTS), 64)
    for threads in (1, 2) if backend != "reference" else (1,):
        ops = ops_of(backend, threads)
        bound = [ops.bind(each) for each in (first, attention, second, mlp)]
        wanted = by_hand(ops, x, 1, bound)
        stamps, out = Stamps.empty(STAMPED, 2), x.copy()
        kv = ops.bind(PagedKV.empty(2, 12, 2, 32, 16, CACHES[dtype]))
        ops.pre_norm_layer(out, *bound, ops.bind_rows(step(stamps)), kv, 1)
        assert out.tobytes() == wanted[3].tobytes()
        for op, values in zip(OF_LAYER, wanted, strict=True):
            hashes = [checksum(values[row]) & 0xFFFFFFFF for row in STAMPED]
            assert stamps.points[:, point(1, op)].tolist() == hashes, op
        assert not stamps.points[:, : point(1, OF_LAYER[0])].any()  # of other layers nothing is said
        assert list(stamps.by_row()) == STAMPED


@pytest.mark.parametrize("backend", NATIVE)
def test_stamps_that_do_not_fit_are_refused(backend):
    ops, rng = ops_of(backend), np.random.default_rng(2)
    bound = [ops.bind(each) for each in parts(rng, 64, "float32")]
    kv = ops.bind(PagedKV.empty(2, 12, 2, 32, 16, "float32"))
    for row in (-1, sum(COUNTS)):
        with pytest.raises(IndexError, match="stamped row"):
            ops.bind_rows(step(Stamps.empty([row], 2)))
    good = Stamps.empty(STAMPED, 2)
    frozen = good.points.copy()
    frozen.flags.writeable = False
    wrong = (good.points[1:], good.points.astype(np.int32), good.points.astype(np.uint64), good.points[:, 0].copy())
    for points in (*wrong, np.asfortranarray(good.points), frozen):
        with pytest.raises((ValueError, BufferError)):
            ops.bind_rows(step(Stamps(good.rows, points)))
    with pytest.raises(ValueError, match="int32"):
        ops.bind_rows(step(Stamps(good.rows.astype(np.int64), good.points)))
    narrow = Stamps(good.rows, np.zeros((len(STAMPED), num_points(2) - 1), np.uint32))
    with pytest.raises(ValueError, match="points must have"):
        ops.pre_norm_layer(normal(rng, sum(COUNTS), 64), *bound, ops.bind_rows(step(narrow)), kv, 1)
    assert not narrow.points.any()
