"""What clients write becomes one constraint or one error that names the field; nothing else can happen."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openwork.core.constraint import Constraint
from openwork.serve.constraints import read_constraint
from openwork.serve.errors import ApiError
from openwork.serve.schema.completion import CompletionBody
from openwork.serve.schema.fields import Generating
from openwork.serve.schema.reading import read

FIELDS = {name for name in Generating.__struct_fields__ if name.startswith(("response", "structured", "guided"))}
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}


def wanted(body):
    return read_constraint(read(json.dumps({"model": "m", "prompt": "a", **body}).encode(), CompletionBody))


def named(schema, **other):
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema, **other}}


GOOD = [
    ({}, None),
    ({"response_format": None, "structured_outputs": None, "guided_json": None}, None),
    ({"response_format": {"type": "text"}}, None),
    ({"structured_outputs": {}}, None),
    ({"structured_outputs": {"json": None, "json_object": False}}, None),
    ({"response_format": {"type": "json_object"}}, Constraint.json_object()),
    ({"response_format": named(SCHEMA, strict=True, description="An answer.")}, Constraint.json_schema(SCHEMA)),
    ({"response_format": named({})}, Constraint.json_schema({})),
    ({"response_format": named(True, strict=None)}, Constraint.json_schema(True)),
    ({"structured_outputs": {"json": SCHEMA}}, Constraint.json_schema(SCHEMA)),
    ({"structured_outputs": {"json": json.dumps(SCHEMA)}}, Constraint.json_schema(json.dumps(SCHEMA))),
    ({"structured_outputs": {"json_object": True}}, Constraint.json_object()),
    ({"structured_outputs": {"regex": "a+", "choice": None}}, Constraint.regex("a+")),
    ({"guided_json": SCHEMA}, Constraint.json_schema(SCHEMA)),
    ({"guided_regex": "a+"}, Constraint.regex("a+")),
    ({"guided_choice": ["a", "b"]}, Constraint.choice(["a", "b"])),
    ({"guided_grammar": 'start: "a"'}, Constraint.lark('start: "a"')),
    ({"response_format": {"type": "text"}, "guided_regex": "a+"}, Constraint.regex("a+")),
]


@pytest.mark.parametrize(("body", "constraint"), GOOD)
def test_each_shape_is_read(body, constraint):
    found = wanted(body)
    assert (found and found.constraint) == constraint


BAD = [
    ({"response_format": {"type": "xml"}}, "response_format.type"),
    ({"response_format": "json"}, "response_format"),
    ({"response_format": {}}, "response_format.type"),
    ({"response_format": {"type": ["text"]}}, "response_format.type"),
    ({"response_format": {"type": "json_object", "schema": {}}}, "response_format.schema"),
    ({"response_format": {"type": "structural_tag"}}, "response_format.type"),
    ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
    ({"response_format": {"type": "json_schema", "json_schema": {"schema": {}}}}, "response_format.json_schema.name"),
    ({"response_format": named({}, name="a b")}, "response_format.json_schema.name"),
    ({"response_format": named({}, name="x" * 65)}, "response_format.json_schema.name"),
    ({"response_format": named({}, strict="yes")}, "response_format.json_schema.strict"),
    ({"response_format": named({}, description=5)}, "response_format.json_schema.description"),
    ({"response_format": named({}, backend="x")}, "response_format.json_schema.backend"),
    ({"response_format": {"type": "json_schema", "json_schema": {"name": "a"}}}, "response_format.json_schema.schema"),
    *(
        ({"response_format": named(bad)}, "response_format.json_schema.schema")
        for bad in ("x", None, [], 5, False, {"enum": [0] * 2000}, {"title": "x" * 70_000}, "{}")
    ),
    ({"structured_outputs": []}, "structured_outputs"),
    ({"structured_outputs": {"json": {}, "regex": "a"}}, "structured_outputs.regex"),
    ({"structured_outputs": {"json_object": True, "regex": "a"}}, "structured_outputs.json_object"),
    ({"structured_outputs": {"json_object": "yes"}}, "structured_outputs.json_object"),
    ({"structured_outputs": {"whitespace_pattern": " "}}, "structured_outputs.whitespace_pattern"),
    ({"structured_outputs": {"regex": 5}}, "structured_outputs.regex"),
    ({"structured_outputs": {"choice": "ab"}}, "structured_outputs.choice"),
    ({"structured_outputs": {"choice": []}}, "structured_outputs.choice"),
    ({"structured_outputs": {"json": 5}}, "structured_outputs.json"),
    ({"guided_json": "{"}, "guided_json"),
    ({"guided_json": 5}, "guided_json"),
    ({"guided_regex": ""}, "guided_regex"),
    ({"guided_choice": [1]}, "guided_choice[0]"),
    ({"guided_choice": [""]}, "guided_choice"),
    ({"guided_grammar": ["a"]}, "guided_grammar"),
    ({"guided_decoding_backend": "xgrammar"}, "guided_decoding_backend"),
    ({"guided_regex": "a", "guided_whitespace_pattern": " "}, "guided_whitespace_pattern"),
    ({"guided_regex": "a", "guided_choice": ["a"]}, "guided_choice"),
    ({"response_format": {"type": "json_object"}, "structured_outputs": {"regex": "a"}}, "structured_outputs.regex"),
]


@pytest.mark.parametrize(("body", "param"), BAD)
def test_what_is_wrong_is_told_of_its_field(body, param):
    with pytest.raises(ApiError) as caught:
        wanted(body)
    assert caught.value.param == param and caught.value.status == 400
    assert caught.value.message.startswith(param) and len(caught.value.message) < 300


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
OPEN = st.dictionaries(
    st.sampled_from(["type", "json_schema", "json", "regex", "choice", "grammar", "json_object", "name", "schema"]),
    JSON | st.sampled_from(["text", "json_object", "json_schema"]) | st.dictionaries(st.sampled_from(["name"]), JSON),
    max_size=3,
)


@given(st.dictionaries(st.sampled_from(sorted(FIELDS)), JSON | OPEN, max_size=3))
def test_any_json_is_read_or_refused(body):
    found, refused = None, None
    try:
        found = wanted(body)
    except ApiError as error:
        refused = error
    if refused is not None:
        assert refused.status == 400 and (refused.param or "").split(".")[0].split("[")[0] in {*FIELDS, ""}
    elif found is not None:
        assert isinstance(found.constraint, Constraint) and found.param.split(".")[0] in body
