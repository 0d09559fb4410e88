"""Rates, places and namespaces: what one tenant takes is bounded, given back, and seen by nobody else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openwork.core.errors import RequestError
from openwork.serve.callers import Caller, Callers
from openwork.serve.errors import ApiError
from openwork.serve.keys import Grant, Keys, digest_of
from openwork.serve.rates import Bucket, rate_headers


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def grant(name="a", **fields):
    return Grant(tenant=name, digests=frozenset({digest_of(name.encode())}), **fields)


def world(*grants):
    clock = Clock()
    return Callers(Keys(grants), b"secret", clock), clock


def come(callers, key="a"):
    return callers.identify([(b"authorization", b"Bearer " + key.encode())])


# -- buckets


@given(st.integers(1, 10**6), st.lists(st.tuples(st.floats(0, 100), st.floats(0, 10**6), st.floats(0, 10**6))))
def test_no_more_is_taken_in_any_time_than_its_minutes_hold(capacity, visits):
    bucket, now, taken = Bucket(capacity, 0.0), 0.0, 0.0
    for pause, amount, used in visits:
        now += pause
        if bucket.wait_s(amount, now) > 0:
            continue
        held = bucket.take(amount, now)
        assert held <= capacity
        bucket.settle(held, min(used, held), now)
        taken += min(used, held)
        assert bucket.level(now) <= capacity
        assert taken <= capacity * (1 + now / 60) * (1 + 1e-9) + 1e-6


@given(st.integers(1, 10**6), st.floats(0, 10**7), st.floats(0, 10**7))
def test_who_waits_as_long_as_told_is_served(capacity, used, amount):
    bucket = Bucket(capacity, 0.0)
    bucket.settle(bucket.take(used, 0.0), used, 0.0)  # perhaps far below nothing
    wait = bucket.wait_s(amount, 0.0)
    assert bucket.wait_s(amount, wait * (1 + 1e-9) + 1e-6) == pytest.approx(0, abs=1e-6)


def test_time_that_goes_back_gives_nothing():
    bucket = Bucket(60, 100.0)
    bucket.take(60, 100.0)
    assert bucket.level(50.0) == 0 and bucket.level(100.0) == 0 and bucket.level(101.0) == 1


def test_headers_say_what_is_left():
    bucket = Bucket(60, 0.0)
    bucket.take(30.5, 0.0)
    assert rate_headers("tokens", bucket, 0.0) == {
        "x-ratelimit-limit-tokens": "60",
        "x-ratelimit-remaining-tokens": "29",
        "x-ratelimit-reset-tokens": "30.500s",
    }


# -- callers


def test_requests_above_the_rate_are_told_when_to_come_back():
    callers, clock = world(grant(requests_per_minute=2))
    for _ in range(2):
        with come(callers).reserve(10):
            pass
    with pytest.raises(ApiError) as caught:
        come(callers).reserve(10)
    headers = caught.value.all_headers()
    assert caught.value.status == 429 and headers["Retry-After"] == "30"
    assert headers["x-ratelimit-remaining-requests"] == "0"
    clock.now += 30
    come(callers).reserve(10)


def test_tokens_are_taken_at_most_and_settled_at_what_they_were():
    callers, clock = world(grant(tokens_per_minute=100))
    with come(callers).reserve(90) as held:
        with pytest.raises(ApiError):
            come(callers).reserve(20)
        held.settle(10)
    assert come(callers).headers()["x-ratelimit-remaining-tokens"] == "90"
    with come(callers).reserve(90):
        pass  # nobody said: all of it
    assert come(callers).headers()["x-ratelimit-remaining-tokens"] == "0"
    clock.now += 60
    with come(callers).reserve(10**9) as held:  # more than ever fits waits for a full bucket, and is then let in
        held.settle(250)
    assert come(callers).headers()["x-ratelimit-remaining-tokens"] == "0"
    with pytest.raises(ApiError) as caught:
        come(callers).reserve(1)
    assert caught.value.retry_after_s == pytest.approx(150 * 0.6 + 0.6)


def test_a_request_refused_for_tokens_takes_no_request():
    callers, _ = world(grant(requests_per_minute=5, tokens_per_minute=10))
    with come(callers).reserve(10):
        for _ in range(10):
            with pytest.raises(ApiError):
                come(callers).reserve(10)
    assert come(callers).headers()["x-ratelimit-remaining-requests"] == "4"


def test_places_are_bounded_and_given_back_once():
    callers, _ = world(grant(max_running=1, max_waiting=1), grant("b"))
    first = come(callers).reserve(1)
    with come(callers).reserve(1):
        with pytest.raises(ApiError) as caught:
            come(callers).reserve(1)
        assert caught.value.status == 429
        with come(callers, "b").reserve(1):
            pass
    with first, pytest.raises(ZeroDivisionError):
        raise ZeroDivisionError
    first.__exit__(None, None, None)
    assert callers.usage["a"].running == 0 and callers.usage["a"].refused == 1


def test_models_are_those_granted():
    callers, _ = world(grant(models=frozenset({"m"})), grant("b"))
    assert come(callers).may_use("m") and not come(callers).may_use("n") and come(callers, "b").may_use("n")


def test_a_namespace_is_seen_by_its_circle_only():
    grants = (grant(), grant("b"), grant("c", cache="g"), grant("d", cache="g"), grant("e", cache="a"))
    callers, _ = world(*grants)
    names = {key: come(callers, key).terms().namespace for key in "abcde"}
    assert names["c"] == names["d"]
    assert len(set(names.values())) == 4
    salted = {come(callers, key).terms(cache_salt=salt).namespace for key in "ac" for salt in ("x", "y")}
    assert len(salted | set(names.values())) == 8
    other = Callers(Keys(grants), b"another secret")
    assert come(other).terms().namespace != names["a"]
    assert come(callers).terms().tenant == "a"


@pytest.mark.parametrize("salt", ["", "a b", "é", "x" * 129, "a\n", "a\0b", "{}"])
def test_salts_are_short_and_plain(salt):  # CVE-2026-105756
    for caller in (Caller(), come(world(grant())[0])):
        with pytest.raises(RequestError, match="cache_salt"):
            caller.terms(cache_salt=salt)


def test_without_keys_everybody_is_one_tenant():
    callers = Callers(None, b"secret")
    caller = callers.identify([])
    assert caller.tenant == "" and caller.may_operate and callers.is_welcome(caller) and callers.tenants(10) == {}
    with caller.reserve(10**9) as held:
        held.settle(3)


def test_a_new_file_changes_bounds_and_forgets_whoever_is_gone():
    callers, clock = world(grant(tokens_per_minute=100), grant("b"))
    with come(callers).reserve(50):
        pass
    old, gone = come(callers), come(callers, "b")
    callers.replace(Keys([grant(tokens_per_minute=10, weight=3.0)]))
    assert come(callers).headers()["x-ratelimit-remaining-tokens"] == "5"
    assert callers.is_welcome(old) and not callers.is_welcome(gone)
    assert callers.tenants(10)["a"].weight == 3.0
    callers.replace(Keys([grant()]))
    assert come(callers).headers() == {} and clock.now == 0
    with pytest.raises(ApiError):
        come(callers, "b")
    callers.replace(Keys([Grant(tenant="c", digests=frozenset({digest_of(b"a")}))]))
    assert not callers.is_welcome(old)  # the same key, but somebody else's
