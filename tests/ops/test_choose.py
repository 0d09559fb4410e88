"""Choosing a token from a row of logits: what is kept, where a draw falls, and that all backends agree."""

import numpy as np
import pytest

from openwork.ops.cpu import Cpu, available
from openwork.ops.reference import Reference

BACKENDS = ("reference", *available())


def ops_of(backend):
    return Reference() if backend == "reference" else Cpu(1, isa=backend)


@pytest.mark.parametrize("backend", BACKENDS)
def test_choose_is_the_inverse_of_the_running_sum(backend):
    ops = ops_of(backend)
    logits = np.log(np.float32([0.1, 0.4, 0.2, 0.2, 0.1]))

    def drawn(top_k=5, top_p=1.0, min_p=0.0, temperature=1.0):
        return [ops.choose(logits, temperature, top_k, top_p, min_p, noise) for noise in np.arange(0.005, 1, 0.01)]

    assert np.bincount(drawn()).tolist() == [10, 40, 20, 20, 10]
    assert drawn() == sorted(drawn())  # laid end to end in ascending id
    assert set(drawn(top_k=2)) == {1, 2}  # the tie of 2 and 3 goes to 2
    assert set(drawn(top_p=0.41)) == {1, 2}
    assert set(drawn(top_p=1e-9)) == {1}
    assert set(drawn(min_p=0.45)) == {1, 2, 3}
    assert set(drawn(min_p=0.45, top_k=3, top_p=0.7)) == {1, 2}  # of 0.8 kept, 0.56 are asked for
    assert set(drawn(temperature=1e-3)) == {1}
    assert np.ptp(np.bincount(drawn(temperature=1e6))) <= 1


@pytest.mark.parametrize("backend", available())
def test_choose_agrees(backend):
    ops, rng = ops_of(backend), np.random.default_rng(11)
    for vocab in (1, 9, 700, 20_000):
        logits = np.round(rng.standard_normal(vocab, dtype=np.float32) * 3, 1)
        for temperature in (0.3, 1.0, 20.0):
            for top_k, top_p, min_p in (
                (vocab, 1, 0),
                (3, 1, 0),
                (50, 0.8, 0),
                (vocab, 0.9, 0),
                (vocab, 0.999, 0.01),
                (7, 1, 0.3),
            ):
                for noise in (0.0, *rng.random(4), np.nextafter(1, 0)):
                    arguments = (logits, temperature, top_k, top_p, min_p, noise)
                    assert ops.choose(*arguments) == Reference().choose(*arguments), arguments[1:]
