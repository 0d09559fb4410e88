"""A constraint is data, and bounded: whatever is too large, too deep or no JSON never reaches a compiler."""

import json
from contextlib import suppress

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openwork import Constraint, RequestError, SamplingParams
from openwork.core.request import Limits, Request


def nested(depth):
    return '{"items":' * (depth - 1) + "{}" + "}" * (depth - 1)


BAD = [
    ("json_schema", '"x"'), ("json_schema", "null"), ("json_schema", "[]"), ("json_schema", "7"),
    ("json_schema", "false"), ("json_schema", "{"), ("json_schema", ""), ("json_schema", '{"minimum":NaN}'),
    ("json_schema", nested(33)),
    ("json_schema", nested(6000)), ("json_schema", "[" * 60_000), ("json_schema", "{" + '"a":{' * 10_000),
    ("json_schema", json.dumps({"enum": list(range(1025))})), ("json_schema", json.dumps({"title": "x" * (64 << 10)})),
    ("json_schema", json.dumps({"properties": {f"p{i}": {} for i in range(100_000)}})), ("json_schema", "\ud800"),
    ("json_schema", '{"a":"\0"}'), ("json_schema", None), ("json_schema", "9" * 5000),
    ("regex", ""), ("regex", "a" * 4097), ("regex", "é" * 2049), ("regex", "a\0"), ("regex", "\ud800"), ("regex", 5),
    ("choice", "[]"), ("choice", '["a",""]'), ("choice", '["a",1]'), ("choice", '"ab"'), ("choice", '["\\ud800"]'),
    ("choice", json.dumps([str(i) for i in range(1025)])), ("choice", json.dumps(["x" * (64 << 10)])),
    ("lark", ""), ("lark", "x" * ((64 << 10) + 1)), ("lark", 'start: "a\0"'),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "source"), BAD)
def test_what_is_out_of_bounds_is_refused_by_kind(kind, source):
    with pytest.raises(RequestError) as caught:
        Constraint(kind, source)
    assert caught.value.param == kind
    assert len(str(caught.value)) < 300


def test_an_unknown_kind_is_refused():
    with pytest.raises(RequestError, match="json_schema, regex"):
        Constraint("xml", "<a/>")


def test_the_edges_are_allowed():
    Constraint.json_schema(nested(32))
    Constraint.json_schema({"enum": list(range(1024))})
    Constraint.json_schema(True)
    Constraint.regex("a" * 4096)
    Constraint.choice(str(i) for i in range(1024))


@pytest.mark.parametrize("value", [{"a": {1, 2}}, {"minimum": float("nan")}, object()])
def test_what_is_not_json_is_refused(value):
    with pytest.raises(RequestError, match="json_schema"):
        Constraint.json_schema(value)


def test_a_schema_that_holds_itself_is_refused():
    schema = {}
    schema["items"] = schema
    with pytest.raises(RequestError):
        Constraint.json_schema(schema)


def test_one_text_is_not_a_list_of_choices():
    with pytest.raises(RequestError, match="not one text"):
        Constraint.choice("abc")


def test_properties_stay_in_their_order():
    schema = {"properties": {"z": {}, "a": {}}}
    assert list(json.loads(Constraint.json_schema(schema).source)["properties"]) == ["z", "a"]
    assert Constraint.json_schema('{"b":1, "a":2}').source == '{"b":1, "a":2}'


def test_it_can_be_a_key_and_cross_between_processes():
    made = [
        Constraint.json_object(),
        Constraint.regex("a+"),
        Constraint.choice(["a", "ü"]),
        Constraint.lark('start: "a"'),
    ]
    assert len({*made, *made}) == len(made)
    request = Request((1,), SamplingParams(constraint=made[2]), Limits(9, 32, frozenset({2})))
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(request), type=Request) == request
    with pytest.raises(RequestError, match="choice"):  # what arrives is checked again
        msgspec.json.decode(b'{"kind":"choice","source":"[]"}', type=Constraint)


def test_a_request_needs_an_end_token():
    params = SamplingParams(constraint=Constraint.json_object())
    with pytest.raises(RequestError, match="no end token"):
        Request((1,), params, Limits(9, 32))
    with pytest.raises(RequestError, match="must be a Constraint"):
        SamplingParams(constraint={"type": "object"})


@given(st.sampled_from(["json_schema", "regex", "choice", "lark"]), st.text(max_size=200))
def test_any_text_is_a_constraint_or_a_request_error(kind, source):
    with suppress(RequestError):
        assert hash(Constraint(kind, source)) == hash(Constraint(kind, source))
