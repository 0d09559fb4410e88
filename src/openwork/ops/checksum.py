"""Checksum: a number of 64 bits that changes when bytes do.

It is a sum, modulo 2^64, over pages of 4096 bytes: of the page's hash NH (Black, Halevi, Krawczyk, Krovetz and Rogaway
1999, UMAC) mixed with the page's number, so the sums of parts add up to the sum of the whole, and threads may share the
work. It finds what disks and broken copies do to a file; it is no defence against somebody who can write that file.
"""

from __future__ import annotations

import numpy as np

PAGE = 4096
_AT_ONCE = 256 * PAGE  # bytes, so that the temporaries stay small


def checksum(data: np.ndarray, first_page: int = 0) -> int:
    """Of the bytes of a contiguous array; ``first_page`` is the number of its first page, zeros fill its last one."""
    flat = data.reshape(-1).view(np.uint8)
    total = 0
    for start in range(0, flat.size, _AT_ONCE):
        part = flat[start : start + _AT_ONCE]
        words = np.zeros((-(-part.size // PAGE), PAGE // 4), np.uint32)  # (pages, words)
        words.reshape(-1).view(np.uint8)[: part.size] = part
        words += _KEYS
        sums = (words[:, 0::2].astype(np.uint64) * words[:, 1::2]).sum(axis=1, dtype=np.uint64)
        numbers = np.arange(len(sums), dtype=np.uint64) + np.uint64(first_page + start // PAGE)
        total += int(_mix(sums ^ _mix(numbers)).sum(dtype=np.uint64))
    return total % 2**64


def _mix(x: np.ndarray) -> np.ndarray:
    """The finaliser of SplitMix64 (Steele, Lea and Flood 2014) on uint64 of any shape."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(x ^ (x >> np.uint64(31)))


_KEYS = _mix(np.arange(1, PAGE // 4 + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)).astype(np.uint32)
