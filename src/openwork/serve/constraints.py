"""Constraints as clients of the field write them, read into one Constraint.

    response_format       {"type": "text" | "json_object" | "json_schema", "json_schema": {"name", "schema", ...}}
    text.format           the same in /v1/responses
    structured_outputs    {"json" | "regex" | "choice" | "grammar" | "json_object": ...}
    guided_json, guided_regex, guided_choice, guided_grammar    the same, one field each

Pure functions: what comes out is a Constraint with the path of its field, None, or an ApiError that names the field.
Whether it can be compiled is found out elsewhere (texts.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from openwork.core.constraint import Constraint
from openwork.core.errors import RequestError
from openwork.serve.errors import ApiError, bad_request
from openwork.serve.schema.fields import Generating
from openwork.serve.schema.format import (
    JsonObjectFormat,
    JsonSchemaFormat,
    JsonSchemaText,
    StructuredOutputs,
    TextFormat,
)

_MADE: dict[str, Callable[[Any], Constraint]] = {
    "json": Constraint.json_schema,
    "regex": Constraint.regex,
    "choice": Constraint.choice,
    "grammar": Constraint.lark,
}


@dataclass(frozen=True, slots=True)
class Wanted:
    """A constraint, and the path of the field that it came in."""

    constraint: Constraint
    param: str


def read_constraint(body: Generating) -> Wanted | None:
    """What the text must be by the fields of a request; None when it may be anything.

    Raises ApiError 400 for a constraint out of bounds, or for more than one.
    """
    found = list(_constraints(body))
    if len(found) > 1:
        raise bad_request(f"{found[1].param} cannot be given together with {found[0].param}.", found[1].param)
    return found[0] if found else None


def read_format(
    given: TextFormat | JsonObjectFormat | JsonSchemaFormat | JsonSchemaText | None, path: str
) -> Wanted | None:
    """Raises ApiError 400."""
    match given:
        case JsonObjectFormat():
            return Wanted(Constraint.json_object(), path)
        case JsonSchemaFormat():
            return _made("json", given.json_schema.schema, f"{path}.json_schema.schema")
        case JsonSchemaText():
            return _made("json", given.schema, f"{path}.schema")
    return None


def refused_at(error: RequestError, param: str) -> ApiError:
    """What is wrong with a constraint, told of the field it came in."""
    words = error.message.removeprefix(f"{error.param}: ")
    return bad_request(f"{param}: {words.rstrip('.')}. {error.hint}".strip(), param)


def _constraints(body: Generating) -> Iterator[Wanted]:
    wanted = read_format(body.response_format, "response_format")
    if wanted is not None:
        yield wanted
    if body.structured_outputs is not None:
        yield from _structured(body.structured_outputs)
    for kind in _MADE:
        given = getattr(body, f"guided_{kind}")
        if given is not None:
            yield _made(kind, given, f"guided_{kind}")


def _structured(given: StructuredOutputs) -> Iterator[Wanted]:
    path = "structured_outputs"
    for kind in _MADE:
        value = getattr(given, kind)
        if value is not None:
            yield _made(kind, value, f"{path}.{kind}")
    if given.json_object:
        yield Wanted(Constraint.json_object(), f"{path}.json_object")


def _made(kind: str, value: Any, path: str) -> Wanted:
    try:
        return Wanted(_MADE[kind](value), path)
    except RequestError as error:
        raise refused_at(error, path) from None
