"""Schedule replay: every drawn world, recorded, is decided again to the step; and a replay that differs says where."""

import os
from collections import Counter
from dataclasses import replace
from random import Random

import pytest
from served import Served
from simulation import Guesser
from taped import Taped, drawn, drawn_to

from openwork.core.event import Finished
from openwork.core.step import Candidates
from openwork.trace.entry import Began, Decided, Planned, Ran, Submitted, Waited
from openwork.trace.recording import Recording
from openwork.trace.replay.schedule import check

SEEDS = 40


def test_every_drawn_schedule_replays_to_the_step(is_long):
    fresh = Random(0 if "CI" in os.environ else None).sample(range(10**6, 10**9), 2_000 if is_long else 20)
    steps = 0
    for seed in [*range(SEEDS), *fresh]:
        entries = drawn(seed)
        checked = check(entries)
        assert checked.is_equal, f"seed {seed}: {checked.differences}"
        assert checked.processes == sum(isinstance(entry, Began) for entry in entries)
        steps += checked.steps
    assert steps > 1000


def test_a_recording_in_files_replays(tmp_path):
    for seed in range(10):
        recording = drawn_to(tmp_path / str(seed), seed, keeps_prompts=True)
        assert not recording.damage
        checked = check(recording.entries())
        assert checked.is_equal, f"seed {seed}: {checked.differences}"
        assert checked.steps == sum(isinstance(entry, Planned) for entry in drawn(seed))


class Foretold(Taped):
    """A world in which guesses are often right."""

    def _guesser(self, sequence):
        return Guesser(sequence, self.draw, self.guess_rate)


def test_a_recording_without_prompts_replays(tmp_path, is_long):
    """Loops, guesses, waits for guesses and searches of every kind: told where stand-ins cannot say, else decided."""
    counts = Counter()
    for seed in range(1000 if is_long else 30):
        recording = drawn_to(tmp_path / str(seed), seed, keeps_prompts=False, kind=Foretold if seed % 2 else Taped)
        assert not recording.damage
        checked = check(recording.entries())
        assert checked.is_equal, f"seed {seed}: {checked.differences}"
        for entry in recording.entries():
            counts["decided"] += isinstance(entry, Decided)
            counts["waited"] += isinstance(entry, Waited) and entry.for_guess
            for event in getattr(entry, "events", ()):
                counts["loops"] += isinstance(event, Finished) and event.reason == "repetition"
            for work in entry.step.works if isinstance(entry, Planned) else ():
                counts["guesses"] += len(work.drafts)
    assert all(counts[each] > 10 for each in ("decided", "waited", "loops", "guesses")), counts


def test_searches_of_a_model_without_prompts_replay(tmp_path, is_long):
    for seed in range(20 if is_long else 1):
        served = Served(tmp_path / str(seed), None, seed, searches=0.7, leaves=0.01, keeps=False)
        served.run(60, kills=1)
        recording = Recording.open(tmp_path / str(seed))
        checked = check(recording.entries())
        assert checked.is_equal and checked.processes == 2, checked.differences
        assert any(isinstance(entry, Decided) for entry in recording.entries())


def test_a_search_that_compares_tokens_is_recorded_without_what_it_went_by(tmp_path):
    """Neither log-probabilities nor hashes stand beside its decisions; the lines are those that its steps compute."""
    decided = compared = 0
    for seed in range(10):
        asked, lines, told = {}, {}, {}
        for entry in drawn_to(tmp_path / str(seed), seed, keeps_prompts=False).entries():
            match entry:
                case Began():
                    asked, lines, told = {}, {}, {}
                case Submitted():
                    asked[entry.number] = entry.request.search
                case Decided():
                    decided += 1
                    told.setdefault(entry.number, set()).update(leaf.line for leaf in entry.generation.leaves)
                case Planned():
                    lines[entry.step.number] = entry.owners
                    for (number, _), line in zip(entry.owners, entry.lines, strict=False):
                        assert line in (None, ()) or number not in told or line in told[number]
                case Ran():
                    for (number, _), outcome in zip(lines[entry.result.step], entry.result.outcomes, strict=True):
                        assert outcome.row_hashes == ()
                        if number in told:
                            compared += outcome.candidates is not None
                            assert outcome.candidates in (None, Candidates()) and not outcome.scores
    assert decided > 20 and compared > 20


def test_a_decision_that_is_otherwise_is_a_difference(tmp_path):
    seed, entries, place = next(
        (seed, entries, place)
        for seed in range(40)
        for entries in [list(drawn_to(tmp_path / str(seed), seed, keeps_prompts=False).entries())]
        for place, entry in enumerate(entries)
        if isinstance(entry, Decided) and len(entry.generation.leaves) > 1
    )
    leaves = entries[place].generation.leaves
    entries[place] = replace(entries[place], generation=replace(entries[place].generation, leaves=leaves[:1]))
    checked = check(entries)
    assert len(checked.differences) == 1 and not checked.is_equal, seed


class Drafted(Foretold):
    """A world in which a model guesses that the replay does not have."""

    def start(self):
        if self.settings.speculation is not None:
            guessing = replace(self.settings.speculation, guess="org/small")
            self.settings = replace(self.settings, speculation=guessing)
        super().start()


def test_what_a_draft_model_guessed_is_told_and_replays():
    guessed = 0
    for seed in range(30):
        entries = list(Drafted(seed).run().tape)
        checked = check(entries)
        assert checked.is_equal, f"seed {seed}: {checked.differences}"
        guessed += sum(bool(work.drafts) for e in entries if isinstance(e, Planned) for work in e.step.works)
    assert guessed > 50


def test_the_first_difference_is_named():
    entries = drawn(3)
    places = [place for place, entry in enumerate(entries) if isinstance(entry, Planned)]
    place, entry = places[20], entries[places[20]]
    work = entry.step.works[0]
    works = (replace(work, blocks=(*work.blocks[:-1], 99)), *entry.step.works[1:])
    changed = [*entries[:place], replace(entry, step=replace(entry.step, works=works)), *entries[place + 1 :]]
    checked = check(changed)
    (difference,) = checked.differences
    assert not checked.is_equal and checked.steps == 20 and checked.unread == len(entries) - place - 1
    assert (difference.line, difference.where) == ("step 20", "step.works[0].blocks")
    assert str(difference) == (
        f"process 0, step 20: step.works[0].blocks was {(*work.blocks[:-1], 99)}, and is {work.blocks} in the replay"
    )


@pytest.mark.parametrize("kind", [Submitted, Planned, Ran])
def test_lines_that_are_missing_are_noticed(kind):
    entries = drawn(3)
    place = next(place for place, entry in enumerate(entries) if isinstance(entry, kind))
    checked = check(entries[:place] + entries[place + 1 :])
    assert not checked.is_equal
    assert not check(entries[1:]).is_equal and check(entries[1:]).unread == len(entries) - 1


def test_a_step_number_that_is_jumped_over_is_a_gap_and_no_difference():
    entries = drawn(3)
    first = next(place for place, entry in enumerate(entries) if isinstance(entry, Planned) and entry.step.number == 5)
    last = next(place for place, entry in enumerate(entries) if isinstance(entry, Planned) and entry.step.number == 9)
    checked = check(entries[:first] + entries[last:])
    assert not checked.differences and checked.unread == len(entries) - last
    assert checked.gaps == ("process 0: lines are missing before step 9",)
