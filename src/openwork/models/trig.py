"""Cosines and sines that are the same bits on every machine.

The mathematical library of an operating system rounds as it likes; IEEE additions and multiplications do not. So the
tables of the rotary embedding are computed from nothing else: an angle is reduced in float64 to [-pi/4, pi/4] by
subtracting a multiple of pi/2 given in three parts (Cody and Waite 1980), then a Taylor polynomial is evaluated, and
the result is rounded once to float32. NumPy does each of these steps as its own operation, so none is fused. The error
before rounding is below 1e-15. It does not know what the angles are for.
"""

from __future__ import annotations

from math import factorial

import numpy as np

# pi/2 in three parts: n * part is exact for the first two while n < 2**27, that is for angles below 2e8.
_HALF_PI_1 = float.fromhex("0x1.921fb50000000p+0")  # 26 bits of pi/2
_HALF_PI_2 = float.fromhex("0x1.110b460000000p-26")  # the next 26
_HALF_PI_3 = float.fromhex("0x1.1a62633145c07p-54")  # the rest
_TWO_OVER_PI = float.fromhex("0x1.45f306dc9c883p-1")

MAX_ANGLE = 2.0e8  # radians
_SIN = tuple((-1) ** i / factorial(2 * i + 1) for i in range(9))  # x, x^3, ... x^17
_COS = tuple((-1) ** i / factorial(2 * i) for i in range(9))  # 1, x^2, ... x^16


def cos_sin(angles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cosine and sine of float32 angles of any shape, at most MAX_ANGLE in size -> two float32 arrays of that shape."""
    x = angles.astype(np.float64)
    turns = np.rint(x * _TWO_OVER_PI)
    r = ((x - turns * _HALF_PI_1) - turns * _HALF_PI_2) - turns * _HALF_PI_3
    square = r * r
    sine, cosine = r * _polynomial(square, _SIN), _polynomial(square, _COS)
    quarter = turns.astype(np.int64) & 3  # each quarter turn: (cos, sin) -> (-sin, cos)
    is_odd = (quarter & 1).astype(bool)
    cos = np.where(is_odd, sine, cosine)
    sin = np.where(is_odd, cosine, sine)
    cos = np.where((quarter == 1) | (quarter == 2), -cos, cos)
    sin = np.where(quarter >= 2, -sin, sin)
    return cos.astype(np.float32), sin.astype(np.float32)


def _polynomial(x: np.ndarray, coefficients: tuple[float, ...]) -> np.ndarray:
    value = np.full_like(x, coefficients[-1])
    for c in reversed(coefficients[:-1]):
        value = value * x + c
    return value


class RotaryTable:
    """Cosines and sines of position x frequency, computed in chunks of positions as they are first asked for.

    The angle is the float32 product of the two as float32, the way checkpoints were trained. Chunks are fixed, so a
    value never depends on which positions were asked for together.
    """

    CHUNK = 1024  # positions

    def __init__(self, frequencies: tuple[float, ...], scale: float = 1.0) -> None:
        self._frequencies = np.array(frequencies, np.float32)  # (half,)
        self._scale = np.float32(scale)
        self._cos = np.empty((0, len(frequencies)), np.float32)  # (positions so far, half)
        self._sin = self._cos

    def rows(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """positions (rows,) integers, not negative -> cosines and sines (rows, half) float32, times the scale."""
        if len(positions):
            self._grow(int(positions.max()) + 1)
        return self._cos[positions], self._sin[positions]

    def _grow(self, needed: int) -> None:
        have = len(self._cos)
        if needed <= have:
            return
        # One copy of the table in 1024 positions: nothing beside the steps in between.
        chunks = range(have // self.CHUNK, -(-needed // self.CHUNK))
        parts = [self._chunk(chunk) for chunk in chunks]
        self._cos = np.concatenate([self._cos, *(cos for cos, _ in parts)])
        self._sin = np.concatenate([self._sin, *(sin for _, sin in parts)])

    def _chunk(self, chunk: int) -> tuple[np.ndarray, np.ndarray]:
        positions = np.arange(chunk * self.CHUNK, (chunk + 1) * self.CHUNK).astype(np.float32)
        cos, sin = cos_sin(positions[:, None] * self._frequencies)  # (CHUNK, half)
        return cos * self._scale, sin * self._scale
