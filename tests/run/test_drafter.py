"""Drafter: it says what its model says greedily, computes what it has not, and learns how often that is right."""

import numpy as np
import pytest

from openwork import SamplingParams
from openwork.core.request import Limits, Request
from openwork.core.sequence import Sequence
from openwork.core.step import Draw, Step, Work
from openwork.load.assemble import load
from openwork.ops.cpu import Cpu, available
from openwork.ops.paged import PagedKV
from openwork.ops.reference import Reference
from openwork.run import drafter as drafter_module
from openwork.run.drafter import Ask, Drafter, Guesses
from openwork.run.runner import TensorRunner
from openwork.testing.checkpoint import write_checkpoint

OPS = Cpu(2) if available() else Reference()
LINE = tuple(3 + i * 7 % 200 for i in range(41))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return load(write_checkpoint(tmp_path_factory.mktemp("draft")), OPS).model


def cache(model, blocks=12):
    spec = model.spec
    return OPS.bind(PagedKV.empty(spec.num_layers, blocks, spec.num_kv_heads, spec.head_dim, 16, "float32"))


def greedy(model, line, num):
    """What a runner chooses, one token a step, from an empty cache each time."""
    for _ in range(num):
        runner = TensorRunner(OPS, model, cache(model))
        draw = Draw(SamplingParams(temperature=0), 0, len(line), 0, frozenset())
        work = Work(0, 0, line, False, tuple(range(-(-len(line) // 16))), (draw,))
        line = (*line, runner.run(Step(0, (work,))).outcomes[0].choices[0].token)
        runner.close()
    return line


def ask(drafter, line, blocks, most):
    return drafter.guess(Ask(line, tuple(blocks), most))


@pytest.fixture
def drafter(model, monkeypatch):
    """It notes how many rows each forward pass has."""
    made = Drafter(model, cache(model), model.spec.vocab_size)
    made.rows = []
    forward = made._forward

    def counted(threads):
        made.rows.append(sum(thread.end - thread.computed for thread in threads))
        return forward(threads)

    monkeypatch.setattr(made, "_forward", counted)
    return made


def test_a_guess_is_what_the_model_says(model, drafter):
    whole = greedy(model, LINE, 9)
    assert ask(drafter, LINE, [4, 0, 7, 2], 9) == whole[len(LINE) :]
    assert drafter.rows == [len(LINE)] + [1] * 8


def test_what_was_right_is_not_computed_again_whatever_was_guessed_behind_it(model, drafter):
    first = ask(drafter, LINE, [4, 0, 7, 2], 5)
    drafter.rows.clear()
    line = (*LINE, *first[:2], (first[2] + 1) % 200)  # the third was wrong
    assert ask(drafter, line, [4, 0, 7, 2], 4) == greedy(model, line, 4)[len(line) :]
    assert drafter.rows[0] == 1
    drafter.rows.clear()
    line = (*LINE, *first, 9)  # all were right: the last one's row is still to come
    ask(drafter, line, [4, 0, 7, 2], 1)
    assert drafter.rows[0] <= 6


def test_blocks_that_others_have_had_are_not_believed(model, drafter):
    other = tuple(reversed(LINE))
    ask(drafter, LINE, [4, 0, 7, 2], 3)
    assert ask(drafter, other, [0, 4, 7, 2], 3) == greedy(model, other, 3)[len(other) :]
    assert ask(drafter, LINE, [4, 0, 7, 2], 3) == greedy(model, LINE, 3)[len(LINE) :]


def test_a_shared_beginning_is_computed_once(model, drafter):
    ask(drafter, LINE, [4, 0, 7, 2], 3)
    drafter.rows.clear()
    sibling = (*LINE[:36], 8, 9, 10)
    assert ask(drafter, sibling, [4, 0, 9, 2], 3) == greedy(model, sibling, 3)[len(sibling) :]
    assert drafter.rows[0] == len(sibling) - 32


def test_random_lines_over_few_blocks_are_always_guessed_as_from_an_empty_cache(model):
    drafter = Drafter(model, cache(model), model.spec.vocab_size)
    draw = np.random.default_rng(5)
    lines = {0: LINE[:10], 1: LINE[:30], 2: LINE[5:40]}
    for _ in range(40):
        which = int(draw.integers(3))
        line = lines[which] = lines[which][: int(draw.integers(8, 36))] + tuple(draw.integers(3, 9, 3).tolist())
        blocks = draw.permutation(12)[:3].tolist() if draw.random() < 0.3 else [which * 3, which * 3 + 1, which * 3 + 2]
        fresh = Drafter(model, cache(model), model.spec.vocab_size)
        assert ask(drafter, line, blocks, 4) == ask(fresh, line, blocks, 4)


def test_much_to_catch_up_with_is_computed_in_parts_before_anything_is_guessed(model, drafter, monkeypatch):
    monkeypatch.setattr(drafter_module, "MOST_ROWS", 16)
    assert [ask(drafter, LINE, [4, 0, 7, 2], 2) for _ in range(2)] == [(), ()]
    assert ask(drafter, LINE, [4, 0, 7, 2], 2) == greedy(model, LINE, 2)[len(LINE) :]
    assert drafter.rows[:3] == [16, 16, 9]


def test_nothing_is_guessed_beyond_its_window_or_outside_the_large_vocabulary(model):
    small = Drafter(model, cache(model), 1)
    assert ask(small, LINE, [4, 0, 7, 2], 3) in ((), (0,) * 3)
    longest = model.spec.max_positions
    line = tuple(3 + i % 9 for i in range(longest))
    assert ask(Drafter(model, cache(model), 300), line, list(range(12)), 3) == ()


def guesses_of(model, drafter):
    request = Request(LINE, SamplingParams(max_tokens=50), Limits(model.spec.vocab_size, 512))
    sequence = Sequence(0, 0, 0, request, None, list(LINE), blocks=[4, 0, 7, 2])
    return Guesses(drafter, sequence), sequence


def test_odds_follow_what_was_right_and_forget(model, drafter):
    guesses, sequence = guesses_of(model, drafter)
    guesses.follow(sequence.tokens, len(LINE))
    before = guesses.odds(3)
    assert before == sorted(before, reverse=True) and all(0 < odd < 1 for odd in before)
    sequence.tokens += guesses.propose(3)
    guesses.follow(sequence.tokens, len(sequence.tokens))
    assert guesses.odds(1)[0] > before[0]
    for _ in range(6):
        wrong = (guesses.propose(1)[0] + 1) % 200
        sequence.tokens.append(wrong)
        guesses.follow(sequence.tokens, len(sequence.tokens))
    low = guesses.odds(1)[0]
    assert low < 0.5
    guesses.follow([*sequence.tokens, *range(900)], len(sequence.tokens) + 900)
    assert guesses.odds(1)[0] == pytest.approx(before[0], abs=0.02)


def test_lines_that_are_expected_go_through_the_model_together_and_are_guessed_as_alone(model, drafter):
    draw = np.random.default_rng(3)
    lines = [tuple(draw.integers(3, 200, size).tolist()) for size in (10, 33, 20)] + [LINE[:20]]
    asks = [
        Ask(line, (3 * place, 3 * place + 1, 3 * place + 2), most)
        for place, (line, most) in enumerate(zip(lines, (4, 0, 2, 4), strict=True))
    ]
    for each in asks[:3]:
        drafter.expect(each)
    found = [drafter.guess(each) for each in asks]
    alone = Drafter(model, cache(model), model.spec.vocab_size)
    assert found == [alone.guess(each) for each in asks] and [len(each) for each in found] == [4, 0, 2, 4]
    assert drafter.rows == [30, 2, 1, 1, 20, 1, 1, 1]
    drafter.rows.clear()
    more = [Ask((*each.line, *guess, 7), each.blocks, 3) for each, guess in zip(asks, found, strict=True)]
    for each in more:
        drafter.expect(each)
    assert [drafter.guess(each) for each in more] == [alone.guess(each) for each in more]
    assert len(drafter.rows) == 3 and drafter.rows[1:] == [4, 4]


def test_a_beginning_that_expected_lines_share_is_the_same_for_all(model, drafter):
    siblings = [Ask((*LINE[:36], token), (4, 0, 5 + token), 3) for token in range(4)]
    for each in siblings:
        drafter.expect(each)
    for each in siblings:
        assert drafter.guess(each) == greedy(model, each.line, 3)[len(each.line) :]


def test_many_rows_are_computed_in_several_passes(model, drafter, monkeypatch):
    monkeypatch.setattr(drafter_module, "MOST_ROWS", 45)
    asks = [Ask(LINE[place:], tuple(range(3 * place, 3 * place + 3)), 2) for place in range(4)]
    for each in asks:
        drafter.expect(each)
    for each in asks:
        assert drafter.guess(each) == greedy(model, each.line, 2)[len(each.line) :]
    assert max(drafter.rows) <= 45
