"""Replay of the bits: whatever a request was served among, one prefill pass gives its rows and its choices again."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from served import Served

from openwork.build import examiner
from openwork.core.errors import TraceError
from openwork.core.settings import LoadSettings
from openwork.core.stamp import ATTEND, EMBED, FEED_FORWARD, HEAD, PROJECT
from openwork.ops.reference import Reference
from openwork.testing.checkpoint import write_checkpoint
from openwork.trace.recording import Recording
from openwork.trace.replay.bits import replay
from openwork.trace.replay.verdict import Verdict

CONTEXT = {"threads": 2, "context": 160}


def replayed(served, model, **load):
    """Every request of a recording, replayed: verdicts by id."""
    examines, recording = examiner(model, LoadSettings(**CONTEXT | load)), Recording.open(served.directory)
    began = next(recording.entries())
    assert recording.damage == ()
    stamps = [stamp for story in recording.requests() for line in story.lines.values() for stamp in line.stamps]
    assert stamps.count(None) < len(stamps) / 5  # a row of which several tokens are drawn has one
    return {story.id: replay(examines, began, story) for story in recording.requests()}


def check_all(verdicts, count):
    """How many tokens were compared; all of them must be equal."""
    assert len(verdicts) == count
    assert [each for each in verdicts.values() if not each.equal] == []
    tokens, unhashed = (sum(getattr(each, name) for each in verdicts.values()) for name in ("tokens", "unhashed"))
    assert tokens > 4 * count and unhashed == 0
    return tokens


def test_every_request_of_the_embedded_model_is_equal(tmp_path, is_long, positions_compared):
    """Under batches, hits, preemptions, cancels, kills, guesses; with penalties, constraints, several sequences."""
    count, tokens, counts = 900 if is_long else 60, 0, Counter()
    for seed in range(4):
        served = Served(tmp_path / str(seed), None, seed)
        served.run(count, kills=8 if is_long else 1)
        tokens += check_all(replayed(served, None), count)
        counts += Counter(served.counts)
    assert counts.keys() == served.counts.keys(), counts  # each of them happened
    happened = ", ".join(f"{number} {name}" for name, number in counts.items())
    positions_compared[f"replayed: {4 * count} requests, {happened}"] = tokens


@pytest.mark.parametrize(
    ("architecture", "kinds"),
    [
        ("Gemma2ForCausalLM", ("bfloat16", "bfloat16")),
        ("GPTNeoXForCausalLM", ("float32", "int8")),
        ("Qwen3ForCausalLM", ("int4", "int8")),
        ("MistralForCausalLM", ("int8", "bfloat16")),
        ("Phi3ForCausalLM", ("int8-channel", "bfloat16")),
        ("GPT2LMHeadModel", ("float32", "float32")),
        ("Qwen2ForCausalLM", ("bfloat16", "int8")),
    ],
)
def test_every_request_of_other_architectures_is_equal(architecture, kinds, tmp_path, is_long):
    model, count = write_checkpoint(tmp_path / "model", architecture, seed=3), 300 if is_long else 40
    load = {"dtype": kinds[0], "kv_dtype": kinds[1]}
    served = Served(tmp_path / "recording", str(model), 11, constraints=(), **load)
    served.run(count, kills=4 if is_long else 1)
    check_all(replayed(served, str(model), **load), count)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A recording of the embedded model: who served, its requests by id, and what replays them."""
    served = Served(tmp_path_factory.mktemp("recording"), None, 5, constraints=())
    served.run(30, kills=0)
    recording = Recording.open(served.directory)
    stories = {story.id: story for story in recording.requests()}
    return next(recording.entries()), stories, examiner(None, LoadSettings(**CONTEXT))


def of(stories, num_lines=1, least=4, **params):
    """A story with one sequence or, for 2, several; the first of so many tokens at least."""
    return next(
        story
        for story in stories.values()
        if min(len(story.lines), 2) == num_lines
        and len(story.lines[0].tokens) >= least
        and all(getattr(story.request.params, name) == value for name, value in params.items())
    )


def changed(story, index=0, **lists):
    line = replace(story.lines[index], **lists)
    return replace(story, lines=story.lines | {index: line})


def test_one_token_is_replayed_as_among_all(small):
    began, stories, examines = small
    story = of(stories)
    for i in range(len(story.lines[0].tokens)):
        assert replay(examines, began, story, i) == Verdict(story.id, 1, 0, None)
    with pytest.raises(TraceError, match="has no token 99"):
        replay(examines, began, story, 99)


def test_a_bit_that_is_otherwise_is_found(small):
    began, stories, examines = small
    story = of(stories, num_lines=2)
    hashes = list(story.lines[1].row_hashes)
    hashes[2] ^= 1 << 40
    verdict = replay(examines, began, changed(story, 1, row_hashes=hashes))
    first = verdict.first_difference
    assert not verdict.equal and verdict.tokens == len(story.lines[0].tokens) + 3
    assert (first.sequence, first.token, first.what) == (1, 2, "logits")
    assert first.position == len(story.request.prompt) + 1
    assert int(first.recorded, 16) ^ int(first.found, 16) == 1 << 40
    assert (first.layer, first.op, first.seen_at) == (6, HEAD, 2) and "the weights are those that" in first.finding
    record = verdict.as_record()
    assert record["equal"] is False and record["first_difference"]["token"] == 2


def test_a_token_that_would_not_be_chosen_is_found(small):
    began, stories, examines = small
    story = of(stories)
    tokens = list(story.lines[0].tokens)
    tokens[-1] = (tokens[-1] + 1) % 256
    first = replay(examines, began, changed(story, tokens=tokens)).first_difference
    assert (first.token, first.what) == (len(tokens) - 1, "choice")
    assert (first.recorded, first.found) == (str(tokens[-1]), str(story.lines[0].tokens[-1]))
    sampled = of({id: each for id, each in stories.items() if each.request.params.temperature > 1})
    params = replace(sampled.request.params, seed=sampled.request.params.seed + 1)
    other = replace(sampled, request=replace(sampled.request, params=params))
    assert replay(examines, began, other).first_difference.what == "choice"


def test_tokens_without_a_hash_are_counted_and_their_choice_compared(small):
    began, stories, examines = small
    story = of(stories)
    hashes = [None, *story.lines[0].row_hashes[1:]]
    assert replay(examines, began, changed(story, row_hashes=hashes)).unhashed == 1
    tokens = [story.lines[0].tokens[0] ^ 1, *story.lines[0].tokens[1:]]
    assert not replay(examines, began, changed(story, row_hashes=[None] * len(tokens), tokens=tokens)).equal


def test_other_weights_are_refused_and_differ_at_the_first_token(tmp_path):
    ours, theirs = (str(write_checkpoint(tmp_path / str(seed), seed=seed)) for seed in (1, 2))
    served = Served(tmp_path / "recording", ours, 1, constraints=())
    served.run(5, kills=0)
    with pytest.raises(
        TraceError, match=r"other weights: its model .*1 has the fingerprint \w{16}, this one, .*2, \w{16}"
    ):
        replayed(served, theirs)
    recording, examines = Recording.open(served.directory), examiner(theirs, LoadSettings(**CONTEXT))
    unnamed = replace(next(recording.entries()), weights=None)  # as if it had not been asked for
    for story in recording.requests():
        first = replay(examines, unnamed, story).first_difference
        assert (first.token, first.what) == (0, "logits") and "other weights" in first.finding
        assert (first.layer, first.op, first.seen_at) == (0, EMBED, 0)


def test_a_machine_that_disagrees_with_itself_is_told_where(tmp_path, monkeypatch):
    """A fault planted in one operation of one layer, for rows that are not alone."""
    model = str(write_checkpoint(tmp_path / "model"))
    served = Served(tmp_path / "recording", model, 1, constraints=(), backend="reference")
    served.run(3, kills=0)
    faults = {"attend": ATTEND, "linear": PROJECT, "mlp_block": FEED_FORWARD}
    for operation, part in faults.items():
        right = getattr(Reference, operation)

        def wrong(self, x, *rest, right=right):
            out = right(self, x, *rest)
            if len(x) > 1:
                out[-1] *= np.float32(1.001)
            return out

        with monkeypatch.context() as patch:
            patch.setattr(Reference, operation, wrong)
            firsts = [each.first_difference for each in replayed(served, model, backend="reference").values()]
        assert {(first.layer, first.op) for first in firsts} == {(0, part)}
        assert "must give the same bits" in firsts[0].finding


def test_what_cannot_be_replayed_says_why(small):
    began, stories, examines = small
    story = of(stories)
    cases = (
        (began, replace(story, error="it was too long"), "not accepted: it was too long"),
        (began, replace(story, request=None), "a part of request"),
        (began, replace(story, is_known=False), "a part of request"),
        (began, replace(story, has_tokens=False), "without its tokens"),
        (replace(began, contract_id="other-v9"), story, f"contract id other-v9, this is {began.contract_id}"),
        (replace(began, dtype="int4"), story, "dtype int4, this is"),
        (replace(began, kv_dtype="int8"), story, "kv_dtype int8, this is"),
        (replace(began, vocab_size=7), story, "vocabulary 7, this is"),
    )
    for beginning, told, message in cases:
        with pytest.raises(TraceError, match=message) as caught:
            replay(examines, beginning, told)
        assert caught.value.hint
