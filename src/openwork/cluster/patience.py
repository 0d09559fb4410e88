"""Patience: how long to wait before the engine's process is started again, and when to stop trying. A calculation.

A first death is made good at once; a row of deaths without a step between them waits longer each time. When nobody can
be blamed for them, because no request was under way, they are the engine's own, and after some of them it is given up.
While requests can be blamed it goes on: each is quarantined in the end (suspects.py), and others may be innocent.
"""

from __future__ import annotations

FRUITLESS = 5  # lives in a row that came to nothing, before it is given up
FIRST_WAIT_S = 0.25
LONGEST_WAIT_S = 5.0


class Patience:
    def __init__(self) -> None:
        self._in_vain = 0  # lives in a row in which no step was completed
        self._fruitless = 0  # of these, with nobody to blame, since the last life that was otherwise

    def died(self, was_of_use: bool, has_suspects: bool) -> float | None:
        """Seconds to wait before the next start, or None to give up."""
        self._in_vain = 0 if was_of_use else self._in_vain + 1
        self._fruitless = 0 if was_of_use or has_suspects else self._fruitless + 1
        if self._fruitless >= FRUITLESS:
            return None
        if self._in_vain <= 1:
            return 0.0
        return float(min(LONGEST_WAIT_S, FIRST_WAIT_S * 2 ** min(self._in_vain - 2, 16)))
