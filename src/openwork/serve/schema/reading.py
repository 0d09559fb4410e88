"""From the bytes of a body to a typed record: a total function, its only error is ApiError.

JSON is read as RFC 8259 has it and a little stricter: no NaN or Infinity, no number too large to be meant, no key twice
in one object (which of the two counts is where parsers disagree), no half of a surrogate pair, bounded depth. Then the
value is held against a record's types without conversions: true is not 1, 1.0 is not 1, "1" is not 1. Fields that are
not known are refused by name, and so are those that other servers have and this one does not.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any, ClassVar, NoReturn, TypeVar

import msgspec

from openwork.serve.errors import ApiError, bad_request

_AT = re.compile(r"(.*) - at `(?:key in )?\$(.*)`", re.DOTALL)
_UNKNOWN = re.compile(r"Object contains unknown field `(.*)`", re.DOTALL)
_MISSING = re.compile(r"Object missing required field `(.*)`", re.DOTALL)
MAX_DIGITS = 40  # of a whole number; nothing that can be asked for has more
MAX_SHOWN = 200


class Body(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A record that a client sends. ``unsupported`` maps the fields it may have elsewhere to what is to be said."""

    unsupported: ClassVar[dict[str, str]] = {}

    @staticmethod
    def completed(value: dict[str, Any]) -> dict[str, Any]:
        """The object with what may be left out and is needed to tell its types."""
        return value


Kind = TypeVar("Kind", bound=Body)


def read(body: bytes, kind: type[Kind], max_depth: int = 64) -> Kind:
    """The record that a body holds. Raises ApiError 400, naming the field with its path."""
    value = read_json(body, max_depth)
    if isinstance(value, dict):
        for name, reason in kind.unsupported.items():
            if value.pop(name, None) is not None:
                raise bad_request(f"{name} is not supported. {reason}".strip(), name, "unsupported_parameter")
        value = kind.completed(value)
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise wrong_type(str(error)) from None


def read_json(body: bytes, max_depth: int = 64) -> Any:
    """The JSON value of a body. Raises ApiError 400."""
    if not body.strip():
        raise bad_request("The body is empty; it must be a JSON object.", code="invalid_json")
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise bad_request(f"The body is not UTF-8: byte {error.start} is wrong.", code="invalid_json") from None
    try:
        value = json.loads(text, object_pairs_hook=_once, parse_int=_whole)
    except json.JSONDecodeError as error:  # its text names the place and quotes nothing
        raise bad_request(f"The body is not valid JSON: {error}.", code="invalid_json") from None
    except RecursionError:
        _too_deep(max_depth, None)
    _check(value, max_depth)
    return value


def wrong_type(text: str) -> ApiError:
    """The ApiError of what the record's types say, with the path as clients write it: messages[2].content."""
    path = ""
    if at := _AT.fullmatch(text):
        text, path = at[1], at[2]
    shown = text if len(text) <= MAX_SHOWN else text[:MAX_SHOWN] + "..."
    for pattern, code, what in (
        (_UNKNOWN, "unknown_parameter", "is not a known field"),
        (_MISSING, "missing_parameter", "is missing"),
    ):
        if found := pattern.fullmatch(text):
            name = found[1] if len(found[1]) <= MAX_SHOWN else found[1][:MAX_SHOWN] + "..."
            param = f"{path}.{name}".lstrip(".")
            return bad_request(f"{param} {what}.", param, code)
    param = path.lstrip(".")
    return bad_request(f"{param or 'The body'}: {shown[:1].lower()}{shown[1:]}.", param or None)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                name = key[:MAX_SHOWN].encode(errors="replace").decode()
                raise bad_request(f"{name} is there twice in one object.", name, "invalid_json")
            seen.add(key)
    return found


def _whole(digits: str) -> int | float:
    # Turning many digits into a number takes time that grows with their square; infinity is refused with its path.
    return int(digits) if len(digits) <= MAX_DIGITS else math.inf


def _check(value: Any, max_depth: int) -> None:
    """Depth, surrogates and numbers of a value and all that is in it. Raises ApiError naming the first at fault."""
    stack: list[tuple[Any, tuple[Any, ...], int]] = [(value, (), 0)]  # (value, path from its end, depth)
    while stack:
        top, path, depth = stack.pop()
        if isinstance(top, str):
            if not top.isascii():
                _check_text(top, path)
        elif isinstance(top, float):
            if not math.isfinite(top):
                param = _param(path)
                raise bad_request(f"{param or 'The body'} must be a finite number of moderate size.", param)
        elif isinstance(top, (dict, list)):
            if depth >= max_depth:
                _too_deep(max_depth, _param(path))
            if isinstance(top, dict):
                for key in top:
                    if not key.isascii():
                        _check_text(key, path)
                entries: Any = reversed(top.items())
            else:
                entries = reversed(list(enumerate(top)))
            stack.extend((entry, (key, path), depth + 1) for key, entry in entries if type(entry) is not int)


def _check_text(text: str, path: tuple[Any, ...]) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        param = _param(path)
        raise bad_request(
            f"{param or 'The body'} holds half of a surrogate pair, U+{ord(text[error.start]):04X}, which is not "
            "valid Unicode text.",
            param,
        ) from None


def _param(path: tuple[Any, ...]) -> str | None:
    parts: list[str] = []
    while path:
        key, path = path
        parts.append(f"[{key}]" if isinstance(key, int) else "." + key[:MAX_SHOWN].encode(errors="replace").decode())
    return "".join(reversed(parts)).lstrip(".") or None


def _too_deep(max_depth: int, param: str | None) -> NoReturn:
    shown = param if param is None or len(param) <= MAX_SHOWN else param[:MAX_SHOWN] + "..."
    raise bad_request(f"The body is nested more than {max_depth} deep.", shown, "invalid_json")
