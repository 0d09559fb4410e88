"""Budget: what one rendering of a template may spend, and what the costly operations cost.

Turns of a loop and calls are steps; a character that is made is a unit, an entry of a list several. Whatever multiplies
sizes is paid for before it is done, so the memory that a rendering takes is bounded by its budget. It does not know
Jinja's syntax, nor which operation happens when.
"""

from __future__ import annotations

import re
from collections.abc import ItemsView, Iterable, Iterator, KeysView, Mapping, Sized, ValuesView
from typing import Any

from jinja2.exceptions import SecurityError

BUDGET = " budget"  # the variable that carries it; a name that no template can write
ENTRY = 16  # units for an entry of a list: more work, and more memory, than a character
# A width of three digits, or one that comes from an argument, in a % format and in a {} format.
_WIDE_PERCENT = re.compile(r"%(\([^)]*\))?[-+ #0-9.]*(\d{3}|\*)")
_WIDE_FIELD = re.compile(r"\{[^}]*(\d{3}|\{)")


class TemplateLimit(Exception):
    """A template wanted to spend more than its budget."""


class Budget:
    """What one rendering may still spend: ``steps`` of loops and calls, ``units`` of memory made."""

    def __init__(self, steps: int, units: int) -> None:
        self.steps = steps
        self.units = units

    def step(self) -> None:
        self.steps -= 1
        if self.steps < 0:
            raise TemplateLimit("it runs for too long")

    def pay(self, units: int) -> None:
        self.units -= units
        if self.units < 0:
            raise TemplateLimit("it builds too much text")

    def each(self, values: Iterable[Any]) -> Iterator[Any]:
        for value in values:
            self.step()
            yield value

    def pay_text(self, value: Any) -> None:
        """Pays for writing a value out. A list may hold one long text many times, so its entries are added up."""
        stack = [value]
        while stack:
            top = stack.pop()
            if isinstance(top, (str, bytes)):
                self.pay(len(top))
            elif isinstance(top, Mapping):
                self.pay(2 * ENTRY * len(top))
                stack.extend(top)
                stack.extend(top.values())
            elif isinstance(top, (list, tuple, KeysView, ValuesView, ItemsView)):
                self.pay(ENTRY * len(top))
                stack.extend(top)

    def pay_copy(self, value: Any) -> Any:
        """Pays for a value of its own size: text by characters, a list by references."""
        if isinstance(value, (str, bytes)):
            self.pay(len(value))
        elif isinstance(value, (list, tuple, dict)):
            self.pay(ENTRY * len(value))
        return value


def bits(value: Any) -> int:
    """The size of a number; a float is as large as it can get, anything else is not a number and Python says so."""
    return value.bit_length() if isinstance(value, int) else 0


def pay_product(budget: Budget, left: Any, right: Any) -> None:
    for value, count in ((left, right), (right, left)):
        if isinstance(value, (str, bytes, list, tuple)) and isinstance(count, int):
            budget.pay((1 if isinstance(value, (str, bytes)) else ENTRY) * len(value) * max(count, 0))
    if bits(left) + bits(right) > 256:
        raise SecurityError("numbers this large are not allowed")


def pay_percent(budget: Budget, text: str, values: Any) -> None:
    """text % values"""
    _pay_format(budget, text, "%", _WIDE_PERCENT, values)


def pay_fields(budget: Budget, text: str, values: Any) -> None:
    """text.format(*values)"""
    _pay_format(budget, text, "{", _WIDE_FIELD, values)


def _pay_format(budget: Budget, text: str, mark: str, wide: re.Pattern[str], values: Any) -> None:
    if wide.search(text):
        raise SecurityError("a format with a width of three digits or from an argument is not allowed")
    before = budget.units
    budget.pay_text(values)
    budget.pay((before - budget.units + 99) * text.count(mark))  # any of the values may stand at every mark


def pay_replace(budget: Budget, text: str, old: Any, new: Any) -> None:
    if isinstance(old, str) and isinstance(new, str):
        budget.pay((text.count(old) if old else len(text) + 1) * len(new))


def pay_join(budget: Budget, separator: str, parts: Sized) -> None:
    budget.pay_text(parts)
    budget.pay(len(separator) * len(parts))
