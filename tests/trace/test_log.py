"""What is written is what happened: every line of drawn engines comes back as it was."""

import pytest
from recorded import Kept, began
from simulation import VOCAB, Simulation

from openwork.trace.recording import Recording


class Recorded(Simulation):
    """A simulated engine that is recorded, each of its lives in turn."""

    directory = None
    how = {}

    def recorder(self):
        if not hasattr(self, "kept"):
            self.kept = []
        settings = (self.cache_settings, self.settings, self.door)
        about = began(self.clock.now(), VOCAB, tenants=self.tenants.known)
        about = type(about)(
            **{
                **{name: getattr(about, name) for name in about.__slots__},
                **dict(zip(("cache", "schedule", "admission"), settings, strict=True)),
            }
        )
        self.kept.append(Kept(self.directory, about, **self.how))
        return self.kept[-1]

    @property
    def entries(self):
        return [entry for kept in self.kept for entry in kept.entries]


def simulated(seed, directory, **how):
    class Here(Recorded):
        pass

    Here.directory, Here.how = directory, how
    return Here(seed).run()


@pytest.mark.parametrize("seed", range(25))
def test_every_line_of_a_drawn_engine_comes_back(seed, tmp_path):
    it = simulated(seed, tmp_path)
    recording = Recording.open(tmp_path)
    read = list(recording.entries())
    for one, two in zip(it.entries, read, strict=False):
        assert one == two
    assert len(read) == len(it.entries) and recording.damage == ()
    assert all(kept.told == [] for kept in it.kept)
