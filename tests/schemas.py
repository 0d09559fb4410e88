"""JSON schemas as people write them: some by hand, and as many as wanted drawn from a seed."""

from __future__ import annotations

from random import Random
from typing import Any

Schema = dict[str, Any]

_ADDRESS = {
    "type": "object",
    "properties": {
        "street": {"type": "string", "maxLength": 60},
        "city": {"type": "string", "minLength": 1, "maxLength": 30},
        "zip": {"type": "string", "pattern": "^[0-9]{5}(-[0-9]{4})?$"},
        "country": {"enum": ["AT", "BE", "CH", "DE", "FR", "IT"]},
    },
    "required": ["street", "city", "country"],
    "additionalProperties": False,
}

BY_HAND: dict[str, Schema] = {
    "person": {
        "type": "object",
        "properties": {
            "name": {"type": "string", "maxLength": 40},
            "age": {"type": "integer", "minimum": 0, "maximum": 130},
            "email": {"type": "string", "format": "email"},
            "address": {"$ref": "#/$defs/address"},
        },
        "required": ["name", "age"],
        "$defs": {"address": _ADDRESS},
    },
    "tool call": {
        "type": "object",
        "properties": {
            "name": {"const": "get_weather"},
            "arguments": {
                "type": "object",
                "properties": {
                    "location": {"type": "string", "description": "City and country"},
                    "unit": {"type": "string", "enum": ["celsius", "fahrenheit"], "default": "celsius"},
                    "days": {"type": ["integer", "null"], "minimum": 1, "maximum": 14},
                },
                "required": ["location", "unit", "days"],
                "additionalProperties": False,
            },
        },
        "required": ["name", "arguments"],
        "additionalProperties": False,
    },
    "tree": {
        "$ref": "#/$defs/node",
        "$defs": {
            "node": {
                "type": "object",
                "properties": {
                    "value": {"type": "number"},
                    "children": {"type": "array", "items": {"$ref": "#/$defs/node"}},
                },
                "required": ["value", "children"],
            }
        },
    },
    "event": {
        "title": "Event",
        "type": "object",
        "properties": {
            "id": {"type": "string", "format": "uuid"},
            "day": {"type": "string", "format": "date"},
            "at": {"type": "string", "format": "date-time"},
            "host": {"anyOf": [{"type": "string", "format": "ipv4"}, {"type": "string", "format": "hostname"}]},
            "level": {"type": "integer", "enum": [10, 20, 30, 40, 50]},
        },
        "required": ["id", "day", "at", "host", "level"],
    },
    "geometry": {
        "oneOf": [
            {
                "type": "object",
                "properties": {
                    "type": {"const": "Point"},
                    "coordinates": {"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 3},
                },
                "required": ["type", "coordinates"],
                "additionalProperties": False,
            },
            {
                "type": "object",
                "properties": {
                    "type": {"const": "Circle"},
                    "radius": {"type": "number", "exclusiveMinimum": 0},
                },
                "required": ["type", "radius"],
                "additionalProperties": False,
            },
        ]
    },
    "map": {
        "type": "object",
        "patternProperties": {"^S_": {"type": "string"}, "^I_": {"type": "integer"}},
        "additionalProperties": False,
    },
    "scores": {"type": "object", "additionalProperties": {"type": "number", "minimum": 0, "maximum": 1}},
    "pair": {"type": "array", "prefixItems": [{"type": "string"}, {"type": "integer"}], "items": False, "minItems": 2},
    "merged": {
        "allOf": [
            {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]},
            {"properties": {"a": {"minimum": 5}, "b": {"type": "boolean"}}, "required": ["b"]},
        ]
    },
    "multiple": {"type": "integer", "multipleOf": 5, "minimum": 10, "maximum": 95},
    "unicode": {"enum": ["größe", "日本", "😀", 'quo"te', "back\\slash", "line\nbreak", ""]},
    "anything": {},
}

_NAMES = [
    "id", "name", "title", "type", "status", "email", "url", "created_at", "count", "total", "price", "currency",
    "items", "description", "author", "version", "language", "score", "label", "latitude", "longitude", "address",
    "notes", "quantity", "priority", "start_date", "is_active", "reason", "steps", "summary", "parent", "children",
    "options", "value", "key",
]  # fmt: skip
_WORDS = ["draft", "open", "closed", "low", "medium", "high", "a b", "it's", "EUR", "x-ray", "naïve", "N/A"]
_PATTERNS = ["^[a-z]{2,8}$", "^[A-Z]{3}-[0-9]{1,4}$", r"^\d{4}-\d{2}$", "^#[0-9a-f]{6}$", "^(yes|no|maybe)$", "ab+c"]
_FORMATS = ["date", "time", "date-time", "email", "ipv4", "uuid", "hostname"]


def draw(seed: int) -> Schema:
    """One schema: mostly objects of objects, as APIs have them."""
    rng = Random(seed)
    schema = _object(rng, 3) if rng.random() < 0.8 else _any(rng, 2)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": f"Schema {seed}", **schema}


def _any(rng: Random, depth: int) -> Schema:
    leaves = [_string, _string, _number, _integer, _enum, _simple]
    inner = [_object, _array, _union] if depth > 0 else []
    return rng.choice(leaves + inner)(rng, depth)


def _object(rng: Random, depth: int) -> Schema:
    names = rng.sample(_NAMES, rng.randint(0, 7))
    schema: Schema = {"type": "object", "properties": {name: _any(rng, depth - 1) for name in names}}
    if names and rng.random() < 0.8:
        schema["required"] = rng.sample(names, rng.randint(1, len(names)))
    if rng.random() < 0.6:
        schema["additionalProperties"] = rng.choice([False, False, True, {"type": "integer"}])
    return schema


def _array(rng: Random, depth: int) -> Schema:
    schema: Schema = {"type": "array", "items": _any(rng, depth - 1)}
    if rng.random() < 0.5:
        schema["minItems"] = rng.randint(0, 3)
    if rng.random() < 0.7:
        schema["maxItems"] = rng.randint(3, 6)
    return schema


def _union(rng: Random, depth: int) -> Schema:
    return {"anyOf": [_any(rng, depth - 1) for _ in range(rng.randint(2, 3))]}


def _string(rng: Random, depth: int) -> Schema:
    kind = rng.random()
    if kind < 0.2:
        return {"type": "string", "pattern": rng.choice(_PATTERNS)}
    if kind < 0.4:
        return {"type": "string", "format": rng.choice(_FORMATS)}
    schema: Schema = {"type": "string", "description": "Some text."}
    if rng.random() < 0.4:
        schema["minLength"] = rng.randint(0, 5)
    if rng.random() < 0.6:
        schema["maxLength"] = rng.randint(5, 200)
    return schema


def _number(rng: Random, depth: int) -> Schema:
    schema: Schema = {"type": "number"}
    if rng.random() < 0.5:
        schema[rng.choice(["minimum", "exclusiveMinimum"])] = rng.choice([0, -1.5, 0.1, -90])
    if rng.random() < 0.5:
        schema[rng.choice(["maximum", "exclusiveMaximum"])] = rng.choice([1, 99.99, 180, 1e6])
    return schema


def _integer(rng: Random, depth: int) -> Schema:
    schema: Schema = {"type": "integer"}
    if rng.random() < 0.6:
        schema |= {"minimum": rng.choice([0, 1, -40]), "maximum": rng.choice([10, 255, 65535])}
    return schema


def _enum(rng: Random, depth: int) -> Schema:
    if rng.random() < 0.2:
        return {"const": rng.choice([*_WORDS, 7, True, None, {"a": [1]}])}
    return {"type": "string", "enum": rng.sample(_WORDS, rng.randint(1, 5))}


def _simple(rng: Random, depth: int) -> Schema:
    return rng.choice([{"type": "boolean"}, {"type": ["string", "null"]}, {"type": ["integer", "boolean"]}])
