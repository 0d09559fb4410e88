"""Quantities as people write and read them: 512MiB, 1.5 GB, 4.66 M."""

from __future__ import annotations

import re

from openwork.core.errors import RequestError

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
_UNITS |= {f"{unit}i": 2 ** (10 * power) for power, unit in enumerate("kmgt", 1)}
_SIZE = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,6})?) ?([kmgt]?i?)b?", re.IGNORECASE)


def parse_bytes(text: str, param: str) -> int:
    """Bytes written as 1048576, 512MiB (powers of 1024) or 1.5GB (powers of 1000). Raises RequestError."""
    match = _SIZE.fullmatch(text.strip())
    unit = _UNITS.get(match[2].lower()) if match else None
    if match is None or unit is None:
        raise RequestError(f"must be a size such as 512MiB or 2GB, not {text!r}", param=param)
    return int(float(match[1]) * unit) if "." in match[1] else int(match[1]) * unit


def in_bytes(size: float) -> str:
    """1234567 -> "1.23 MB"."""
    return f"{_scaled(size)}B"


def counted(count: int, one: str, many: str = "") -> str:
    """1 -> "1 step", 2 -> "2 steps"."""
    return f"{count} {one if count == 1 else many or one + 's'}"


def in_units(count: float) -> str:
    """1234567 -> "1.23 M"."""
    return _scaled(count).rstrip()


def _scaled(value: float) -> str:
    for unit in ("", "k", "M", "G", "T"):
        if abs(value) < 999.5 or unit == "T":
            digits = f"{value:.0f}" if unit == "" or abs(value) >= 99.95 else f"{value:.3g}"
            return f"{digits} {unit}"
        value /= 1000
    raise AssertionError("the last unit takes everything")
