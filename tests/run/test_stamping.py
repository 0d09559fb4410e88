"""Which rows are stamped, and that a stamp stands beside the token whose row it is of."""

from collections import Counter
from types import SimpleNamespace

import pytest

from openwork.core.request import SamplingParams
from openwork.core.stamp import num_points
from openwork.core.step import Choice, Draw, Outcome, Score, Step, Work
from openwork.run.stamping import AT_ONCE, Stamping, stamped

DRAW = Draw(SamplingParams(), 0, 1, 0, frozenset())


def decode(num):
    works = tuple(Work(each, 7, (1,), False, (0,), (DRAW,)) for each in range(num))
    return Step(0, works), SimpleNamespace(starts=list(range(num + 1)))


def rows_of(stamps):
    return [] if stamps is None else stamps.rows.tolist()


@pytest.mark.parametrize("every", [1, 2, 3, 16, 35])
@pytest.mark.parametrize("batch", [1, 2, 3, 16, 32])
def test_one_row_of_so_many_is_stamped_and_each_sequence_has_its_turn(every, batch):
    stamping, seen, num_steps = Stamping(every, 2), Counter(), 40 * every
    for _ in range(num_steps):
        seen.update(rows_of(stamping.choose(*decode(batch))))
    assert abs(sum(seen.values()) - num_steps * batch / every) <= 2 * AT_ONCE
    assert set(seen) == set(range(batch))
    assert max(seen.values()) <= 3 * min(seen.values())


def test_one_sequence_has_some_first_rows_stamped_and_then_one_of_so_many():
    stamping = Stamping(5, 2)
    stamped_rows = [len(rows_of(stamping.choose(*decode(1)))) for _ in range(16)]
    assert stamped_rows == [1] * AT_ONCE + [0, 1] + [0, 0, 0, 0, 1] * 2


def test_none_is_stamped_unless_it_is_wanted():
    assert Stamping(0, 2).choose(*decode(4)) is None


def test_only_rows_that_tokens_are_drawn_from_count():
    chunk = Work(0, 0, (1, 2, 3), False, (0,))
    scored = Work(1, 0, (1, 2, 3), False, (0,), score=Score((2, 3), 0))
    drawn = Work(2, 0, (1, 2, 3), False, (0,), (DRAW,))
    pending = Work(3, 4, (), True, (0,), (DRAW,))
    guesses = Work(4, 4, (1, 2), False, (0,), (DRAW,), drafts=(7, 8))
    step = Step(0, (chunk, scored, drawn, pending, guesses))
    batch = SimpleNamespace(starts=[0, 3, 6, 9, 10, 14])
    stamps = Stamping(1, 2).choose(step, batch)
    assert rows_of(stamps) == [8, 9, 11, 12, 13]
    assert stamps.points.shape == (5, num_points(2))
    assert Stamping(1, 2).choose(Step(0, (chunk, scored)), SimpleNamespace(starts=[0, 3, 6])) is None
    stamps.points[:, 0] = [8, 9, 11, 12, 13]
    bare = [
        Outcome(),
        Outcome(),
        Outcome((Choice(1), Choice(2))),
        Outcome(failure="no"),
        Outcome((Choice(7), Choice(9))),
    ]
    found = stamped(bare, step, batch, stamps)
    said = [[None if choice.stamp is None else choice.stamp[0] for choice in outcome.choices] for outcome in found]
    assert said == [[], [], [8, None], [], [11, 12]]  # one row, two draws: the first; a wrong guess: no token, no stamp
    assert bare[2].choices == (Choice(1), Choice(2)) and found[3].failure == "no"
