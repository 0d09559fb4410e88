from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openwork.text.stream import TextStream

KINDS = ("byte_level", "sentencepiece", "metaspace", "plain")


def tokens(ours):
    return st.lists(st.integers(0, ours.vocab_size - 1), max_size=30)


def run(stream: TextStream, parts: list[list[int]]) -> str:
    return "".join([stream.push(part) for part in parts]) + stream.finish()


def cut(data, ids):
    """The same tokens, divided at drawn places."""
    places = sorted(data.draw(st.lists(st.integers(0, len(ids)), max_size=6)))
    return [ids[a:b] for a, b in zip([0, *places], [*places, len(ids)], strict=True)]


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data(), skip=st.booleans(), continues=st.booleans())
def test_the_parts_are_the_whole(pairs, kind, data, skip, continues):
    ours, _ = pairs[kind]
    ids = data.draw(tokens(ours))
    stream = TextStream(ours, skip_special=skip, continues=continues)
    assert run(stream, cut(data, ids)) == ours.decode(ids, skip, continues=continues)
    assert stream.stopped is None
    assert stream.num_tokens == len(ids)


def expected_cut(ours, ids: list[int], stops: list[str], min_tokens: int) -> tuple[str, str | None]:
    """The definition, written down without any cleverness: characters one by one, as tokens complete them."""
    stream = TextStream(ours)  # without stop strings: plain incremental text
    text = ""
    for count, part in enumerate([*([token] for token in ids), None], 1):
        for char in stream.finish() if part is None else stream.push(part):
            text += char
            complete = [stop for stop in stops if text.endswith(stop)]
            if complete and min(count, len(ids)) >= min_tokens:
                stop = max(complete, key=len)
                return text[: -len(stop)], stop
    return text, None


@pytest.mark.parametrize("kind", ["byte_level", "sentencepiece", "metaspace"])
@given(data=st.data(), min_tokens=st.integers(0, 12))
def test_stop_strings_cut_where_the_definition_says(pairs, kind, data, min_tokens):
    ours, _ = pairs[kind]
    ids = data.draw(tokens(ours))
    text = ours.decode(ids)
    inside = [text[a : a + n] for a in range(len(text)) for n in (1, 2, 5)] or ["x"]
    stops = data.draw(st.lists(st.sampled_from(inside) | st.text("aé\ufffd ", min_size=1, max_size=4), max_size=4))
    stream = TextStream(ours, stops, min_tokens=min_tokens)
    shown = run(stream, cut(data, ids))
    assert (shown, stream.stopped) == expected_cut(ours, ids, stops, min_tokens)


@given(text=st.text("ab", max_size=40), stops=st.lists(st.text("ab", min_size=1, max_size=6), min_size=1, max_size=3))
def test_stop_strings_that_overlap_themselves(pairs, text, stops):
    ours, _ = pairs["byte_level"]
    ids = ours.encode(text)
    stream = TextStream(ours, stops)
    assert (run(stream, [[token] for token in ids]), stream.stopped) == expected_cut(ours, ids, stops, 0)


def test_what_is_shown_is_never_taken_back(pairs):
    ours, _ = pairs["byte_level"]
    stream = TextStream(ours, stop=("aab",))
    assert [stream.push(ours.encode(char)) for char in "xaaab"] == ["x", "", "", "a", ""]
    assert stream.stopped == "aab"
    assert stream.num_tokens == 5
    assert stream.push(ours.encode("more")) == ""
    assert stream.finish() == ""
    assert stream.num_tokens == 5


def test_a_character_is_never_split(pairs):
    ours, _ = pairs["byte_level"]
    ids = ours.encode("🐈é")
    assert len(ids) > 2
    stream = TextStream(ours)
    shown = [stream.push([token]) for token in ids]
    assert [text for text in shown if text] == ["🐈", "é"]


def test_a_cut_character_shows_at_the_end(pairs):
    ours, _ = pairs["byte_level"]
    stream = TextStream(ours)
    assert stream.push(ours.encode("🐈")[:1]) == ""
    assert stream.finish() == "\ufffd"
    assert stream.finish() == ""


def test_what_was_held_back_comes_at_the_end(pairs):
    ours, _ = pairs["byte_level"]
    stream = TextStream(ours, stop=("END.",))
    assert stream.push(ours.encode("the END")) == "the "
    assert stream.finish() == "END"
    assert stream.stopped is None


def test_the_stop_string_that_is_complete_first_counts(pairs):
    ours, _ = pairs["byte_level"]
    stream = TextStream(ours, stop=("abcd", "bc", "c"))
    assert run(stream, [ours.encode("xabcd")]) == "xa"
    assert stream.stopped == "bc", "bc and c end together; the longer one is taken"


def test_min_tokens_lets_early_stop_strings_pass(pairs):
    ours, _ = pairs["byte_level"]
    stream = TextStream(ours, stop=("ab",), min_tokens=4)
    assert run(stream, [ours.encode("ab"), ours.encode("xab")]) == "abx"
    assert stream.num_tokens == 5


def test_a_stop_string_may_reach_over_min_tokens(pairs):
    ours, _ = pairs["byte_level"]
    stream = TextStream(ours, stop=("abab",), min_tokens=3)
    assert run(stream, [[token] for token in ours.encode("xabab")]) == "x"


def test_the_work_is_linear_in_the_length(pairs, monkeypatch):
    ours, _ = pairs["byte_level"]
    looked = 0
    visible = ours.visible

    def counting(token, skip_special=True):
        nonlocal looked
        looked += 1
        return visible(token, skip_special)

    monkeypatch.setattr(ours, "visible", counting)
    stream = TextStream(ours, stop=("a" * 1000 + "b",))
    ids = [ours.encode("a")[0]] * 20_000
    random.Random(0).shuffle(ids)
    text = run(stream, [[token] for token in ids])
    assert text == "a" * 20_000
    assert looked == 20_000, "every token is looked at once"
    assert len(stream._held) == 0
