"""Thousands of seeded worlds, each as in simulation.py. A failing seed is printed, and is had again by one command."""

import os
from random import Random

from simulation import Simulation

SEEDS, MANY = 300, 5_000


def test_whatever_happens_nothing_is_lost_and_every_token_is_its_own(is_long):
    # The first worlds are always the same; others are new in every run, except where runs must repeat.
    fresh = Random(0 if "CI" in os.environ else None).sample(range(1_000_000, 10**9), MANY if is_long else SEEDS // 4)
    for seed in [*range(SEEDS), *fresh]:
        try:
            Simulation(seed).run()
        except Exception as error:
            raise AssertionError(f"seed {seed} fails; again with: python tests/simulation.py {seed}") from error
