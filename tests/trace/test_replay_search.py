"""Replay of searches: whatever they were served among, their rows have the same bits, and they decide the same."""

from collections import Counter
from dataclasses import replace

import pytest
from served import Served

from openwork.build import examiner
from openwork.core.errors import TraceError
from openwork.core.settings import LoadSettings
from openwork.decode.strategy import Spent
from openwork.testing.checkpoint import write_checkpoint
from openwork.trace.recording import Recording
from openwork.trace.replay.search import replay_search
from openwork.trace.searched import lives_of

CONTEXT = {"threads": 2, "context": 160}


class Searched:
    """The searches of a recording, and what replays them."""

    def __init__(self, directory, model=None, **load):
        recording = self.recording = Recording.open(directory)
        assert recording.damage == ()
        self.examines = examiner(model, LoadSettings(**CONTEXT | load))
        self.began = {began.run: began for began in recording.processes}
        self.stories = [each for each in recording.requests() if each.request.search is not None]

    def lives(self, story):
        return lives_of(self.recording.entries_of(story.id), story.id)

    def replay(self, story, token=None, lives=None):
        lives = self.lives(story) if lives is None else lives
        return replay_search(self.examines, self.began[story.run], story, lives, token)


def check_all(searched, count):
    verdicts = [searched.replay(story) for story in searched.stories]
    assert len(verdicts) == count
    assert [each for each in verdicts if not each.equal] == []
    assert sum(each.unhashed for each in verdicts) == 0
    return sum(each.rows for each in verdicts)


def test_every_search_of_the_embedded_model_is_equal(tmp_path, is_long, positions_compared):
    """Of all kinds, under preemption, hits, cancels, kills and every budget."""
    count, rows, counts, ends = 900 if is_long else 80, 0, Counter(), Counter()
    for seed in range(4 if is_long else 2):
        served = Served(tmp_path / str(seed), None, seed, searches=1.0, leaves=0.01)
        served.run(count, kills=8 if is_long else 2)
        searched = Searched(tmp_path / str(seed))
        rows += check_all(searched, count)
        counts += Counter(served.counts)
        ends += Counter(getattr(story.search, "ended_by", "not") for story in searched.stories)
    every = {"proved", "complete", "seconds", "not"} | ({"nodes", "tokens", "finished"} if is_long else set())
    assert rows > 4 * count and ends.keys() >= every
    assert all(counts[each] for each in ("preemptions", "hits", "cancels", "kills")), counts
    positions_compared[f"replayed: {ends.total()} searches, {counts['preemptions']} preemptions"] = rows


def test_searches_of_another_architecture_among_other_requests_are_equal(tmp_path, is_long):
    model, count = write_checkpoint(tmp_path / "model", "Gemma2ForCausalLM", seed=3), 300 if is_long else 30
    load = {"dtype": "int8", "kv_dtype": "bfloat16"}
    served = Served(tmp_path / "recording", str(model), 11, constraints=(), searches=0.5, leaves=0.01, **load)
    served.run(count, kills=1)
    searched = Searched(tmp_path / "recording", str(model), **load)
    check_all(searched, len(searched.stories))
    assert len(searched.stories) > count / 4


# -- what differs ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A recording of undisturbed searches."""
    served = Served(tmp_path_factory.mktemp("recording"), None, 7, blocks=40, searches=1.0, leaves=0.0)
    served.run(30, kills=0)
    return Searched(served.directory)


def of(searched, kind, least=3):
    """A search of a kind that found something, and what it did."""
    for story in searched.stories:
        if getattr(story.request.search, kind) is not None and story.search.found:
            (life,) = searched.lives(story)
            if len(life.answers) >= least:
                return story, life
    raise LookupError(kind)


KINDS = pytest.mark.parametrize("kind", ["beam", "best_first", "choose"])


@KINDS
def test_one_token_is_replayed_by_the_rows_it_was_chosen_by(small, kind):
    story, life = of(small, kind)
    for i in range(len(story.lines[0].tokens)):
        verdict = small.replay(story, i)
        assert verdict.equal and verdict.tokens == 1
        assert verdict.rows == sum(row.line == tuple(story.lines[0].tokens[:i]) for row in life.rows) >= 1
    with pytest.raises(TraceError, match="has no token 99"):
        small.replay(story, 99)


def test_tokens_of_an_answer_have_the_hashes_of_the_rows_they_were_chosen_by(small):
    for story in small.stories:
        (life,) = small.lives(story)
        hashes = {row.line: row.row_hash for row in life.rows}
        for line in story.lines.values():
            assert line.row_hashes == [hashes[tuple(line.tokens[:i])] for i in range(len(line.tokens))]


@KINDS
def test_a_bit_that_is_otherwise_is_found(small, kind):
    story, life = of(small, kind)
    place = len(life.rows) // 2
    row = life.rows[place]
    life.rows[place] = replace(row, row_hash=row.row_hash ^ 1 << 40)
    verdict = small.replay(story, lives=[life])
    first = verdict.first_difference
    assert (first.what, first.line, first.token) == ("logits", row.line, len(row.line))
    assert first.position == len(story.request.prompt) - 1 + len(row.line)
    assert int(first.recorded, 16) ^ int(first.found, 16) == 1 << 40
    assert "the weights are those that served" in first.finding
    record = verdict.as_record()
    assert record["equal"] is False and record["first_difference"]["line"] == row.line
    assert record["rows"] == len(life.rows)
    life.rows[place] = replace(row, row_hash=None)
    verdict = small.replay(story, lives=[life])
    assert verdict.equal and verdict.unhashed == 1


def test_the_first_of_several_differences_is_named_in_the_order_of_the_search(small):
    story, life = of(small, "beam", least=9)
    for place in (2, 5, 8):
        life.rows[place] = replace(life.rows[place], row_hash=7)
    assert small.replay(story, lives=[life]).first_difference.line == life.rows[2].line


@KINDS
def test_a_candidate_that_is_otherwise_is_found(small, kind):
    story, life = of(small, kind)
    place = next(place for place, row in enumerate(life.rows) if row.line and row.expand is not None)
    row = life.rows[place]
    if row.found.top:
        (token, logprob), *more = row.found.top
        found = replace(row.found, top=((token, logprob + 1e-9), *more))
    else:
        found = replace(row.found, among=(row.found.among[0] - 1e-9, *row.found.among[1:]))
    life.rows[place] = replace(row, found=found)
    first = small.replay(story, lives=[life]).first_difference
    assert (first.what, first.line) == ("choice", row.line)
    assert first.recorded.startswith("candidates.") and first.recorded != first.found


def test_a_score_that_is_otherwise_is_found(small):
    story, life = next(
        (story, life)
        for story in small.stories
        if (life := small.lives(story)[0]) and any(row.expand is None for row in life.rows)
    )
    place = next(place for place, row in enumerate(life.rows) if row.expand is None)
    row = life.rows[place]
    life.rows[place] = replace(row, found=replace(row.found, rank=row.found.rank + 1))
    first = small.replay(story, lives=[life]).first_difference
    assert (first.what, first.line) == ("choice", row.line) and first.recorded == f"score.rank {row.found.rank + 1}"


@KINDS
def test_a_place_that_the_search_would_not_look_at_is_found(small, kind):
    story, life = of(small, kind)
    each = life.answers[-1]
    life.answers[-1] = replace(each, line=(*each.line, 5))
    first = small.replay(story, lives=[life]).first_difference
    assert (first.what, first.line, first.recorded) == ("choice", (*each.line, 5), str((*each.line, 5)))
    life.answers[-1] = replace(each, expand=replace(each.expand, top=9))
    first = small.replay(story, lives=[life]).first_difference
    assert (first.recorded, first.line) == ("expand.top 9", each.line)


@KINDS
def test_an_answer_that_is_otherwise_is_found(small, kind):
    story, life = of(small, kind)
    report, found = life.report, life.report.found[0]
    life.report = replace(report, found=(replace(found, logprob=found.logprob + 1e-9), *report.found[1:]))
    first = small.replay(story, lives=[life]).first_difference
    assert (first.what, first.line, first.token) == ("answer", None, None)
    assert first.recorded == f"search.found[0].logprob {found.logprob + 1e-9}"
    life.report = replace(report, upper_bound=1.5)
    assert small.replay(story, lives=[life]).first_difference.recorded == "search.upper_bound 1.5"
    life.report = None
    first = small.replay(story, lives=[life]).first_difference
    assert (first.recorded, first.found) == ("it goes on", f"it ends: {report.ended_by}")
    life.report = report
    line = replace(story.lines[0], tokens=[*story.lines[0].tokens[:-1], 6])
    told = replace(story, lines=story.lines | {0: line})
    first = small.replay(told, lives=[life]).first_difference
    assert (first.what, first.sequence) == ("answer", 0) and "6" in first.recorded


def test_an_end_by_the_clock_is_replayed_by_the_recorded_clock(small):
    """The same rows, and another time: the search would have gone on, or ended before."""
    story, life = of(small, "best_first")
    how = story.request.search.best_first
    search = replace(story.request.search, best_first=replace(how, budget=replace(how.budget, seconds=1e6)))
    timed = replace(story, request=replace(story.request, search=search))
    assert small.replay(timed, lives=[life]).equal
    life.answers[0] = replace(life.answers[0], spent=Spent(1, 1e6))
    assert small.replay(timed, lives=[life]).first_difference.what == "answer"


def test_what_cannot_be_replayed_says_why(small):
    story, life = of(small, "beam")
    for told, message in (
        (replace(story, is_whole=False), "a part of request"),
        (replace(story, has_tokens=False), "without its tokens"),
        (replace(story, error="it was too long"), "not accepted: it was too long"),
    ):
        with pytest.raises(TraceError, match=message):
            small.replay(told, lives=[life])
    with pytest.raises(TraceError, match="no row that token 1 was chosen by"):
        small.replay(story, 1, lives=[replace(life, rows=[])])
