"""The validator is a total function: any JSON value is a record or an ApiError; and what a record may hold is plain."""

import json
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openwork.core.request import Limits, SamplingParams
from openwork.engine.face import Facts
from openwork.serve.bounds import Bounds
from openwork.serve.errors import ApiError
from openwork.serve.sampling import sampling_params
from openwork.serve.schema.chat import ChatBody
from openwork.serve.schema.completion import CompletionBody
from openwork.serve.schema.reading import read, read_json

BODIES = (CompletionBody, ChatBody)
NAMES = sorted({name for body in BODIES for name in (*body.__struct_fields__, *body.unsupported)})
ODD = [-1, 0, 1, 2, 2**31, 2**63, 2**64, -(2**63), 1e308, -0.0, 5e-324, "", "a", "\0", "\ud800", "é", [], {}, [[]], [1]]

text = st.text(st.characters(exclude_categories=()), max_size=8)
scalars = st.none() | st.booleans() | st.integers() | st.floats() | text | st.sampled_from(ODD)
messages = st.fixed_dictionaries(
    {},
    optional={
        "role": st.sampled_from(["system", "user", "assistant", "tool", "developer", "root"]) | scalars,
        "content": text
        | scalars
        | st.lists(st.fixed_dictionaries({"type": st.just("text"), "text": text}), max_size=2),
        "name": text,
        "tool_calls": st.lists(scalars, max_size=2),
        "tool_call_id": text,
    },
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text | st.sampled_from(NAMES), inner, max_size=4),
)
bodies = st.builds(
    lambda required, optional: {**optional, **required},
    st.fixed_dictionaries({"model": st.just("m"), "prompt": text | values, "messages": st.lists(messages, max_size=3)}),
    st.dictionaries(st.sampled_from(NAMES), values, max_size=6),
)
FACTS = Facts("m", Limits(100, 64), SamplingParams())


def outcome(value, kind):
    """Record or refusal of a value; anything else is raised."""
    try:
        return read(json.dumps(value).encode(), kind)
    except ApiError as error:
        told = error
    assert told.status == 400 and told.type == "invalid_request_error" and told.message
    json.dumps(told.body(), ensure_ascii=False).encode()
    return told


@given(values | bodies, st.sampled_from(BODIES))
def test_any_value_is_a_record_or_a_refusal(value, kind):
    read_again = outcome(value, kind)
    if isinstance(read_again, kind):
        with pytest.raises(AttributeError):
            read_again.model = "other"


@given(st.binary(max_size=64) | text.map(lambda t: t.encode(errors="surrogatepass")), st.sampled_from(BODIES))
def test_any_bytes_are_a_record_or_a_refusal(body, kind):
    with suppress(ApiError):
        read(body, kind)


@settings(max_examples=25)
@given(bodies)
def test_whatever_is_read_becomes_parameters_or_a_refusal(value):
    """S23: no combination of fields is anything but accepted or refused."""
    for name in (
        "messages",
        *CompletionBody.unsupported,
        *(set(ChatBody.__struct_fields__) - set(CompletionBody.__struct_fields__)),
    ):
        value.pop(name, None)
    body = outcome({**value, "prompt": "x"}, CompletionBody)
    if isinstance(body, ApiError):
        return
    with suppress(ApiError):
        made = sampling_params(body, FACTS, Bounds(), n=1, max_tokens=4, logprobs=body.logprobs, prompt_logprobs=None)
        assert made.top_k <= 100 and (made.temperature == 0 or made.temperature >= 1e-5)


@given(st.integers(1, 100))
def test_depth_is_bounded(depth):
    body = b"[" * depth + b"]" * depth
    if depth <= 64:
        read_json(body)
    else:
        with pytest.raises(ApiError, match="nested"):
            read_json(body)


@pytest.mark.parametrize("body", BODIES)
def test_every_field_that_is_refused_by_name_is_no_field(body):
    assert not set(body.unsupported) & set(body.__struct_fields__)
