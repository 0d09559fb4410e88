"""How much memory there is, and how many blocks of KV cache it is sensible to plan for.

The operating system gives a page when it is first written, so a generous plan costs nothing until it is used; but it
must fit when it is. Sources: /proc/meminfo and the cgroup v2 and v1 limits on Linux, sysconf elsewhere.
"""

from __future__ import annotations

import os
from pathlib import Path

from openwork.core.errors import MemoryTooSmall

SEQUENCES_BY_DEFAULT = 32  # full-length sequences that the default cache can hold, memory permitting
_CGROUP = (("memory.max", "memory.current"), ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"))


def available_bytes() -> int:
    """Bytes this process could still take without swapping or meeting its limit."""
    found = [_from_meminfo(), *(_from_cgroup(Path("/sys/fs/cgroup"), *names) for names in _CGROUP)]
    known = [size for size in found if size is not None]
    return min(known) if known else os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2


def plan_blocks(block_bytes: int, block_size: int, max_positions: int, asked_bytes: int | None, free_bytes: int) -> int:
    """Blocks of the cache: what ``asked_bytes`` holds, or by default 32 full sequences within half of ``free_bytes``.

    Raises MemoryTooSmall when not even one block fits.
    """
    if asked_bytes is None:
        enough = -(-max_positions // block_size) * SEQUENCES_BY_DEFAULT
        blocks = min(enough, free_bytes // 2 // block_bytes)
        where = f"{free_bytes:,} bytes of memory are free, of which the cache may take half"
    else:
        blocks = asked_bytes // block_bytes
        where = f"the KV cache was given {asked_bytes:,} bytes"
        if blocks * block_bytes > free_bytes:
            raise MemoryTooSmall(
                f"{where}, but only {free_bytes:,} bytes of memory are free", "Ask for less with kv_cache_bytes."
            )
    if blocks < 1:
        raise MemoryTooSmall(
            f"{where}, but one block of {block_size} tokens needs {block_bytes:,} bytes",
            "Give it more with kv_cache_bytes, or use a smaller model.",
        )
    return int(blocks)


def _from_meminfo() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    for line in lines:
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return None


def _from_cgroup(root: Path, limit_name: str, usage_name: str) -> int | None:
    try:
        limit, usage = (root / limit_name).read_text().strip(), (root / usage_name).read_text().strip()
    except OSError:
        return None
    return max(0, int(limit) - int(usage)) if limit.isdigit() else None
