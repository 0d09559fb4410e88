"""Activation: the functions between the two products of a feed-forward network, in plain NumPy, entry by entry."""

from __future__ import annotations

from typing import Any

import numpy as np


def activate(x: np.ndarray, kind: str) -> np.ndarray:
    """gelu is the exact one (erf), gelu_tanh its usual approximation. Raises ValueError for a kind that is unknown."""
    out: np.ndarray
    if kind == "silu":
        out = x / (1 + np.exp(-x))
    elif kind == "relu":
        out = np.maximum(x, 0)
    elif kind == "gelu_tanh":
        inner = np.float32(0.7978845608028654) * (x + np.float32(0.044715) * x * x * x)
        out = np.float32(0.5) * x * (1 + np.tanh(inner))
    elif kind == "gelu":
        out = np.float32(0.5) * x * (1 + _erf(x * np.float32(0.7071067811865476)))
    else:
        raise ValueError(f"unknown activation {kind!r}")
    return out.astype(np.float32, copy=False)


def _erf(x: np.ndarray) -> np.ndarray:
    """The error function, correct to 1.2e-7 (Numerical Recipes 6.2.2, a Chebyshev fit of erfc), in float64."""
    z = np.abs(x.astype(np.float64))
    t = 1 / (1 + 0.5 * z)
    fit: Any = 0.17087277
    for c in (-0.82215223, 1.48851587, -1.13520398, 0.27886807, -0.18628806, 0.09678418, 0.37409196, 1.00002368):
        fit = fit * t + c
    tail = t * np.exp(-z * z - 1.26551223 + t * fit)
    return np.asarray(np.where(x >= 0, 1 - tail, tail - 1))
