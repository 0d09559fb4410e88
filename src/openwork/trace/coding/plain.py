"""Plain: frozen records as numbers, texts and lists, and back. How a log writes whatever is not worth a shorthand.

    SamplingParams(temperature=0.0, max_tokens=9)   <->   {0: 0.0, 8: 9}       fields by number, defaults left out

Which field has which number stands in the log itself (``table``), so that a log outlives a change of the records: what
was written stays readable as long as the names do. Whatever is read is checked against the type of its field. It knows
no bytes and no particular record.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from functools import cache
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from openwork.core.errors import OpenworkError, TraceError

Table = Mapping[str, list[str]]  # name of a record -> names of its fields
Read = Callable[[Any], Any]


def plain(value: Any) -> Any:
    """A record, or anything that records are made of."""
    kind = type(value)
    if kind in (int, str, float, bool, types.NoneType):
        return value
    if kind in (tuple, list):
        return [plain(each) for each in value]
    if kind is frozenset:
        return sorted(value)
    if isinstance(value, Mapping):
        return {key: plain(each) for key, each in value.items()}
    return {
        number: plain(each)
        for number, (name, default) in enumerate(_fields(kind))  # type: ignore[arg-type]
        if (each := getattr(value, name)) is not default and (each != default or type(each) is not type(default))
    }


def table(kinds: tuple[type, ...]) -> dict[str, list[str]]:
    """The fields of these records and of all that stand in them, in the order of their numbers."""
    found: dict[str, list[str]] = {}
    left: list[Any] = list(kinds)
    while left:
        hint = left.pop()
        if is_dataclass(hint) and isinstance(hint, type):
            if hint.__name__ not in found:
                found[hint.__name__] = [name for name, _ in _fields(hint)]
                left += get_type_hints(hint).values()
        else:
            left += get_args(hint)
    return found


class Reader:
    """Makes records again of what was written with a table. Raises TraceError for what cannot be one."""

    def __init__(self, table: Table) -> None:
        self._table = table
        self._readers: dict[Any, Read] = {}

    def read(self, kind: Any, value: Any) -> Any:
        """``value`` as a ``kind``, which is a record, or a type made of records."""
        try:
            return self._reader(kind)(value)
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError, OpenworkError) as error:
            raise TraceError(
                f"what should be a {getattr(kind, '__name__', kind)} is none: {str(error)[:200]}"
            ) from error

    def names(self, kind: type) -> list[str]:
        """The fields of a record, in the order of their numbers."""
        return self._table[kind.__name__]

    def _reader(self, hint: Any) -> Read:
        reader = self._readers.get(hint)
        if reader is None:
            reader = self._readers[hint] = self._make(hint)
        return reader

    def _make(self, hint: Any) -> Read:
        origin, inner = get_origin(hint), get_args(hint)
        if hint in (int, str, bool, float):
            return lambda value: _checked(value, hint)
        if is_dataclass(hint) and isinstance(hint, type):
            return self._record(hint)
        if origin is Literal:
            return lambda value: _one_of(value, inner)
        if origin in (Union, types.UnionType):
            return self._union(inner)
        if origin is tuple and inner[1:] == (...,):
            each = self._reader(inner[0])
            return lambda value: tuple(map(each, _checked(value, list)))
        if origin is tuple:
            readers = [self._reader(kind) for kind in inner]
            return lambda value: tuple(read(part) for read, part in zip(readers, value, strict=True))
        if origin is list:
            each = self._reader(inner[0])
            return lambda value: list(map(each, _checked(value, list)))
        if origin is frozenset:
            each = self._reader(inner[0])
            return lambda value: frozenset(map(each, _checked(value, list)))
        if isinstance(origin, type) and issubclass(origin, Mapping):
            key, each = map(self._reader, inner)
            return lambda value: {key(name): each(part) for name, part in _checked(value, dict).items()}
        raise TypeError(f"{hint} cannot be written")

    def _record(self, kind: type) -> Read:
        names = self._table.get(kind.__name__)
        if names is None:
            raise ValueError(f"{kind.__name__} has no fields in this recording")
        hints = get_type_hints(kind)
        readers = {number: (name, self._reader(hints[name])) for number, name in enumerate(names) if name in hints}

        def read(value: Any) -> Any:
            given = {}
            for number, part in _checked(value, dict).items():
                name, reader = readers[number]
                given[name] = reader(part)
            return kind(**given)

        return read

    def _union(self, kinds: tuple[Any, ...]) -> Read:
        is_optional = types.NoneType in kinds
        left = tuple(kind for kind in kinds if kind is not types.NoneType)
        if len(left) == 1:
            one = self._reader(left[0])
            return lambda value: None if value is None and is_optional else one(value)
        readers = [self._reader(kind) for kind in left]

        def read(value: Any) -> Any:
            if value is None and is_optional:
                return None
            for reader in readers:
                try:
                    return reader(value)
                except (TypeError, ValueError):
                    pass
            raise ValueError(f"{value!r} is none of {kinds}")

        return read


@cache
def _fields(kind: type) -> tuple[tuple[str, Any], ...]:
    """Names and defaults, in order. Raises TypeError for what is no record."""
    return tuple((field.name, _default(field)) for field in fields(kind))


def _default(field: Field[Any]) -> Any:
    if field.default_factory is not MISSING:
        return field.default_factory()
    return field.default  # MISSING where there is none: equal to nothing


def _checked(value: Any, kind: type) -> Any:
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        raise ValueError(f"{str(value)[:40]!r} is no {kind.__name__}")
    return value


def _one_of(value: Any, known: tuple[Any, ...]) -> Any:
    for each in known:
        if each == value and type(each) is type(value):
            return value
    raise ValueError(f"{str(value)[:40]!r} is none of {known}")


def unknown(kind: type, known: frozenset[str]) -> tuple[tuple[str, Any], ...]:
    """The fields of a record that are not among those known, and their defaults."""
    return tuple((name, default) for name, default in _fields(kind) if name not in known)


def others(value: Any, unknown: tuple[tuple[str, Any], ...]) -> dict[str, Any]:
    """Those of the fields that are not what they are by default."""
    return {name: plain(each) for name, default in unknown if (each := getattr(value, name)) != default}
