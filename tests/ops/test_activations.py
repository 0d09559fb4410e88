"""Our own polynomials, in every instruction set: within units in the last place of float64, for all of their range."""

import math

import numpy as np
import pytest

from openwork.ops.cpu import Cpu, available
from openwork.ops.packed import Packed
from openwork.ops.weights import Linear

UNIT = 2.0**-23  # of the last place, relative, at worst


def line():
    """Float32 values, dense where the functions bend and out to where they saturate."""
    dense = np.concatenate(
        [np.linspace(-20, 20, 20_001), np.geomspace(1e-30, 120, 5_000), -np.geomspace(1e-30, 120, 5_000)]
    )
    return dense.astype(np.float32)


def relative(got, wanted):
    """Largest error relative to the true value, where that is a normal float32."""
    normal = np.abs(wanted) > 1.2e-38
    return (np.abs(got.astype(np.float64) - wanted)[normal] / np.abs(wanted[normal])).max()


@pytest.mark.parametrize("isa", available())
def test_silu_is_x_over_one_plus_exp(isa):
    x = line()
    exact = x.astype(np.float64) / (1 + np.exp(-x.astype(np.float64)))
    got = Cpu(1, isa).act(x, "silu")
    inside = x > -88  # further out exp(-x) is infinite in float32, and the result zero
    assert relative(got[inside], exact[inside]) < 2.5 * UNIT
    assert np.abs(got - exact)[~inside].max() < 1e-35


@pytest.mark.parametrize("isa", available())
def test_tanh(isa):
    ops, x = Cpu(1, isa), line()
    one = Packed.empty(1, 1, "float32")
    one.put(0, np.ones((1, 1), np.float32))
    got = ops.logits(x[:, None], ops.bind(Linear(one)), 1.0)[:, 0]  # a soft cap of 1 is tanh
    assert relative(got, np.tanh(x.astype(np.float64))) < 2 * UNIT


@pytest.mark.parametrize("isa", available())
def test_gelu(isa):
    ops, x = Cpu(1, isa), line()
    wide = x.astype(np.float64)
    erf = np.vectorize(math.erf)(wide / math.sqrt(2))
    positive = x > 0
    assert relative(ops.act(x, "gelu")[positive], (0.5 * wide * (1 + erf))[positive]) < 3 * UNIT
    tanh = np.tanh(math.sqrt(2 / math.pi) * (wide + 0.044715 * wide**3))
    assert relative(ops.act(x, "gelu_tanh")[positive], (0.5 * wide * (1 + tanh))[positive]) < 3 * UNIT
    for kind, exact in (("gelu", 0.5 * wide * (1 + erf)), ("gelu_tanh", 0.5 * wide * (1 + tanh))):
        assert np.abs(ops.act(x, kind) - exact)[~positive].max() < 4 * UNIT  # 1 + erf loses digits, not size


@pytest.mark.parametrize("isa", available())
def test_what_is_not_a_number_stays_so(isa):
    ops = Cpu(1, isa)
    x = np.float32([np.nan, np.inf, -np.inf, -0.0])
    for kind in ("silu", "gelu", "gelu_tanh", "relu"):
        out = ops.act(x, kind)
        assert np.isnan(out[0]) and out[1] == np.inf and out[3] == 0, kind
    assert ops.act(x, "relu")[2] == 0
    assert np.isnan(ops.logsumexp(x[None])[0]) and np.isposinf(ops.logsumexp(x[None, 1:])[0])


@pytest.mark.parametrize("isa", available())
def test_subnormals_are_flushed_inside_and_only_there(isa):
    ops, tiny = Cpu(2, isa), np.full(40_000, 1e-40, np.float32)
    assert tiny[0] * np.float32(1) != 0
    assert not ops.add(tiny.copy(), tiny).any()
    assert tiny[0] * np.float32(1) != 0
