"""Terms and tenants are checked when they are made."""

import pytest

from openwork import OpenworkError, RequestError
from openwork.core.settings import AdmissionSettings, ScheduleSettings
from openwork.core.terms import Tenant, Tenants, Terms

WRONG_TERMS = [
    {"tenant": 3},
    {"tenant": "a" * 257},
    {"namespace": b"x"},
    {"priority": 1001},
    {"priority": True},
    {"priority": 0.5},
    {"first_token_s": 0},
    {"first_token_s": float("nan")},
    {"next_token_s": -1.0},
    {"next_token_s": float("inf")},
]


@pytest.mark.parametrize("wrong", WRONG_TERMS, ids=str)
def test_terms_name_what_is_wrong(wrong):
    with pytest.raises(RequestError) as caught:
        Terms(**wrong)
    assert caught.value.param == next(iter(wrong))


WRONG_NUMBERS = [
    (Tenant, {"weight": 0}),
    (Tenant, {"weight": float("nan")}),
    (Tenant, {"max_running": 0}),
    (Tenant, {"max_blocks": 1.5}),
    (Tenant, {"reserved_blocks": -1}),
    (AdmissionSettings, {"max_waiting": 0}),
    (AdmissionSettings, {"max_logprobs": True}),
    (ScheduleSettings, {"order": "random"}),
    (ScheduleSettings, {"first": "last"}),
    (ScheduleSettings, {"patience_s": 0}),
    (ScheduleSettings, {"next_token_s": float("nan")}),
]


@pytest.mark.parametrize(("kind", "wrong"), WRONG_NUMBERS, ids=str)
def test_settings_that_cannot_work_are_refused(kind, wrong):
    with pytest.raises(OpenworkError):
        kind(**wrong)


def test_a_namespace_called_like_a_tenant_is_another_one():
    assert Terms(tenant="ann").realm != Terms(tenant="bob", namespace="ann").realm
    assert Terms(tenant="ann").realm == Terms(tenant="ann", priority=3).realm


def test_who_is_not_named_has_the_default():
    tenants = Tenants({"ann": Tenant(weight=2)}, Tenant(max_running=1))
    assert tenants["ann"].weight == 2 and tenants["bob"].max_running == 1
    tenants.replace({})
    assert tenants["ann"].max_running == 1
