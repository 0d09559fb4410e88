"""Blocks are never lost, never given out twice, and never written while shared."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openwork import SamplingParams
from openwork.core.request import Limits, Request
from openwork.core.sequence import Sequence
from openwork.core.settings import CacheSettings
from openwork.core.step import Copy
from openwork.kv.cache import KVCache
from openwork.kv.pool import BlockPool

REQUEST = Request((1,), SamplingParams(), Limits(10, 10_000))


def sequence(number: int, known: int) -> Sequence:
    return Sequence(number, number, 0, REQUEST, None, [1] * known)


def test_pool_counts_references():
    pool = BlockPool(2)
    block = pool.take()
    pool.hold(block)
    pool.release(block)
    assert pool.num_free == 1 and pool.references(block) == 1
    pool.release(block)
    assert pool.num_free == 2
    with pytest.raises(ValueError, match="free already"):
        pool.release(block)
    with pytest.raises(ValueError, match="cannot be shared"):
        pool.hold(block)


def test_growing_is_all_or_nothing():
    cache = KVCache(CacheSettings(3))
    one, two = sequence(0, 40), sequence(1, 40)
    assert cache.grow(one, 17) == ()
    assert len(one.blocks) == 2
    assert cache.grow(two, 33) is None
    assert two.blocks == [] and cache.pool.num_free == 1
    cache.free(one)
    assert cache.pool.num_free == 3


def test_a_shared_partial_block_is_copied_before_it_is_written():
    cache = KVCache(CacheSettings(8))
    parent, child = sequence(0, 21), sequence(1, 21)
    cache.grow(parent, 20)
    parent.computed = 20
    cache.fork(parent, child)
    assert child.blocks == parent.blocks
    copies = cache.grow(child, 21)
    assert copies == (Copy(parent.blocks[1], child.blocks[1]),)
    assert child.blocks[0] == parent.blocks[0] and child.blocks[1] != parent.blocks[1]
    assert cache.grow(parent, 21) == (), "the parent is alone with its block again"


def test_full_shared_blocks_are_never_copied():
    cache = KVCache(CacheSettings(8))
    parent, child = sequence(0, 33), sequence(1, 33)
    cache.grow(parent, 32)
    parent.computed = 32
    cache.fork(parent, child)
    assert cache.grow(child, 33) == ()
    assert cache.pool.num_held == 3


@given(
    st.lists(st.tuples(st.sampled_from(["grow", "fork", "free"]), st.integers(0, 5), st.integers(1, 40)), max_size=60)
)
def test_conservation_under_any_order_of_calls(calls):
    cache = KVCache(CacheSettings(12))
    sequences = [sequence(i, 0) for i in range(6)]
    for call, which, amount in calls:
        it = sequences[which]
        if call == "grow":
            length = it.computed + amount
            before = list(it.blocks), cache.pool.num_free
            copies = cache.grow(it, length)
            if copies is None:
                assert (it.blocks, cache.pool.num_free) == before
            else:
                written = it.blocks[it.computed // 16 : cache.blocks_for(length)]
                assert all(cache.pool.references(block) == 1 for block in written)
                it.computed = length
                it.tokens = [1] * length
        elif call == "fork":
            child = sequences[(which + 1) % 6]
            cache.free(child)
            child.tokens = list(it.tokens)
            cache.fork(it, child)
        else:
            cache.free(it)
        cache.check(sequences)
    for it in sequences:
        cache.free(it)
    assert cache.pool.num_free == 12
