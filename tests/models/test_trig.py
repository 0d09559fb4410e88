"""Cosines and sines against the platform's, and the table's independence of how it is asked."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openwork.models.trig import MAX_ANGLE, RotaryTable, cos_sin


@pytest.mark.parametrize("top", [1.0, 100.0, 1e5, MAX_ANGLE])
def test_half_a_unit_in_the_last_place(top):
    angles = np.random.default_rng(0).uniform(-top, top, 100_000).astype(np.float32)
    for ours, function in zip(cos_sin(angles), (np.cos, np.sin), strict=True):
        exact = function(angles.astype(np.float64))
        assert (np.abs(ours - exact) <= 0.5000001 * np.spacing(np.abs(ours)) + 1e-15).all()


def test_quarter_turns():
    angles = np.array([0, np.pi / 2, np.pi, 3 * np.pi / 2, 2 * np.pi, -np.pi / 2], np.float32)
    cos, sin = cos_sin(angles)
    np.testing.assert_allclose(cos, [1, 0, -1, 0, 1, 0], atol=5e-7)
    np.testing.assert_allclose(sin, [0, 1, 0, -1, 0, -1], atol=5e-7)
    assert cos[0] == 1
    assert sin[0] == 0


def test_the_bits_are_pinned():
    """Additions and multiplications only: these very bits on every machine."""
    cos, sin = cos_sin(np.array([1, 2.5, 1000, 123456.7, 1.9e8], np.float32))
    assert cos.view(np.uint32).tolist() == [1057640768, 3209500607, 1058011155, 3171678405, 1053035886]
    assert sin.view(np.uint32).tolist() == [1062693540, 1058616696, 1062448737, 3212827065, 1064074517]


@given(st.lists(st.integers(0, 5000), min_size=1, max_size=20))
def test_rows_do_not_depend_on_what_is_asked_together(positions):
    together, alone = RotaryTable((1.0, 0.01)), RotaryTable((1.0, 0.01))
    cos, sin = together.rows(np.array(positions, np.int32))
    for place, position in enumerate(positions):
        one = alone.rows(np.array([position], np.int32))
        assert (one[0][0] == cos[place]).all()
        assert (one[1][0] == sin[place]).all()


def test_rows_are_the_float32_products():
    cos, sin = RotaryTable((0.3, 0.7), scale=1.5).rows(np.array([3, 4097], np.int32))
    angles = np.array([[3], [4097]], np.float32) * np.array([0.3, 0.7], np.float32)
    np.testing.assert_allclose(cos, 1.5 * np.cos(angles.astype(np.float64)), rtol=2e-7)
    np.testing.assert_allclose(sin, 1.5 * np.sin(angles.astype(np.float64)), rtol=2e-7)
    assert cos.dtype == sin.dtype == np.float32


def test_no_rows():
    cos, sin = RotaryTable((1.0, 0.5)).rows(np.empty(0, np.int32))
    assert cos.shape == sin.shape == (0, 2)
