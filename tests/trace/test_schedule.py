"""Schedule replay: every drawn world, recorded, is decided again to the step; and a replay that differs says where."""

import os
from dataclasses import replace
from random import Random

import pytest
from simulation import Guesser
from taped import Taped, drawn, drawn_to

from openwork.trace.entry import Began, Planned, Ran, Submitted
from openwork.trace.schedule import check

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


class Drafted(Taped):
    """A world in which a model guesses that the replay does not have."""

    def start(self):
        if self.settings.speculation is not None:
            guessing = replace(self.settings.speculation, guess="org/small")
            self.settings = replace(self.settings, speculation=guessing)
        super().start()

    def _guesser(self, sequence):
        return Guesser(sequence, self.draw, self.guess_rate)


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
