"""What a request costs, and who is let in."""

import pytest

from openwork import RequestError, SamplingParams
from openwork.core.errors import Overloaded
from openwork.core.request import Limits, Request
from openwork.core.settings import AdmissionSettings, CacheSettings, ScheduleSettings
from openwork.core.terms import Tenant, Tenants, Terms
from openwork.kv.cache import KVCache
from openwork.schedule.admission import price
from openwork.schedule.scheduler import Scheduler


def request(length, tenant="", context=1000, **params):
    return Request((1,) * length, SamplingParams(**params), Limits(50, context), Terms(tenant=tenant))


def desk(tenants=None, blocks=20, **bounds):
    cache = KVCache(CacheSettings(blocks), Tenants(tenants or {}))
    return Scheduler(ScheduleSettings(64, 4), cache, AdmissionSettings(**bounds))


PRICES = [
    ((1, {"max_tokens": 0}), (1, 1, 0)),
    ((16, {"max_tokens": 1}), (1, 1, 0)),
    ((16, {"max_tokens": 2}), (2, 2, 0)),
    ((40, {"max_tokens": 25, "n": 3}), (2 + 3 * 2, 4, 0)),
    ((40, {"max_tokens": 10, "n": 2, "logprobs": 4, "prompt_logprobs": 1}), (2 + 2 * 2, 4, 39 * 2 + 2 * 10 * 5)),
]


@pytest.mark.parametrize(("asked", "wanted"), PRICES)
def test_the_whole_request_is_priced(asked, wanted):
    found = price(request(asked[0], **asked[1]), 16)
    assert (found.blocks, found.line, found.logprobs) == wanted


def test_what_can_never_fit_is_refused_at_once_by_name():
    for scheduler, asked, param in (
        (desk(blocks=4), request(10, max_tokens=60), "max_tokens"),
        (desk({"": Tenant(max_blocks=2)}), request(10, max_tokens=40), "max_tokens"),
        (desk(max_blocks=6), request(30, max_tokens=20, n=4), "n"),
        (desk(max_logprobs=100), request(10, max_tokens=20, logprobs=5), "logprobs"),
    ):
        with pytest.raises(RequestError) as caught:
            scheduler.add(0, asked, 0.0)
        assert caught.value.param == param and caught.value.hint
        scheduler.check()
        assert scheduler.is_idle, "nothing of it is left"


def test_queues_are_bounded_by_requests_and_tokens_for_all_and_for_each():
    for scheduler, is_own in (
        (desk(max_waiting=2), False),
        (desk(max_waiting_tokens=25), False),
        (desk({"ann": Tenant(max_waiting=2)}), True),
        (desk({"ann": Tenant(max_waiting_tokens=25)}), True),
    ):
        for number in range(2):
            scheduler.add(number, request(10, "ann", max_tokens=2), 0.0)
        with pytest.raises(Overloaded) as caught:
            scheduler.add(2, request(10, "ann", max_tokens=2), 0.0)
        assert caught.value.is_own is is_own
        if is_own:
            scheduler.add(2, request(10, "bob", max_tokens=2), 0.0)
        scheduler.plan(0.0)
        scheduler.add(3, request(10, "ann", max_tokens=2), 0.0)
        scheduler.check()


def test_a_long_prompt_may_come_to_an_empty_queue():
    desk(max_waiting_tokens=5).add(0, request(10, max_tokens=2), 0.0)
