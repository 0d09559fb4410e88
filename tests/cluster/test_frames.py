"""Messages over the wire: whatever is said arrives as it was said, and whatever else arrives is refused."""

import zlib
from contextlib import suppress

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openwork.cluster import wire
from openwork.cluster.frames import DOWN, HEADER, MAGIC, UP, Direction, Frames, frame
from openwork.core import errors
from openwork.core.errors import EngineError, ModelError, OpenworkError, Overloaded, PromptTooLong, RequestError
from openwork.core.event import Account, Admitted, Arrived, Ended, Finished, Miss, Preempted, Prefilled, Token
from openwork.core.gauges import Gauges
from openwork.core.output import Logprob
from openwork.core.request import MAX_SEED, Limits, Request, SamplingParams
from openwork.core.settings import AdmissionSettings, LoadSettings, ScheduleSettings
from openwork.core.step import Choice
from openwork.core.terms import Tenant, Terms
from openwork.engine.face import Facts

LIMITS = Limits(50, 160, frozenset({2, 3}))
whole = st.integers(0, 2**40)
real = st.floats(allow_nan=False)
logprobs = st.builds(Logprob, whole, real, whole, st.lists(st.tuples(whole, real), max_size=3).map(tuple))
params = st.builds(
    SamplingParams,
    temperature=st.floats(0, 100),
    seed=st.integers(0, MAX_SEED),
    n=st.integers(1, 128),
    max_tokens=st.none() | st.just(9),
    stop=st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=9), max_size=3).map(tuple),
    stop_token_ids=st.lists(st.integers(0, 49), max_size=3).map(tuple),
    logit_bias=st.dictionaries(st.integers(0, 49), st.floats(-100, 100), max_size=3),
    logprobs=st.none() | st.integers(0, 20),
)
terms = st.builds(
    Terms,
    tenant=st.text(max_size=9),
    namespace=st.none() | st.text(max_size=9),
    priority=st.integers(-9, 9),
    first_token_s=st.none() | st.floats(0.1, 9),
)
requests = st.builds(
    Request, st.lists(st.integers(0, 49), min_size=1, max_size=40).map(tuple), params, st.just(LIMITS), terms
)
misses = st.builds(Miss, st.sampled_from(["cold", "evicted"]), whole, st.none() | st.text(max_size=5), st.none() | real)
events = st.one_of(
    st.builds(Arrived, whole, real),
    st.builds(Admitted, whole, whole, whole, real, whole, st.none() | misses),
    st.builds(Preempted, whole, whole, whole, real, st.text(max_size=4), st.just("blocks"), st.none() | whole, whole),
    st.builds(Prefilled, whole, whole, whole, whole, real),
    st.builds(Token, whole, whole, whole, st.builds(Choice, whole, st.none() | logprobs), real),
    st.builds(Finished, whole, whole, st.sampled_from(["stop", "error"]), real, st.none() | whole, st.text(max_size=9)),
    st.builds(
        Ended,
        whole,
        whole,
        real,
        st.none() | st.lists(st.none() | logprobs, max_size=3).map(tuple),
        st.builds(Account, real, whole, stalls=st.just((("rows", 0.5),)), miss=st.none() | misses),
    ),
)
gauges = st.builds(Gauges, whole, whole, whole, whole, whole, whole)
tenants = st.dictionaries(
    st.text(max_size=5), st.builds(Tenant, weight=st.floats(0.1, 9), max_running=st.none() | st.just(3)), max_size=2
)
troubles = st.builds(
    wire.Trouble, st.text(max_size=9), st.text(max_size=9), st.text(max_size=9), st.text(max_size=9), st.booleans()
)
downs = st.one_of(
    st.builds(
        wire.Start,
        st.none() | st.text(max_size=9),
        st.builds(LoadSettings, threads=st.none() | st.just(2)),
        st.builds(ScheduleSettings, is_fair=st.booleans()),
        st.builds(AdmissionSettings, max_waiting=st.none() | st.just(3)),
        tenants,
        st.none() | st.text(max_size=9),
        st.booleans(),
    ),
    st.builds(wire.Submit, whole, requests, st.none() | st.dictionaries(whole, st.lists(whole, max_size=3))),
    st.builds(wire.Cancel, whole, st.none() | whole, st.sampled_from(["cancelled", "stop"])),
    st.builds(wire.Withdraw, whole),
    st.builds(wire.Pin, whole, terms, st.lists(whole, max_size=4), real),
    st.builds(wire.Replace, tenants),
    st.builds(wire.Stop),
)  # fmt: skip
ups = st.one_of(
    st.builds(wire.Loading, st.text(max_size=9), whole, whole),
    st.builds(
        wire.Ready, st.just(Facts("m", LIMITS, SamplingParams(), "/x", "c", "bfloat16")), st.text(max_size=9), whole
    ),
    st.builds(wire.Refused, troubles),
    st.builds(wire.Accepted, whole),
    st.builds(wire.Rejected, whole, troubles),
    st.builds(wire.Withdrawn, whole),
    st.builds(wire.Pinned, whole, whole),
    st.builds(wire.Planned, whole, whole, st.lists(whole, max_size=9)),
    st.builds(wire.Report, gauges, st.dictionaries(st.text(max_size=4), gauges, max_size=2)),
    st.builds(wire.Turned, whole, whole, whole, st.lists(events, max_size=9).map(wire.happened)),
)
either = st.one_of(downs.map(lambda m: (DOWN, m)), ups.map(lambda m: (UP, m)))


@given(st.lists(ups, max_size=4), st.data())
def test_messages_come_back_as_they_were_whatever_the_pieces(messages, data):
    sent = b"".join(frame(message, UP) for message in messages)
    frames, found = Frames(UP), []
    while sent:
        cut = data.draw(st.integers(1, len(sent)))
        found += frames.feed(sent[:cut])
        sent = sent[cut:]
    assert found == messages


@given(downs)
def test_messages_to_the_worker_come_back_as_they_were(message):
    assert list(Frames(DOWN).feed(frame(message, DOWN))) == [message]


@given(either)
def test_a_message_of_the_other_direction_is_refused(case):
    direction, message = case
    other = UP if direction is DOWN else DOWN
    with pytest.raises(EngineError):
        list(Frames(other).feed(frame(message, direction)))


@given(either, st.data())
def test_a_bit_that_fell_over_is_refused_or_waited_for(case, data):
    """No damage of one bit gives a message: the header's own may make it wait for more that never comes."""
    direction, message = case
    sent = bytearray(frame(message, direction))
    place = data.draw(st.integers(0, len(sent) * 8 - 1))
    sent[place // 8] ^= 1 << place % 8
    with suppress(EngineError):
        assert list(Frames(direction).feed(bytes(sent))) == []


@given(st.sampled_from([UP, DOWN]), st.binary(max_size=400))
def test_noise_is_refused_or_waited_for(direction, noise):
    with suppress(EngineError):
        assert list(Frames(direction).feed(noise)) == [] and len(noise) < HEADER.size


anything = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(max_size=9) | st.binary(),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=9), inner, max_size=4),
    max_leaves=30,
)  # fmt: skip


@given(st.sampled_from([UP, DOWN]), st.lists(anything, max_size=7), st.integers(0, 50))
def test_well_formed_bodies_of_anything_are_messages_or_refused(direction, fields, tag):
    body = msgspec.msgpack.encode([tag, *fields])
    sent = HEADER.pack(MAGIC, len(body), zlib.crc32(body)) + body
    try:
        found = list(Frames(direction).feed(sent))
    except EngineError:
        return
    assert len(found) == 1 and isinstance(found[0], wire.Message)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xc1",
        b"\x91" * 100_000 + b"\x00",  # deeper than anybody nests
        b"\xdd\xff\xff\xff\xff",  # four billion entries, none of them there
        b"\xdb\xff\xff\xff\xffx",
        msgspec.msgpack.encode([3, 1, None, "cancelled", "one more"]),
        msgspec.msgpack.encode([3, 1]),
        msgspec.msgpack.encode([3, 1, None, "explode"]),
        msgspec.msgpack.encode([99]),
        msgspec.msgpack.encode({"type": 3}),
    ],
)
def test_hostile_bodies_are_refused(body):
    with pytest.raises(EngineError):
        list(Frames(DOWN).feed(HEADER.pack(MAGIC, len(body), zlib.crc32(body)) + body))


def test_what_the_constructors_refuse_the_wire_refuses():
    sent = frame(wire.Submit(1, Request((1,), SamplingParams(), LIMITS)), DOWN)
    body = sent[HEADER.size :].replace(b"\xabtemperature\xcb\x3f\xf0", b"\xabtemperature\xcb\xbf\xf0")
    assert body != sent[HEADER.size :]
    with pytest.raises(EngineError, match="temperature"):
        list(Frames(DOWN).feed(HEADER.pack(MAGIC, len(body), zlib.crc32(body)) + body))


def test_no_more_is_kept_than_one_frame_may_have():
    small = Direction(wire.Down, 100)
    with pytest.raises(EngineError, match="larger"):
        list(Frames(small).feed(HEADER.pack(MAGIC, 101, 0)))
    with pytest.raises(EngineError, match="may be sent"):
        frame(wire.Pin(1, Terms(), list(range(200)), 1.0), small)


@pytest.mark.parametrize(
    "error",
    [
        ModelError("is broken", "Mend it.", where="config.json", field="x"),
        RequestError("is wrong", "Do otherwise.", param="top_p"),
        PromptTooLong("is long", param="prompt"),
        Overloaded("full", "Wait.", is_own=True),
        errors.MemoryTooSmall("3 bytes"),
        errors.BackendError("no core"),
        EngineError("it failed"),
    ],
)
def test_errors_are_the_same_on_the_other_side(error):
    again = wire.as_error(wire.as_trouble(error))
    assert type(again) is type(error) and str(again) == str(error) and again.hint == error.hint
    for name in ("param", "is_own"):
        assert getattr(again, name, None) == getattr(error, name, None)


@given(troubles)
def test_any_trouble_is_an_error_of_ours(trouble):
    assert isinstance(wire.as_error(trouble), OpenworkError)


def test_an_error_that_is_not_ours_becomes_one():
    again = wire.as_error(wire.as_trouble(ZeroDivisionError("division by zero")))
    assert type(again) is EngineError and "ZeroDivisionError" in str(again)


def test_stamps_stay_where_they_are_recorded():
    token = Token(1, 0, 5, Choice(7, None, 9, (1, 2, 3)), 0.5)
    (happened,) = wire.happened([token])
    assert happened.event == Token(1, 0, 5, Choice(7, None, 9), 0.5) and token.choice.stamp == (1, 2, 3)
