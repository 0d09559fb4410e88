"""Ngram: it foretells what followed where it was like this before, counts how often that is right, and reads once."""

from hypothesis import given
from hypothesis import strategies as st

from openwork.decode.ngram import LONGEST, TRIED, Ngram


def after(tokens, prompt_len=None):
    ngram = Ngram(len(tokens) if prompt_len is None else prompt_len)
    ngram.follow(tokens, len(tokens))
    return ngram


def agreeing(tokens, place):
    """How many tokens before ``place`` are those at the end."""
    length = 0
    while length < min(place, LONGEST) and tokens[place - length - 1] == tokens[len(tokens) - length - 1]:
        length += 1
    return length


def test_what_followed_before_is_what_is_foretold():
    ngram = after([1, 2, 3, 4, 5, 6, 1, 2, 3])
    assert ngram.propose(3) == (4, 5, 6) and len(ngram.odds(3)) == 3


def test_the_longest_match_wins_and_the_latest_among_equals():
    assert after([9, 1, 2, 7, 0, 1, 2, 8, 9, 1, 2]).propose(1) == (7,)
    assert after([1, 2, 7, 1, 2, 8, 1, 2]).propose(1) == (8,)


def test_a_guess_runs_on_into_itself():
    assert after([5, 1, 2, 1, 2]).propose(5) == (1, 2, 1, 2, 1)
    assert after([7, 7, 7]).propose(4) == (7, 7, 7, 7)


def test_nothing_is_foretold_where_nothing_was_like_this():
    for tokens in ([], [1], [1, 2], [1, 2, 3], [1, 2, 2, 1]):
        assert after(tokens).odds(5) == []


@given(st.lists(st.integers(0, 3), max_size=60), st.integers(1, 8))
def test_a_guess_is_a_place_that_agrees_as_well_as_any_that_is_looked_at(tokens, num):
    ngram = after(tokens)
    places = [at for at in range(2, len(tokens)) if tokens[at - 2 : at] == tokens[-2:]]
    latest = places[-TRIED:]
    if not ngram.odds(num):
        assert not places
        return
    best = max(agreeing(tokens, at) for at in latest)
    expected = max(at for at in latest if agreeing(tokens, at) == best)
    longer = list(tokens)
    for at in range(expected, expected + num):
        longer.append(longer[at])
    assert ngram.propose(num) == tuple(longer[len(tokens) :])


@given(st.lists(st.integers(0, 4), max_size=80), st.lists(st.integers(0, 80), max_size=6), st.integers(0, 80))
def test_reading_in_parts_is_reading_at_once(tokens, cuts, prompt_len):
    whole, parts = after(tokens, prompt_len), Ngram(prompt_len)
    for cut in [*sorted(cuts), len(tokens)]:
        parts.follow(tokens, min(cut, len(tokens)))
    odds = whole.odds(9)
    assert parts.odds(9) == odds
    assert parts.propose(len(odds)) == whole.propose(len(odds))


@given(st.lists(st.integers(0, 2), min_size=3, max_size=80))
def test_odds_are_probabilities_that_fall(tokens):
    odds = after(tokens, 0).odds(12)
    assert all(0 < odd < 1 for odd in odds)
    assert odds == sorted(odds, reverse=True)


def test_being_right_raises_the_odds_and_being_wrong_lowers_them_until_nothing_is_guessed():
    block = [*range(10, 20)]
    right = after(block * 12, len(block))
    assert right.odds(8)[7] > 0.6
    tokens = []
    for last in range(100):  # 1 2 is followed by something else each time
        tokens += [1, 2, 1000 + last]
    wrong = after([*tokens, 1, 2], 2)
    assert wrong.odds(8) == []


def test_a_prompt_is_learnt_from_and_no_trial():
    noisy = [1, 2, 3, 1, 2, 4, 1, 2, 5, 1, 2, 6, 1, 2]
    assert after(noisy).odds(1)[0] > after(noisy, 0).odds(1)[0]
