"""What is written is what happened: every line of drawn engines comes back as it was."""

import pytest
from recorded import simulated

from openwork.trace.entry import Pictured
from openwork.trace.recording import Recording


@pytest.mark.parametrize("seed", range(25))
def test_every_line_of_a_drawn_engine_comes_back(seed, tmp_path):
    it = simulated(seed, tmp_path)
    recording = Recording.open(tmp_path)
    read = [entry for entry in recording.entries() if not isinstance(entry, Pictured)]
    for one, two in zip(it.entries, read, strict=False):
        assert one == two
    assert len(read) == len(it.entries) and recording.damage == ()
    assert all(kept.told == [] for kept in it.kept)
