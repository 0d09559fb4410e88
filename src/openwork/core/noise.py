"""Counter random numbers: the same (seed, counter) gives the same number, whenever and wherever it is asked for.

Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"). There is no state to lose, so
preemption, batching and migration cannot change a draw. Integers only; no clock, no entropy: seeds come from outside.
"""

from __future__ import annotations

_MASK = 0xFFFFFFFF
_M0, _M1 = 0xD2511F53, 0xCD9E8D57
_W0, _W1 = 0x9E3779B9, 0xBB67AE85


def philox(counter: tuple[int, int, int, int], key: tuple[int, int]) -> tuple[int, int, int, int]:
    """Ten rounds of Philox4x32. Every word is 32 bits; the result is four independent words."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        p0, p1 = _M0 * c0, _M1 * c2
        c0, c1, c2, c3 = (p1 >> 32) ^ c1 ^ k0, p1 & _MASK, (p0 >> 32) ^ c3 ^ k1, p0 & _MASK
        k0, k1 = (k0 + _W0) & _MASK, (k1 + _W1) & _MASK
    return c0, c1, c2, c3


def uniform(seed: int, index: int, position: int, draw: int = 0) -> float:
    """A number in [0, 1) for one decision: 53 bits of philox(key=seed, counter=(index, position, draw)).

    ``seed`` is 64 bits, ``index`` the sequence within its request, ``position`` the absolute position of the
    token that is chosen, ``draw`` counts the decisions made at that position.
    """
    a, b, _, _ = philox((index & _MASK, position & _MASK, draw & _MASK, 0), (seed & _MASK, (seed >> 32) & _MASK))
    return ((a << 21) | (b >> 11)) * 2.0**-53
