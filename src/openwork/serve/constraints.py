"""Constraints as clients of the field write them, read into one Constraint.

    response_format       {"type": "text" | "json_object" | "json_schema", "json_schema": {"name", "schema", ...}}
    structured_outputs    {"json" | "regex" | "choice" | "grammar" | "json_object": ...}
    guided_json, guided_regex, guided_choice, guided_grammar    the same, one field each

A pure function: a body goes in, a Constraint, None or a RequestError comes out, whose param is the path of the field.
How a constraint is compiled is the operator's choice: fields that name a backend, or change how a schema is read, are
refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from openwork.core.constraint import Constraint
from openwork.core.errors import RequestError

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_MADE: dict[str, Callable[[Any], Constraint]] = {
    "json": lambda value: _schema(value),
    "regex": lambda value: Constraint.regex(_text(value)),
    "choice": lambda value: Constraint.choice(_texts(value)),
    "grammar": lambda value: Constraint.lark(_text(value)),
}
GUIDED = frozenset(f"guided_{kind}" for kind in _MADE)
FIELDS = frozenset({"response_format", "structured_outputs"}) | GUIDED
# Known to clients, and refused with a word on why.
REFUSED = frozenset({"guided_decoding_backend", "guided_whitespace_pattern", "structural_tag"})


def read_constraint(body: Mapping[str, Any]) -> Constraint | None:
    """What the text must be by the fields of a request; None when it may be anything. A field of null says nothing.

    Raises RequestError, its param the path of the field: for a field that is wrong, or for more than one constraint.
    Whether the constraint can be compiled is not known here.
    """
    for name in sorted(REFUSED):
        if body.get(name) is not None:
            raise RequestError("is not supported: how constraints are compiled is set by the operator", param=name)
    found = [(path, constraint) for path, constraint in _constraints(body) if constraint is not None]
    if len(found) > 1:
        raise RequestError(f"cannot be given together with {found[0][0]}", "Give one of them.", param=found[1][0])
    return found[0][1] if found else None


def _constraints(body: Mapping[str, Any]) -> Iterator[tuple[str, Constraint | None]]:
    """Whatever constrains, with its path."""
    if body.get("response_format") is not None:
        yield "response_format", _response_format(body["response_format"])
    if body.get("structured_outputs") is not None:
        yield "structured_outputs", _structured_outputs(body["structured_outputs"])
    for kind, make in _MADE.items():
        name = f"guided_{kind}"
        if body.get(name) is not None:
            yield name, _at(name, make, body[name])


def _response_format(given: Any) -> Constraint | None:
    path = "response_format"
    if not isinstance(given, Mapping) or not isinstance(given.get("type"), str):
        raise RequestError('must be an object with a "type"', param=path)
    _only(given, {"type", "json_schema"}, path)
    match given["type"]:
        case "text":
            return None
        case "json_object":
            return Constraint.json_object()
        case "json_schema":
            return _named_schema(given.get("json_schema"), f"{path}.json_schema")
        case other:
            raise RequestError(
                f"is {other[:40]!r}", "Choose one of text, json_object, json_schema.", param=f"{path}.type"
            )


def _named_schema(given: Any, path: str) -> Constraint:
    """{"name", "description", "schema", "strict"}; a schema is always followed strictly."""
    if not isinstance(given, Mapping):
        raise RequestError('must be an object with "name" and "schema"', param=path)
    _only(given, {"name", "description", "schema", "strict"}, path)
    name = given.get("name")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise RequestError("must be 1 to 64 letters, digits, _ or -", param=f"{path}.name")
    if not isinstance(given.get("strict"), bool | None):
        raise RequestError("must be true or false", param=f"{path}.strict")
    if not isinstance(given.get("description"), str | None):
        raise RequestError("must be text", param=f"{path}.description")
    if "schema" not in given:
        raise RequestError("is missing", param=f"{path}.schema")
    return _at(f"{path}.schema", _object_schema, given["schema"])


def _structured_outputs(given: Any) -> Constraint | None:
    path = "structured_outputs"
    if not isinstance(given, Mapping):
        raise RequestError("must be an object", param=path)
    _only(given, {*_MADE, "json_object"}, path)
    wanted = given.get("json_object")
    if not isinstance(wanted, bool | None):
        raise RequestError("must be true or false", param=f"{path}.json_object")
    kinds = [kind for kind in _MADE if given.get(kind) is not None]
    if len(kinds) + bool(wanted) > 1:
        raise RequestError("must hold one constraint", "Give one of them.", param=path)
    if wanted:
        return Constraint.json_object()
    return _at(f"{path}.{kinds[0]}", _MADE[kinds[0]], given[kinds[0]]) if kinds else None


# -- values ----------------------------------------------------------------------------------------------------------


def _at(path: str, make: Callable[[Any], Constraint], value: Any) -> Constraint:
    """A constraint of a value; what is wrong with it is told of the field."""
    try:
        return make(value)
    except RequestError as error:
        message = error.message.removeprefix(f"{error.param}: ")
        raise RequestError(message, error.hint, param=path) from None


def _object_schema(value: Any) -> Constraint:
    if not isinstance(value, Mapping | bool):
        raise RequestError("must be an object, true or false")
    return Constraint.json_schema(value)


def _schema(value: Any) -> Constraint:
    """As vLLM takes it: an object, or one written as text."""
    return Constraint.json_schema(value) if isinstance(value, str) else _object_schema(value)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise RequestError("must be text")
    return value


def _texts(value: Any) -> list[str]:
    if not isinstance(value, list):
        raise RequestError("must be a list of texts")
    return value


def _only(given: Mapping[str, Any], known: set[str], path: str) -> None:
    for name in given:
        if name not in known:
            raise RequestError(f"has no field {str(name)[:40]!r}", f"It has {', '.join(sorted(known))}.", param=path)
