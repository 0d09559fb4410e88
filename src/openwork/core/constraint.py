"""Constraint: what a text must be: a document of a JSON schema, a match of a regular expression, one of some choices, a
sentence of a grammar.

It is data: a kind and its source. The constructor enforces every bound on size, depth and number, so that nothing
larger reaches whoever compiles it; whether the source means anything is known only there. It knows no tokens.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NoReturn, get_args

from openwork.core.errors import RequestError

Kind = Literal["json_schema", "regex", "choice", "lark"]

MAX_SOURCE_BYTES = 64 << 10
MAX_REGEX_BYTES = 4 << 10
MAX_DEPTH = 32  # objects and lists inside one another, as a schema is written
MAX_VALUES = 1024  # of one enum, or choices
MAX_MARK = 64  # characters
MAX_SPECIAL_IDS = 8


@dataclass(frozen=True, slots=True)
class Constraint:
    """``kind`` says what ``source`` is: a JSON schema, a regular expression, a JSON list of texts, a Lark grammar.

    ``before`` are the marks around any text that may come first, such as a model's reasoning; an empty first mark says
    that this text has begun already, so that the second one has to come. A grammar may name special tokens, which no
    text holds: <mark0> is the first of ``special_ids``, and so on. The functions below make a constraint from what is
    at hand. Raises RequestError, its param the kind.
    """

    kind: Kind
    source: str
    before: tuple[str, str] | None = None
    special_ids: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise RequestError(f"the kind is {self.kind!r}", f"It is one of {', '.join(get_args(Kind))}.")
        _check_size(self.kind, self.source)
        if self.kind == "json_schema":
            _check_schema(_read(self.kind, self.source))
        elif self.kind == "choice":
            _check_choices(_read(self.kind, self.source))
        if self.before is not None and not (self.before[1] and max(map(len, self.before)) <= MAX_MARK):
            raise RequestError(f"the marks before it must have up to {MAX_MARK} characters", param=self.kind)
        are_ids = all(isinstance(each, int) and 0 <= each < 2**31 for each in self.special_ids)
        if self.special_ids and not (self.kind == "lark" and are_ids and len(self.special_ids) <= MAX_SPECIAL_IDS):
            raise RequestError(f"only a grammar names special tokens, at most {MAX_SPECIAL_IDS}", param=self.kind)

    @staticmethod
    def json_schema(schema: Mapping[str, Any] | bool | str) -> Constraint:
        """JSON that is valid under a schema; given as text, its properties come in the order written there."""
        return Constraint("json_schema", schema if isinstance(schema, str) else _write("json_schema", schema))

    @staticmethod
    def json_object() -> Constraint:
        """Any JSON object."""
        return Constraint("json_schema", '{"type":"object"}')

    @staticmethod
    def regex(pattern: str) -> Constraint:
        """A text that matches as a whole, in the syntax of Rust's ``regex``: no look-around, no back-references."""
        return Constraint("regex", pattern)

    @staticmethod
    def choice(options: Iterable[str]) -> Constraint:
        """One of some texts, exactly."""
        if isinstance(options, str):
            raise RequestError("must be a list of texts, not one text", param="choice")
        return Constraint("choice", _write("choice", list(options)))

    @staticmethod
    def lark(grammar: str, special_ids: Iterable[int] = ()) -> Constraint:
        """A sentence of a context-free grammar in Lark's syntax, from its rule ``start``."""
        return Constraint("lark", grammar, None, tuple(special_ids))


def _check_size(kind: Kind, source: Any) -> None:
    if not isinstance(source, str) or not source:
        raise RequestError("must be text, and not empty", param=kind)
    allowed = MAX_REGEX_BYTES if kind == "regex" else MAX_SOURCE_BYTES
    try:
        # A character has at least one byte: an absurd length is refused before anything is copied.
        size = len(source) if len(source) > allowed else len(source.encode())
    except UnicodeEncodeError:
        raise RequestError("holds a lone surrogate, which is not valid Unicode text", param=kind) from None
    if size > allowed:
        raise RequestError(f"has more than {allowed} bytes", "Make it smaller.", param=kind)
    if "\0" in source:
        raise RequestError("holds a NUL character", "Write it as an escape.", param=kind)


def _read(kind: Kind, source: str) -> Any:
    def refuse(name: str) -> NoReturn:
        raise ValueError(f"{name} is not JSON")

    try:
        return json.loads(source, parse_constant=refuse)
    except RecursionError:
        raise RequestError(f"is nested more than {MAX_DEPTH} deep", param=kind) from None
    except ValueError as error:
        raise RequestError(f"is not JSON: {error}", param=kind) from None


def _write(kind: Kind, value: Any) -> str:
    try:
        return json.dumps(value, separators=(",", ":"), allow_nan=False, default=dict)
    except RecursionError:
        raise RequestError(f"is nested more than {MAX_DEPTH} deep", param=kind) from None
    except (TypeError, ValueError) as error:
        raise RequestError(f"cannot be written as JSON: {error}", param=kind) from None


def _check_schema(schema: Any) -> None:
    """Without recursion: depth is what is being bounded."""
    if not isinstance(schema, (dict, bool)):
        raise RequestError(f"must be an object, true or false, not {json.dumps(schema)[:40]}", param="json_schema")
    if schema is False:
        raise RequestError("is false: nothing is valid under it", param="json_schema")
    level: list[Any] = [schema]
    for _ in range(MAX_DEPTH):
        below: list[Any] = []
        for value in level:
            if isinstance(value, dict):
                values = value.get("enum")
                if isinstance(values, list) and len(values) > MAX_VALUES:
                    raise RequestError(
                        f"an enum has {len(values)} values; {MAX_VALUES} are allowed", param="json_schema"
                    )
                below += value.values()
            elif isinstance(value, list):
                below += value
        level = [value for value in below if isinstance(value, (dict, list))]
    if level:
        raise RequestError(f"is nested more than {MAX_DEPTH} deep", "Define parts of it by $ref.", param="json_schema")


def _check_choices(options: Any) -> None:
    if not isinstance(options, list) or not 1 <= len(options) <= MAX_VALUES:
        raise RequestError(f"must be a list of 1 to {MAX_VALUES} texts", param="choice")
    for option in options:
        if not isinstance(option, str) or not option:
            raise RequestError(f"must hold texts that are not empty, not {option!r}", param="choice")
        try:
            option.encode()
        except UnicodeEncodeError:
            raise RequestError("holds a lone surrogate, which is not valid Unicode text", param="choice") from None
