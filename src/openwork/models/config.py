"""Config: checked access to the dictionary of a config.json.

Every number of a model passes through here exactly once, on its way from a file that anybody may have written into a
spec that everybody relies on. A value of the wrong type, out of range or not finite is refused with the file, the field
and what would be allowed. Absent and null mean the same: the default, or an error when there is none. This module knows
no architecture, only how to read.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from openwork.core.errors import ModelError

T = TypeVar("T")


class Config:
    """A section of a JSON file. ``where`` is its file, ``inside`` the path of fields that leads to the section."""

    def __init__(self, data: Mapping[str, Any], where: str = "config.json", inside: str = "") -> None:
        self.data = data
        self.where = where
        self.inside = inside

    def error(self, name: str, message: str, hint: str = "") -> ModelError:
        """A ModelError that names this file and the field."""
        return ModelError(message, hint, where=self.where, field=f"{self.inside}{name}")

    def has(self, name: str) -> bool:
        """Whether the field is there and not null."""
        return self.data.get(name) is not None

    def first(self, *names: str) -> str:
        """The first of several spellings of a field that is there, else the last."""
        return next((name for name in names if self.has(name)), names[-1])

    def whole(self, name: str, low: int, high: int, default: int | None = None) -> int:
        """An integer, low to high inclusive."""
        value = self._get(name, default, f"an integer from {low} to {high}")
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise self.error(name, f"is {_show(value)}; it must be an integer from {low} to {high}")
        return value

    def real(self, name: str, low: float, high: float, default: float | None = None, *, or_low: bool = False) -> float:
        """A finite number, above low (``or_low``: or equal to it) and at most high."""
        value = self._get(name, default, f"a number above {low:g}")
        return float(low) if or_low and value == low and value is not False else self._real(name, value, low, high)

    def reals(self, name: str, count: int, low: float, high: float) -> tuple[float, ...]:
        """A list of ``count`` numbers, each above low and at most high."""
        values = self._get(name, None, f"a list of {count} numbers")
        if not isinstance(values, list) or len(values) != count:
            size = f"a list of {len(values)}" if isinstance(values, list) else _show(values)
            raise self.error(name, f"is {size}; it must be a list of {count} numbers")
        return tuple(self._real(f"{name}[{place}]", value, low, high) for place, value in enumerate(values))

    def flag(self, name: str, default: bool) -> bool:
        """true or false."""
        value = self._get(name, default, "true or false")
        if not isinstance(value, bool):
            raise self.error(name, f"is {_show(value)}; it must be true or false")
        return value

    def text(self, name: str, default: str | None = None) -> str:
        """A string."""
        value = self._get(name, default, "a string")
        if not isinstance(value, str):
            raise self.error(name, f"is {_show(value)}; it must be a string")
        return value

    def choice(self, name: str, choices: Mapping[str, T], default: str | None = None) -> T:
        """What one of the given words stands for."""
        word = self.text(name, default)
        if word not in choices:
            raise self.error(name, f"is {_show(word)}; it must be one of {', '.join(choices)}")
        return choices[word]

    def words(self, name: str, count: int, choices: Sequence[str]) -> tuple[str, ...] | None:
        """A list of ``count`` words out of ``choices``, or None when the field is absent."""
        if not self.has(name):
            return None
        values = self.data[name]
        if not isinstance(values, list) or len(values) != count:
            size = f"a list of {len(values)}" if isinstance(values, list) else _show(values)
            raise self.error(name, f"is {size}; it must be a list of {count}, one word a layer")
        for place, value in enumerate(values):
            if value not in choices:
                raise self.error(f"{name}[{place}]", f"is {_show(value)}; it must be one of {', '.join(choices)}")
        return tuple(values)

    def section(self, name: str) -> Config | None:
        """A nested object, or None when it is absent."""
        if not self.has(name):
            return None
        value = self.data[name]
        if not isinstance(value, dict):
            raise self.error(name, f"is {_show(value)}; it must be an object")
        return Config(value, self.where, f"{self.inside}{name}.")

    def _get(self, name: str, default: Any, wanted: str) -> Any:
        value = self.data.get(name)
        if value is not None:
            return value
        if default is None:
            raise self.error(name, f"is missing; it must be {wanted}")
        return default

    def _real(self, name: str, value: Any, low: float, high: float) -> float:
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        # An integer may be too large for a float: compare before converting.
        if not is_number or (isinstance(value, float) and not math.isfinite(value)) or not low < value <= high:
            raise self.error(name, f"is {_show(value)}; it must be a number above {low:g}, at most {high:g}")
        return float(value)


def _show(value: Any) -> str:
    """A value in an error message, short whatever the file holds."""
    if isinstance(value, int) and not isinstance(value, bool) and value.bit_length() > 256:
        return "an integer of more than 256 bits"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
