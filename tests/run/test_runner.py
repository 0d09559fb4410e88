"""The runner: a step's orders become arrays, in order, within bounded memory, and a bad row fails alone."""

import threading

import numpy as np
import pytest

from openwork import SamplingParams
from openwork.core.step import Copy, Draw, Expand, Score, Step, Work
from openwork.load.assemble import load
from openwork.ops.checksum import checksum
from openwork.ops.cpu import Cpu, available
from openwork.ops.paged import PagedKV
from openwork.ops.reference import Reference
from openwork.run import runner as runner_module
from openwork.run.batch import assemble
from openwork.run.runner import TensorRunner
from openwork.testing.checkpoint import write_checkpoint

OPS = Cpu(2) if available() else Reference()
GREEDY = SamplingParams(temperature=0)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return load(write_checkpoint(tmp_path_factory.mktemp("tiny")), OPS).model


@pytest.fixture
def make(model):
    made = []

    def one(blocks=8, tap=None, hashes=False):
        spec = model.spec
        kv = PagedKV.empty(spec.num_layers, blocks, spec.num_kv_heads, spec.head_dim, 16, "float32")
        made.append(TensorRunner(OPS, model, OPS.bind(kv), tap, hashes=hashes))
        return made[-1]

    yield one
    for each in made:
        each.close()


def draw(position, params=GREEDY, index=0):
    return Draw(params, index, position, position, frozenset())


def run(runner, *works, copies=(), number=0):
    return runner.collect(runner.submit(Step(number, works, tuple(copies)))).outcomes


def test_a_pending_token_is_the_one_chosen_before(make):
    whole, parts = make(), make()
    first = run(parts, Work(0, 0, (5, 6, 7), False, (2,), (draw(3),)))[0].choices[0].token
    second = run(parts, Work(0, 3, (), True, (2,), (draw(4),)))[0].choices[0].token
    assert run(whole, Work(9, 0, (5, 6, 7, first), False, (0,), (draw(4),)))[0].choices[0].token == second


def test_two_steps_may_be_submitted_before_the_first_is_collected(make):
    runner = make()
    one = runner.submit(Step(0, (Work(0, 0, (5, 6), False, (0,), (draw(2),)),)))
    two = runner.submit(Step(1, (Work(0, 2, (), True, (0,), (draw(3),)),)))
    assert [runner.collect(ticket).step for ticket in (one, two)] == [0, 1]


def test_copies_come_before_the_forward_pass(make):
    rows = {}
    runner = make(tap=lambda sequence, position, row: rows.__setitem__(sequence, row.copy()))
    run(runner, Work(0, 0, (5, 6, 7), False, (0,), (draw(3),)))
    run(
        runner,
        Work(0, 3, (8,), False, (0,), (draw(4),)),
        Work(1, 3, (8,), False, (4,), (draw(4),)),
        copies=[Copy(0, 4)],
    )
    assert rows[0].tobytes() == rows[1].tobytes()


def test_scores_need_bounded_memory_whatever_the_length(make, model, monkeypatch):
    tokens = tuple(3 + i % 200 for i in range(50))
    work = Work(0, 0, tokens, False, (0, 1, 2, 3), (draw(50),), Score(tokens[1:], 2))
    whole = run(make(), work)[0]
    monkeypatch.setattr(runner_module, "LOGITS_BYTES", 3 * 4 * model.spec.vocab_size)
    runner, seen = make(), []
    real = model.logits

    def watched(rows, out):
        seen.append(len(rows))
        return real(rows, out)

    monkeypatch.setattr(model, "logits", watched)
    parts = run(runner, work)[0]
    assert runner._rows_at_once == 3
    assert parts == whole and len(parts.scores) == 49
    assert max(seen) == 3 and sum(seen) == 50


def test_only_the_rows_that_are_asked_for_get_logits(make):
    seen = []
    runner = make(tap=lambda sequence, position, row: seen.append((sequence, position)))
    run(
        runner,
        Work(0, 0, tuple(range(5, 25)), False, (0, 1)),
        Work(1, 0, (5, 6, 7), False, (2,), (draw(3),)),
        Work(2, 0, (8, 9), False, (3,), (), Score((9,), 0)),
    )
    assert seen == [(1, 2), (2, 0)]


def test_several_draws_from_one_row_differ_by_index(make):
    params = SamplingParams(temperature=1.5, seed=4)
    draws = tuple(draw(3, params, index) for index in range(6))
    choices = run(make(), Work(0, 0, (5, 6, 7), False, (0,), draws))[0].choices
    assert len(choices) == 6 and len({choice.token for choice in choices}) > 2


def test_a_row_that_is_not_finite_fails_alone(make):
    runner = make()
    kv = runner._kv
    run(runner, Work(0, 0, (5, 6), False, (0,)))
    kv.keys[:, 0] = np.nan
    good, bad = run(runner, Work(1, 0, (5, 6), False, (1,), (draw(2),)), Work(0, 2, (7,), False, (0,), (draw(3),)))
    assert good.failure is None and good.choices
    assert "not finite" in bad.failure and not bad.choices


class Liar:
    """Operations that, when they are asked for the first time, give an id that is none."""

    def __init__(self, told, lie):
        self._told, self._lie = told, lie

    def __getattr__(self, name):
        true = getattr(self._told, name)
        if name not in ("argmax", "choose", "top_k", "best"):
            return true

        def lying(*args):
            found = true(*args)
            if self._lie is not None:
                lie, self._lie = self._lie, None
                if name == "choose":
                    return lie
                (found[0] if name == "best" else found)[0] = lie
            return found

        return lying


@pytest.mark.parametrize("lie", [-1, None, 2**31, -(2**40)])
@pytest.mark.parametrize(
    ("params", "asks"),
    [
        (GREEDY, {}),
        (SamplingParams(temperature=0, logit_bias={3: 1.0}), {}),
        (SamplingParams(temperature=0, logprobs=2), {}),
        (SamplingParams(temperature=1.0, seed=3), {}),
        (SamplingParams(temperature=1.0, seed=3, logprobs=0), {}),
        (None, {"expand": Expand(top=2)}),
        (None, {"score": Score((6,), 2)}),
    ],
)
def test_an_id_that_is_no_token_fails_alone_and_is_never_used(make, lie, params, asks):
    """Nor in the next step, which may have been submitted already with the id pending in it."""
    runner, true = make(), make()
    lie = true._model.spec.vocab_size if lie is None else lie
    draws = () if params is None else (draw(2, params),)
    works = Work(0, 0, (5, 6), False, (0,), draws, **asks), Work(1, 0, (8, 9), False, (1,), draws, **asks)
    if params is GREEDY:
        liar = Liar(runner._model, lie)
        runner._model = liar
    else:
        runner._ops = Liar(OPS, lie)
    bad, good = run(runner, *works)
    assert "no token id" in bad.failure and bad.failed == "numbers" and not bad.choices and bad.candidates is None
    assert good == run(true, *works)[1]
    if draws:
        following = [Work(each, 2, (), True, (each,), (draw(3),)) for each in (0, 1)]
        bad, good = run(runner, *following, number=1)
        assert "no token" in bad.failure and good == run(true, *following, number=1)[1]


def test_an_impossible_step_raises_at_collect_and_the_next_one_runs(make):
    runner = make()
    with pytest.raises(Exception, match=r"block|table|range|index"):
        run(runner, Work(0, 0, (5,), False, (99,), (draw(1),)))
    assert run(runner, Work(0, 0, (5,), False, (0,), (draw(1),)))[0].choices


def test_closing_ends_the_thread(make):
    runner = make()
    assert runner._thread in threading.enumerate()
    runner.close()
    assert runner._thread not in threading.enumerate()


def test_a_batch_lays_works_out_in_rows():
    step = Step(
        0, (Work(4, 5, (7, 8, 9), False, (3,)), Work(2, 40, (), True, (1, 0, 2)), Work(1, 15, (6,), True, (4, 5)))
    )
    batch = assemble(step, {2: 11, 1: 12}, lambda positions: (None, None))
    assert batch.ids.tolist() == [7, 8, 9, 11, 6, 12]
    assert batch.rows.positions.tolist() == [5, 6, 7, 40, 15, 16]
    assert batch.rows.starts.tolist() == batch.starts == [0, 3, 4, 6]
    assert batch.rows.tables.tolist() == [[3, 0, 0], [1, 0, 2], [4, 5, 0]]


def test_a_greedy_step_that_keeps_no_logits_chooses_the_same_tokens(make):
    seen = []
    plain, watched = make(), make(tap=lambda *row: seen.append(row))
    for runner in (plain, watched):
        works = (
            Work(0, 0, (5, 6, 7), False, (2,), (draw(3),)),
            Work(1, 0, (9,), False, (3,)),
            Work(2, 0, (1, 2), False, (1,), (draw(2), draw(2))),
        )
        runner.outcomes = run(runner, *works)
    assert plain.outcomes == watched.outcomes
    assert [len(outcome.choices) for outcome in plain.outcomes] == [1, 0, 2]
    assert len(seen) == 2


def test_a_sequence_without_a_token_to_go_on_with_fails_alone(make):
    alone, shared = make(), make()
    start = Work(0, 0, (5, 6, 7), False, (2,), (draw(3),))
    goes_on, cannot = Work(0, 3, (), True, (2,), (draw(4),)), Work(1, 4, (), True, (3,), (draw(5),))
    for runner in (alone, shared):
        run(runner, start)
    good, bad = run(shared, goes_on, cannot)
    assert good == run(alone, goes_on)[0] and good.choices
    assert "no token" in bad.failure and not bad.choices
    (only,) = run(shared, cannot)
    assert "no token" in only.failure
    assert run(shared, Work(2, 0, (5, 6, 7), False, (2,), (draw(3),)))[0] == run(alone, start)[0]


def test_candidates_and_scores_of_a_run_are_those_of_its_rows(make):
    """A line of a search: some rows score what follows them, the last is expanded, others give nothing."""
    seen = []
    runner = make(tap=lambda sequence, position, row: seen.append(position))
    tokens = (5, 6, 7, 8, 9)
    whole = run(make(), Work(0, 0, tokens, False, (0,), (), Score(tokens[1:], 0)))[0]
    work = Work(0, 0, tokens, False, (0,), (), Score((8, 9), 0, first=2), Expand(top=3, among=(11, 12)))
    found = run(runner, work)[0]
    assert seen == [2, 3, 4]
    assert found.scores == whole.scores[2:]
    after = Score((11,), 3), Score((12,), 3)
    likely = [
        run(make(), Work(0, 0, (*tokens,), False, (0,), (), Score((*tokens[1:], s.targets[0]), 3)))[0] for s in after
    ]
    assert found.candidates.top == likely[0].scores[-1].top
    assert found.candidates.among == tuple(each.scores[-1].logprob for each in likely)


def test_a_row_that_is_expanded_fails_alone(make):
    runner = make()
    run(runner, Work(0, 0, (5, 6), False, (0,)))
    runner._kv.keys[:, 0] = np.nan
    ask = Expand(top=2)
    good, bad = run(runner, Work(1, 0, (5, 6), False, (1,), expand=ask), Work(0, 2, (7,), False, (0,), expand=ask))
    assert good.candidates is not None and good.failure is None
    assert bad.candidates is None and "not finite" in bad.failure


WAYS = [
    GREEDY,
    SamplingParams(temperature=0, logprobs=2),
    SamplingParams(temperature=1.0, seed=3),
    SamplingParams(temperature=0.8, top_k=20, top_p=0.9, seed=1, logprobs=1),
    SamplingParams(temperature=0, presence_penalty=2.0, frequency_penalty=2.0),
    SamplingParams(temperature=0.7, repetition_penalty=3.0, frequency_penalty=-2.0),
    SamplingParams(temperature=0, logit_bias={9: 50.0, 11: 49.0}, frequency_penalty=0.4),
    SamplingParams(temperature=0, logit_bias={9: 50.0, 11: 49.0}, min_tokens=3, stop_token_ids=[9]),
]


@pytest.mark.parametrize("params", WAYS)
def test_guessed_rows_are_chosen_from_as_if_they_came_alone(make, params):
    prompt = (5, 6, 7, 8)

    def drawn(output):
        at = len(prompt) + len(output)
        history = (*prompt, *output) if params.has_penalties else ()
        return Draw(params, 0, at, len(output), frozenset(params.stop_token_ids), history, len(prompt))

    rows = {}
    alone = make(tap=lambda sequence, position, row: rows.__setitem__(position, row.tobytes()), hashes=True)
    choices = list(run(alone, Work(0, 0, prompt, False, (0, 1), (drawn(()),)))[0].choices)
    for place in range(7):
        line = tuple(choice.token for choice in choices)
        work = Work(0, len(prompt) + place, line[-1:], False, (0, 1), (drawn(line),), None, None)
        choices += run(alone, work, number=1 + place)[0].choices
    line = tuple(choice.token for choice in choices)
    for num_right in range(7):
        guess = (*line[:num_right], (line[num_right] + 1) % 50, *line[num_right + 1 : 7])
        seen = {}
        for tap in (None, lambda sequence, position, row, seen=seen: seen.__setitem__(position, row.tobytes())):
            outcome = run(make(tap=tap, hashes=True), Work(0, 0, prompt, False, (0, 1), (drawn(()),), drafts=guess))[0]
            assert outcome.failure is None and list(outcome.choices) == choices[: num_right + 1]
        assert seen == {position: rows[position] for position in list(rows)[: num_right + 1]}
    whole = run(make(hashes=True), Work(0, 0, prompt, False, (0, 1), (drawn(()),), drafts=line[:7]))[0]
    assert list(whole.choices) == choices


def test_a_guess_whose_row_is_not_finite_costs_only_itself(make):
    """What stands behind right guesses is met again in the next step, and told then."""
    prompt = (5, 6, 7)
    first = run(make(), Work(0, 0, prompt, False, (0,), (draw(3),)))[0].choices
    runner = make()
    broken = runner._model.best
    try:
        runner._model.best = lambda hidden, hashes: (broken(hidden)[0], np.array([True, False]))
        outcome = run(runner, Work(0, 0, prompt, False, (0,), (draw(3),), drafts=(first[0].token,)))[0]
    finally:
        del runner._model.best
    assert outcome.failure is None and outcome.choices == first


def test_a_choice_carries_the_hash_of_its_row_when_that_is_wanted(make):
    """By every way a row is looked at: plainly greedy, drawn, adjusted; and as the model gave it."""
    rows = {}
    watched = make(tap=lambda sequence, position, row: rows.__setitem__(sequence, checksum(row)), hashes=True)
    plain, silent = make(hashes=True), make()
    biased = SamplingParams(temperature=0.5, seed=3, logit_bias={7: 50.0}, repetition_penalty=1.3)
    greedy = (Work(0, 0, (5, 6, 7), False, (2,), (draw(3),)), Work(1, 0, (9, 4), False, (3,), (draw(2), draw(2))))
    drawn = (*greedy, Work(2, 0, (1, 2), False, (1,), (draw(2, biased),)))
    for works in (greedy, drawn):
        seen = run(watched, *works)
        for outcome, sequence in zip(seen, range(3), strict=False):
            assert {choice.row_hash for choice in outcome.choices} == {rows[sequence]}
        assert run(plain, *works) == seen
        for outcome in run(silent, *works):
            assert all(choice.row_hash is None for choice in outcome.choices)
    assert len(set(rows.values())) == 3
