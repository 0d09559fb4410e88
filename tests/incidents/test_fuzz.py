"""Bodies drawn from our own description of the API: those that it forbids, and those that it allows.

S23 and promise 1: whatever comes, the answer is one that the contract knows, and nothing of it is felt by others.
"""

from __future__ import annotations

import json

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from incidents.case import CHAT, chat
from incidents.serving import MODEL, Answer, is_known_answer
from schemathesis import GenerationMode
from schemathesis.checks import negative_data_rejection, not_a_server_error

from openwork.serve.openapi import OPERATIONS

PATHS = [operation.path for operation in OPERATIONS if operation.takes is not None]
NUM_EXAMPLES, NUM_LONG = 20, 500


@pytest.fixture(scope="module")
def api(house):
    schema = schemathesis.openapi.from_url(f"http://127.0.0.1:{house.port}/openapi.json")
    with house.audited():
        yield schema


@pytest.mark.parametrize("mode", [GenerationMode.NEGATIVE, GenerationMode.POSITIVE], ids=lambda mode: mode.value)
@pytest.mark.parametrize("path", PATHS)
def test_whatever_is_drawn(api, house, path, mode, is_long):
    """S24: bodies drawn from /openapi.json, forbidden and allowed ones: no answer but the contract's."""
    operation = api[path]["POST"]
    phases = (Phase.explicit, Phase.reuse, Phase.generate)

    @settings(
        max_examples=NUM_LONG if is_long else NUM_EXAMPLES, phases=phases, suppress_health_check=list(HealthCheck)
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def check(case):
        if mode is GenerationMode.POSITIVE and isinstance(case.body, dict):  # of this model, and not for long
            case.body["model"] = MODEL
            if "max_tokens" in case.body:
                case.body["max_tokens"] = 3
        response = case.call(timeout=60)
        headers = {name.lower(): values[0] for name, values in response.headers.items()}
        answer = Answer(response.status_code, headers, response.content, True)
        assert is_known_answer(answer), answer
        checks = [not_a_server_error] + [negative_data_rejection] * (mode is GenerationMode.NEGATIVE)
        case.validate_response(response, checks=checks)

    check()


FIELDS = ("response_format", "structured_outputs", "guided_json", "guided_choice", "decoding", "tools", "tool_choice")


@pytest.mark.parametrize("mode", [GenerationMode.NEGATIVE, GenerationMode.POSITIVE], ids=lambda mode: mode.value)
@pytest.mark.parametrize("field", FIELDS)
def test_whatever_is_drawn_for_a_field(api, house, field, mode, is_long):
    """S32: constraints, tools and searches drawn from /openapi.json, in a request that is right without: answered."""
    described = json.loads(house.get("/openapi.json").body)
    of_chat = described["components"]["schemas"]["ChatBody"]["properties"][field]
    alone = {"type": "object", "properties": {field: of_chat}, "required": [field], "additionalProperties": False}
    described["paths"][CHAT]["post"]["requestBody"]["content"]["application/json"]["schema"] = alone
    operation = schemathesis.openapi.from_dict(described)[CHAT]["POST"]
    count = NUM_LONG if is_long else NUM_EXAMPLES

    @settings(max_examples=count, deadline=None, suppress_health_check=list(HealthCheck))
    @given(case=operation.as_strategy(generation_mode=mode))
    def check(case):
        if isinstance(case.body, dict):
            is_choice = isinstance(case.body.get(field), dict) and case.body[field].get("strategy") == "choose"
            answer = house.post(CHAT, chat(temperature=..., max_tokens=... if is_choice else 3) | case.body)
            assert is_known_answer(answer), answer

    check()
