"""Rates: how many requests and tokens a tenant may have a minute, and how much of that is left.

A token bucket (RFC 2697 has the idea): full at first, filled evenly, never above one minute's worth. What a request may
take at most is taken when it comes and what it left is given back when it ends, so that a long answer cannot be
promised twice. Time is handed in; nothing here waits.
"""

from __future__ import annotations

import math

_MINUTE_S = 60.0


class Bucket:
    """``capacity`` a minute. What it has may be below nothing, after a request took more than was thought."""

    def __init__(self, capacity: int, now: float) -> None:
        self.capacity = capacity
        self._level = float(capacity)
        self._at = now

    def level(self, now: float) -> float:
        """What is left."""
        self._fill(now)
        return self._level

    def wait_s(self, amount: float, now: float) -> float:
        """Seconds until ``amount`` can be taken; more than a full bucket counts as a full one."""
        self._fill(now)
        missing = min(amount, self.capacity) - self._level
        return max(0.0, missing * _MINUTE_S / self.capacity)

    def take(self, amount: float, now: float) -> float:
        """Take ``amount``, or all that a full bucket has when it is more; how much was taken."""
        self._fill(now)
        taken = min(amount, float(self.capacity))
        self._level -= taken
        return taken

    def settle(self, taken: float, used: float, now: float) -> None:
        """Correct what ``take`` took to what was used in the end."""
        self._fill(now)
        self._level = min(float(self.capacity), self._level + taken - used)

    def resize(self, capacity: int, now: float) -> None:
        """Another capacity from now on; what was used of the old one stays used, in proportion."""
        self._fill(now)
        self._level *= capacity / self.capacity
        self.capacity = capacity

    def _fill(self, now: float) -> None:
        passed = max(0.0, now - self._at)
        self._at = max(self._at, now)
        self._level = min(float(self.capacity), self._level + passed * self.capacity / _MINUTE_S)


def rate_headers(kind: str, bucket: Bucket, now: float) -> dict[str, str]:
    """The three x-ratelimit headers of a bucket; ``reset`` is when it will be full again."""
    return {
        f"x-ratelimit-limit-{kind}": str(bucket.capacity),
        f"x-ratelimit-remaining-{kind}": str(max(0, math.floor(bucket.level(now)))),
        f"x-ratelimit-reset-{kind}": f"{bucket.wait_s(bucket.capacity, now):.3f}s",
    }
