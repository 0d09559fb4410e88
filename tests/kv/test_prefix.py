"""The prefix tree: what is found again, by the tokens themselves; who goes first when room is needed; pins."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openwork import OpenworkError, SamplingParams
from openwork.core.event import Miss
from openwork.core.request import Limits, Request
from openwork.core.sequence import Sequence
from openwork.core.settings import CacheSettings
from openwork.core.step import Copy
from openwork.core.terms import Tenant, Tenants, Terms
from openwork.kv.cache import KVCache
from openwork.kv.gauges import gauge
from openwork.kv.prefix import common
from openwork.kv.saved import Saved, export, restore

ANN, BOB = ("tenant", "ann"), ("tenant", "bob")


class Shelf:
    """A cache, and sequences that compute all they know at once."""

    def __init__(self, blocks=12, **tenants):
        self.cache = KVCache(CacheSettings(blocks), Tenants(tenants))
        self.living = []

    def find(self, tokens, tenant="ann", namespace=None):
        return self.cache.find(self.sequence(tokens, tenant, namespace), len(tokens))

    def sequence(self, tokens, tenant="ann", namespace=None):
        terms = Terms(tenant=tenant, namespace=namespace)
        request = Request(tuple(tokens), SamplingParams(), Limits(1000, 10_000), terms)
        return Sequence(len(self.living), len(self.living), 0, request, None, list(tokens))

    def run(self, tokens, tenant="ann", namespace=None):
        """Find, adopt, grow and land; the sequence and the copies."""
        it = self.sequence(tokens, tenant, namespace)
        found = self.cache.fitting(it, self.cache.find(it, len(tokens) - 1))
        assert found is not None
        self.cache.adopt(it, found.match)
        copies = self.cache.grow(it, len(tokens))
        it.computed = len(tokens)
        self.cache.land(it, len(tokens))
        self.living.append(it)
        self.cache.check(self.living)
        return it, copies

    def leave(self, it, keep=True):
        self.cache.free(it, keep)
        self.living.remove(it)
        self.cache.check(self.living)

    def visit(self, tokens, tenant="ann", namespace=None):
        self.leave(self.run(tokens, tenant, namespace)[0])


def line(first, length):
    return [first, *range(1, length)]


def test_whole_blocks_are_found_while_their_sequence_still_runs():
    shelf = Shelf()
    one, _ = shelf.run(line(7, 40))
    two, copies = shelf.run([*line(7, 32), 99, 98])
    assert two.blocks[:2] == one.blocks[:2] and copies == ()
    assert shelf.cache.pool.num_held == 4, "three, and one of its own"


def test_a_partial_last_block_is_gone_on_with_by_copy():
    shelf = Shelf()
    one, _ = shelf.run(line(7, 40))
    shelf.leave(one)
    two, copies = shelf.run([*line(7, 40), 50, 51])
    assert shelf.find(line(7, 40)).match.length == 40
    assert copies == (Copy(copies[0].source, two.blocks[2]),) and copies[0].source != two.blocks[2]
    assert two.adopted == 2


def test_a_block_may_be_used_up_to_where_the_tokens_differ():
    shelf = Shelf()
    shelf.visit(line(7, 32))
    found = shelf.find([*line(7, 20), 99, 98, 97])
    assert found.match.length == 20 and found.miss == Miss("diverged", 20)


def test_equal_lines_share_one_memory_once_both_are_computed():
    shelf = Shelf()
    one, two = shelf.sequence(line(7, 32)), shelf.sequence(line(7, 32))
    for it in (one, two):
        shelf.cache.grow(it, 32)
        it.computed = 32
        shelf.cache.land(it, 32)
    assert one.blocks == two.blocks and shelf.cache.pool.num_held == 2
    shelf.cache.check([one, two])


def test_nothing_is_found_across_namespaces():
    shelf = Shelf()
    shelf.visit(line(7, 32), "ann")
    assert shelf.find(line(7, 32), "bob").match.length == 0
    assert shelf.find(line(7, 32), "bob", "ann").match.length == 0, "a namespace called like a tenant is another one"
    shelf.visit(line(7, 32), "ann", "group")
    assert shelf.find(line(7, 32), "bob", "group").match.length == 32
    assert shelf.cache.explain(tuple(line(7, 32)), BOB) == Miss("namespace", 0, by="ann")


def test_a_miss_says_why():
    shelf = Shelf(blocks=3)
    assert shelf.find(line(7, 32)).miss == Miss("cold", 0)
    shelf.visit(line(7, 20))
    assert shelf.find(line(7, 20)).miss is None
    assert shelf.find(line(7, 32)).miss == Miss("partial", 20)
    assert shelf.find([*line(7, 18), 88]).miss == Miss("diverged", 18)
    assert shelf.find([*line(7, 16), 88]).miss == Miss("diverged", 16)
    shelf.cache.eviction.advance(5.0)
    shelf.visit(line(8, 48), "bob")
    assert shelf.find(line(7, 20)).miss == Miss("evicted", 0, by="bob", time=5.0)


def test_what_a_failed_sequence_computed_is_not_found():
    shelf = Shelf()
    shelf.visit(line(7, 32))
    it, _ = shelf.run(line(7, 64))
    shelf.cache.forget(it, is_poisoned=False)
    shelf.leave(it, keep=False)
    assert shelf.find(line(7, 64)).match.length == 32, "what it found there is not its own work"
    it, _ = shelf.run(line(7, 64))
    shelf.cache.forget(it, is_poisoned=True)
    shelf.leave(it, keep=False)
    assert shelf.find(line(7, 64)).match.length == 0, "what it read may have been bad already"
    assert shelf.cache.pool.num_held == 0


def test_who_stands_on_a_forgotten_block_goes_on_alone():
    shelf = Shelf()
    one, _ = shelf.run(line(7, 48))
    two, _ = shelf.run([*line(7, 32), *range(60, 92)])
    shelf.cache.forget(one, is_poisoned=True)
    shelf.leave(one, keep=False)
    shelf.cache.grow(two, 80)
    two.tokens += range(16)
    two.computed = 80
    shelf.cache.land(two, 80)
    shelf.leave(two)
    assert shelf.cache.pool.num_held == 0, "its blocks were not put where nobody can reach them"


def test_the_least_recently_used_goes_first_and_leaves_before_what_they_stand_on():
    shelf = Shelf(blocks=6)
    for first in (1, 2, 3):
        shelf.visit(line(first, 32))
    shelf.visit(line(1, 32))
    shelf.visit(line(4, 16))
    assert shelf.find(line(2, 32)).match.length == 16
    shelf.visit(line(5, 16))
    lengths = {first: shelf.find(line(first, 32)).match.length for first in (1, 2, 3, 4, 5)}
    assert lengths == {1: 32, 2: 0, 3: 32, 4: 16, 5: 16}


def test_a_tenant_above_its_share_loses_first():
    shelf = Shelf(blocks=8)
    shelf.visit(line(1, 32), "bob")
    for first in range(2, 30):
        shelf.visit(line(first, 32), "ann")
    assert shelf.find(line(1, 32), "bob").match.length == 32, "a flood of one tenant leaves another's cache alone"
    for first in range(40, 60):
        shelf.visit(line(first, 32), "bob")
    charged = shelf.cache.pool.charged
    assert charged == {"ann": 4, "bob": 4}


def test_weights_move_the_shares():
    shelf = Shelf(blocks=8, bob=Tenant(weight=3))
    for first in range(1, 61):
        shelf.visit(line(first, 16), "ann" if first % 2 else "bob")
    assert shelf.cache.pool.charged == {"ann": 2, "bob": 6}


def test_a_reserve_outlasts_everybody_and_a_bound_holds():
    shelf = Shelf(blocks=8, bob=Tenant(weight=0.01, reserved_blocks=3), ann=Tenant(max_blocks=4))
    shelf.visit(line(1, 64), "bob")
    for first in range(2, 20):
        shelf.visit(line(first, 32), "cyd")
        shelf.visit(line(first, 32), "ann")
        assert shelf.cache.pool.charged["ann"] <= 4
    assert shelf.find(line(1, 64), "bob").match.length == 48
    assert shelf.cache.room("cyd", force=True) == 8


def test_pins_keep_until_their_time_and_no_more_than_half():
    shelf = Shelf(blocks=8)
    shelf.visit(line(1, 40))
    assert shelf.cache.eviction.pin(ANN, line(1, 40), until=10.0) == 32
    for first in range(2, 20):
        shelf.visit(line(first, 32))
    assert shelf.find(line(1, 32)).match.length == 32
    shelf.visit(line(1, 32))
    assert shelf.cache.room("ann") == 6
    shelf.visit(line(30, 64))
    assert shelf.cache.eviction.pin(ANN, line(30, 64), until=20.0) == 32, "pins take half of the cache at most"
    shelf.cache.eviction.advance(10.0)
    assert shelf.cache.room("ann") == 6
    shelf.cache.eviction.advance(20.0)
    shelf.cache.check(shelf.living)
    assert shelf.cache.room("ann") == 8


def test_gauges_add_up():
    shelf = Shelf(blocks=12)
    shelf.visit(line(1, 20), "ann")
    one, _ = shelf.run(line(2, 40), "ann", "group")
    two, _ = shelf.run([*line(2, 32), 77], "bob", "group")
    shelf.visit(line(3, 16), "bob")
    shelf.cache.eviction.pin(BOB, line(3, 16), until=1.0)
    total, by_tenant = gauge(shelf.cache, [one, two])
    assert (total.free, total.evictable, total.pinned, total.private, total.shared) == (5, 2, 1, 2, 2)
    assert total.wasted == 12 + 8 + 15 and total.total == 12
    assert by_tenant["ann"].shared == 2 and by_tenant["bob"].private == 1 and by_tenant["bob"].pinned == 1


@given(st.lists(st.lists(st.integers(0, 1), min_size=1, max_size=50), max_size=14), st.integers(4, 40))
def test_a_match_is_the_longest_there_is(lines, blocks):
    shelf, kept = Shelf(blocks), []
    for tokens in lines:
        best = max((common(tokens, other) for other in kept), default=0)
        found = shelf.find(tokens).match
        cached = [token for node in found.nodes for token in node.tokens]
        if found.partial is not None:
            cached += found.partial.tokens[: found.length - len(cached)]
        assert cached == tokens[: found.length], "what is found is what was asked for"
        assert found.length <= best and (found.length == best or shelf.cache.eviction._gone or blocks < 20)
        shelf.visit(tokens)
        kept.append(tokens)


# -- over a restart ----------------------------------------------------------------------------------------------


def test_a_tree_comes_back_as_it_was():
    shelf, new = Shelf(blocks=12), Shelf(blocks=12)
    for tokens, tenant in ((line(1, 40), "ann"), ([*line(1, 16), *range(50, 70)], "ann"), (line(3, 20), "bob")):
        shelf.visit(tokens, tenant)
    shelf.run(line(9, 33))  # and one that still runs: its whole blocks are cached already
    records = export(shelf.cache)
    moves = restore(new.cache, records, 1000)
    new.cache.check([])
    assert [old for old, _ in moves] == [record.block for record in records]
    for tokens, tenant in ((line(1, 40), "ann"), ([*line(1, 16), *range(50, 70)], "ann"), (line(3, 20), "bob")):
        before, after = shelf.find(tokens, tenant).match, new.find(tokens, tenant).match
        assert before.length == after.length == len(tokens)
        assert [dict(moves)[node.block] for node in before.all] == [node.block for node in after.all]
    assert new.cache.pool.charged == {"ann": 7, "bob": 2}
    assert [record.tokens for record in export(new.cache)] == [record.tokens for record in records]


def test_in_a_smaller_cache_the_most_recent_comes_back():
    shelf, new = Shelf(blocks=12), Shelf(blocks=3)
    for first in (1, 2, 3):
        shelf.visit(line(first, 40))
    assert len(restore(new.cache, export(shelf.cache), 1000)) == 3
    assert [new.find(line(first, 40)).match.length for first in (1, 2, 3)] == [0, 0, 40]
    new.cache.check([])


FULL, PART = tuple(range(16)), (1, 2)
DAMAGED = {
    "not before": [Saved(ANN, "ann", 0, FULL, 0)],
    "partial": [Saved(ANN, "ann", None, PART, 0), Saved(ANN, "ann", 0, FULL, 1)],
    "another namespace": [Saved(ANN, "ann", None, FULL, 0), Saved(BOB, "ann", 0, FULL, 1)],
    "has 0 tokens": [Saved(ANN, "ann", None, (), 0)],
    "has 17 tokens": [Saved(ANN, "ann", None, (*FULL, 3), 0)],
    "not an id": [Saved(ANN, "ann", None, (1000,), 0)],
    "another record's": [Saved(ANN, "ann", None, FULL, 0), Saved(ANN, "ann", 0, FULL, 0)],
    "the same": [Saved(ANN, "ann", None, FULL, 0), Saved(ANN, "bob", None, (0, 1), 1)],
}


@pytest.mark.parametrize("words", DAMAGED)
def test_a_damaged_file_is_refused_and_leaves_nothing(words):
    shelf = Shelf()
    with pytest.raises(OpenworkError, match=words):
        restore(shelf.cache, DAMAGED[words], 1000)
    assert shelf.cache.pool.num_held == 0


def test_restoring_needs_an_empty_tree():
    shelf = Shelf()
    shelf.visit(line(1, 20))
    with pytest.raises(OpenworkError, match="in use"):
        restore(shelf.cache, (), 1000)
