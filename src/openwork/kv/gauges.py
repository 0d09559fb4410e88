"""gauge: count where the blocks of the cache are, for everybody and by tenant. One pass, when somebody asks."""

from __future__ import annotations

from collections.abc import Iterable

from openwork.core.gauges import Gauges
from openwork.core.sequence import Sequence
from openwork.kv.cache import KVCache


def gauge(cache: KVCache, sequences: Iterable[Sequence]) -> tuple[Gauges, dict[str, Gauges]]:
    """All blocks, and those charged to each tenant (whose ``free`` is 0: nobody is charged for them)."""
    pool, size = cache.pool, cache.block_size
    holders = [0] * pool.num_blocks
    used = [0] * pool.num_blocks  # slots that hold something
    nodes = {node.block: node for node in cache.tree}
    for block, node in nodes.items():
        used[block] = len(node.tokens)
    for sequence in sequences:
        for place, block in enumerate(sequence.blocks):
            holders[block] += 1
            used[block] = max(used[block], min(size, sequence.computed - place * size))
    counts: dict[str, list[int]] = {}  # tenant -> evictable, pinned, private, shared, wasted
    for block in range(pool.num_blocks):
        if pool.references(block):
            own = counts.setdefault(pool.owner(block), [0] * 5)
            node_here = nodes.get(block)
            is_pinned = node_here is not None and node_here.pinned_until > 0
            own[is_pinned if not holders[block] else 2 if holders[block] == 1 else 3] += 1
            own[4] += size - max(0, used[block])
    by_tenant = {tenant: Gauges(0, *own) for tenant, own in sorted(counts.items())}
    sums = [sum(column) for column in zip(*counts.values(), strict=True)] or [0] * 5
    return Gauges(pool.num_free, *sums), by_tenant
