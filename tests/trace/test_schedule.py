"""Schedule replay: every drawn world, recorded, is decided again to the step; and a replay that differs says where."""

import os
from random import Random

import pytest
from taped import drawn, drawn_to

from openwork.trace.entry import Began, Planned
from openwork.trace.schedule import check

SEEDS = 60


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


@pytest.mark.parametrize("keeps_prompts", [True, False])
def test_a_recording_in_files_replays_whether_or_not_it_keeps_prompts(keeps_prompts, tmp_path):
    for seed in range(25):
        recording = drawn_to(tmp_path / str(seed), seed, keeps_prompts)
        assert not recording.damage
        checked = check(recording.entries())
        assert checked.is_equal, f"seed {seed}: {checked.differences}"
        assert checked.steps == sum(isinstance(entry, Planned) for entry in drawn(seed))
