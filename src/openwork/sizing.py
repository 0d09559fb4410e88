"""What fits: the blocks of a KV cache beside the weights, and their arrays. Whatever does not is refused for people.

Sizes are compared before any memory is taken; what the system refuses after that all the same is said in the same
words. It knows specs and numbers of bytes, no checkpoint and no engine.
"""

from __future__ import annotations

from openwork.core.errors import MemoryTooSmall
from openwork.core.settings import CacheSettings, LoadSettings
from openwork.core.spec import ModelSpec
from openwork.ops.paged import KVDType, PagedKV
from openwork.run.memory import available_bytes, plan_blocks


def plan_cache(
    spec: ModelSpec, kv_dtype: KVDType, packed_bytes: int, settings: LoadSettings, draft_bytes: int = 0
) -> tuple[CacheSettings, int]:
    """The cache and the longest sequence. Raises MemoryTooSmall when the model or one full window does not fit."""
    size, available = settings.block_size, check_weights(packed_bytes)
    block_bytes = PagedKV.block_bytes(spec.num_layers, spec.num_kv_heads, spec.head_dim, size, kv_dtype) + draft_bytes
    wanted = spec.max_positions if settings.context is None else settings.context
    free = available - packed_bytes
    cache = CacheSettings(plan_blocks(block_bytes, size, wanted, settings.kv_cache_bytes, free), size)
    if settings.context is not None and settings.context > cache.capacity:
        raise MemoryTooSmall(
            f"a context of {wanted} tokens needs {-(-wanted // size) * block_bytes:,} bytes of KV cache; "
            f"there are {cache.num_blocks * block_bytes:,}",
            "Ask for a shorter context, or give the cache more with kv_cache_bytes.",
        )
    return cache, min(wanted, cache.capacity)


def check_weights(packed_bytes: int) -> int:
    """The bytes that are free, of which the weights take some. Raises MemoryTooSmall when those do not fit."""
    available = available_bytes()
    if packed_bytes >= available:
        raise MemoryTooSmall(
            f"the weights need {packed_bytes:,} bytes, more than the {available:,} that are free",
            "Use a smaller model, or fewer bits: dtype bfloat16, int8 or int4.",
        )
    return available


def allocate(spec: ModelSpec, cache: CacheSettings, kv_dtype: KVDType) -> PagedKV:
    """The arrays of the cache. A process limit may be below what the machine has free: MemoryTooSmall."""
    try:
        return PagedKV.empty(
            spec.num_layers, cache.num_blocks, spec.num_kv_heads, spec.head_dim, cache.block_size, kv_dtype
        )
    except MemoryError:
        size = PagedKV.block_bytes(spec.num_layers, spec.num_kv_heads, spec.head_dim, cache.block_size, kv_dtype)
        raise MemoryTooSmall(
            f"the system refused {cache.num_blocks * size:,} bytes for the KV cache",
            "A limit on this process may be the reason; ask for less with kv_cache_bytes.",
        ) from None
