"""What is written is what happened: every line of drawn engines comes back as it was."""

from dataclasses import replace

import pytest
from recorded import Kept, began
from simulation import VOCAB, Simulation

from openwork.trace.recording import Recording


class Recorded(Simulation):
    """A simulated engine that is recorded, each of its lives in turn."""

    def __init__(self, seed, directory, **how):
        self.kept, self.directory, self.how = [], directory, how
        super().__init__(seed)

    def recorder(self):
        about = began(self.clock.now(), VOCAB, tenants=self.tenants.known)
        about = replace(about, cache=self.cache_settings, schedule=self.settings, admission=self.door)
        self.kept.append(Kept(self.directory, about, **self.how))
        return self.kept[-1]

    @property
    def entries(self):
        return [entry for kept in self.kept for entry in kept.entries]


def simulated(seed, directory, **how):
    return Recorded(seed, directory, **how).run()


@pytest.mark.parametrize("seed", range(25))
def test_every_line_of_a_drawn_engine_comes_back(seed, tmp_path):
    it = simulated(seed, tmp_path)
    recording = Recording.open(tmp_path)
    read = list(recording.entries())
    for one, two in zip(it.entries, read, strict=False):
        assert one == two
    assert len(read) == len(it.entries) and recording.damage == ()
    assert all(kept.told == [] for kept in it.kept)
