"""Masks: a state follows from the tokens, whatever was kept; nothing left to choose ends that sequence alone."""

import numpy as np
import pytest

from openwork import Constraint, SamplingParams
from openwork.core.errors import RequestError
from openwork.core.step import Draw, Expand, Step, Work
from openwork.run.masks import KEPT_STEPS, DeadEnd, Masks

VOCAB = 20
END = 2


class Counting:
    """A matcher under which a token must be above all before it, and 9 is the last; what it was asked is noted."""

    gave_up = False

    def __init__(self, log, tokens=()):
        self.log = log
        self.tokens = list(tokens)

    def take(self, tokens):
        self.log.append(("take", tuple(tokens)))
        self.tokens += tokens
        return self.tokens == sorted(set(self.tokens))

    def mask(self):
        highest = max(self.tokens, default=3)
        ids = [*range(highest + 1, 10), *([END] if highest >= 8 else [])]
        bits = np.zeros(VOCAB, np.uint8)
        bits[ids] = 1
        return np.packbits(bits, bitorder="little").tobytes() if ids and highest != 7 else None

    def fork(self, undone):
        self.log.append(("fork", undone))
        return Counting(self.log, self.tokens[: len(self.tokens) - undone])


class CountingGuide:
    end_ids = frozenset({END})

    def __init__(self):
        self.log = []

    def begin(self, constraint):
        self.log.append(("begin", constraint.source))
        if constraint.source == "bad":
            raise RequestError("cannot be used", param="regex")
        return Counting(self.log)


@pytest.fixture
def guide():
    return CountingGuide()


@pytest.fixture
def masks(guide):
    made = Masks(guide, VOCAB)
    yield made
    made.close()


def ask(masks, output, sequence=0, number=0, pending=None, source="a", **params):
    params = SamplingParams(constraint=Constraint.regex(source), **params)
    generated = len(output) + (pending is not None)
    stops = frozenset(params.stop_token_ids) | (frozenset() if params.ignore_eos else {END})
    draw = Draw(params, 0, 5 + generated, generated, stops, output=tuple(output))
    work = Work(sequence, 4, (1,) if pending is None else (), pending is not None, (0,), (draw,))
    chosen = {} if pending is None else {sequence: pending}
    return np.flatnonzero(masks.begin(Step(number, (work,)), chosen)[0][0].result()).tolist()


def test_a_step_takes_only_what_is_new(masks, guide):
    assert ask(masks, ()) == [4, 5, 6, 7, 8, 9]
    assert ask(masks, (), pending=5) == [6, 7, 8, 9]
    assert ask(masks, (5,), pending=8) == [END, 9]
    assert guide.log == [("begin", "a"), ("take", ()), ("take", (5,)), ("take", (8,))]


def test_what_is_lost_is_rebuilt_from_the_tokens(masks, guide):
    assert ask(masks, (4, 5)) == [6, 7, 8, 9]
    assert guide.log == [("begin", "a"), ("take", (4, 5))]
    for number in range(1, KEPT_STEPS + 2):
        ask(masks, (), sequence=9, number=number, source="b")
    guide.log.clear()
    assert ask(masks, (4, 5), number=KEPT_STEPS + 2, pending=6) == [7, 8, 9]
    assert guide.log == [("begin", "a"), ("take", (4, 5, 6))]


def test_a_fork_goes_on_from_its_relative(masks, guide):
    ask(masks, (4, 5, 6))
    guide.log.clear()
    assert ask(masks, (4, 5), sequence=1, pending=8) == [END, 9]
    assert guide.log == [("fork", 1), ("take", (8,))]
    guide.log.clear()
    ask(masks, (5,), sequence=2)  # nothing in common
    assert guide.log == [("begin", "a"), ("take", (5,))]
    guide.log.clear()
    ask(masks, (4, 6), sequence=0)  # not the line that it was
    assert guide.log == [("fork", 2), ("take", (6,))]


def test_an_end_that_comes_too_early_waits_while_something_else_is_allowed(masks):
    assert ask(masks, (4, 8)) == [END, 9]
    assert ask(masks, (4, 8), sequence=1, min_tokens=3) == [9]
    assert ask(masks, (4, 8), sequence=2, ignore_eos=True) == [9]
    assert ask(masks, (4, 9), sequence=3, min_tokens=9, ignore_eos=True) == [END]
    assert ask(masks, (4,), sequence=4, min_tokens=9, stop_token_ids=(5, 6, 7)) == [8, 9]
    assert ask(masks, (4, 8), sequence=5, stop_token_ids=(9,)) == [END, 9]


def after_guesses(masks, output, drafts, sequence=0, number=0):
    params = SamplingParams(constraint=Constraint.regex("a"))
    draw = Draw(params, 0, 5 + len(output), len(output), frozenset({END}), output=tuple(output))
    work = Work(sequence, 4, (1,), False, (0,), (draw,), drafts=drafts)
    found = []
    for future in masks.begin(Step(number, (work,)), {})[0]:
        try:
            found.append(np.flatnonzero(future.result()).tolist())
        except DeadEnd:
            found.append(None)
    return found


def test_behind_each_guess_is_what_would_be_allowed_if_it_were_right(masks, guide):
    assert after_guesses(masks, (4,), (6, 8)) == [[5, 6, 7, 8, 9], [7, 8, 9], [END, 9]]
    guide.log.clear()
    assert ask(masks, (4, 6), number=1) == [7, 8, 9], "the second was wrong, and is taken back"
    assert guide.log == [("fork", 1), ("take", ())]


def test_nothing_is_followed_behind_a_guess_that_is_not_allowed(masks, guide):
    assert after_guesses(masks, (4,), (6, 3, 8)) == [[5, 6, 7, 8, 9], [7, 8, 9], None, None]
    guide.log.clear()
    assert ask(masks, (4, 6), pending=8, number=1) == [END, 9]
    assert guide.log == [("take", (8,))], "what was right is kept"


def test_a_dead_end_is_told_and_the_others_go_on(masks):
    for output, source in (((7,), "a"), ((5, 4), "a"), ((), "bad")):
        with pytest.raises(DeadEnd):
            ask(masks, output, source=source)
    assert ask(masks, ()) == [4, 5, 6, 7, 8, 9]
    with pytest.raises(DeadEnd, match="no tokenizer"):
        ask(Masks(None, VOCAB), ())


def test_works_without_a_constraint_ask_for_nothing(masks):
    draw = Draw(SamplingParams(), 0, 5, 0, frozenset())
    assert masks.begin(Step(0, (Work(0, 4, (1,), False, (0,), (draw,)),)), {}) == {}
    assert masks._thread is None


def expand(masks, output, sequence=0, source="a"):
    asked = Expand(top=3, constraint=Constraint.regex(source), output=tuple(output))
    work = Work(sequence, 4, (1,), False, (0,), (), None, asked)
    return np.flatnonzero(masks.begin(Step(0, (work,)), {})[0][0].result()).tolist()


def test_a_search_is_told_of_a_dead_end_by_an_empty_mask_and_goes_on_elsewhere(masks, monkeypatch):
    assert expand(masks, (4, 8)) == [END, 9]
    assert expand(masks, (7,), sequence=1) == []
    monkeypatch.setattr(Counting, "gave_up", True)
    with pytest.raises(DeadEnd):  # not known to be a dead end: nothing may be proved by it
        expand(masks, (7,), sequence=2)
    with pytest.raises(DeadEnd):
        expand(masks, (5, 4), sequence=3)
