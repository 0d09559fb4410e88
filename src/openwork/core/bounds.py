"""Bounds: numbers from outside are numbers, finite, and within their limits; or a RequestError names the parameter."""

from __future__ import annotations

import math
from typing import Any

from openwork.core.errors import RequestError


def check_real(name: str, value: Any, low: float, high: float, *, open_low: bool = False) -> None:
    """Raises RequestError unless it is a finite number within bounds."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if not is_number or not low <= value <= high or (open_low and value == low):
        bounds = f"{'above' if open_low else 'from'} {low} to {high}"
        raise RequestError(f"must be a number {bounds}, not {value!r}", param=name)


def check_whole(name: str, value: Any, low: int, high: int) -> None:
    """Raises RequestError unless it is a whole number within bounds."""
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise RequestError(f"must be a whole number from {low} to {high}, not {value!r}", param=name)


def check_flag(name: str, value: Any) -> None:
    """Raises RequestError unless it is true or false."""
    if not isinstance(value, bool):
        raise RequestError(f"must be true or false, not {value!r}", param=name)
