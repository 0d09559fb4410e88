"""Stamps: the first point that differs names the operation."""

import pytest

from openwork.core.stamp import (
    EMBED,
    OF_LAYER,
    Place,
    first_difference,
    num_points,
    point,
)


def test_each_point_has_its_place():
    stamp = tuple(range(num_points(3)))
    places = {(layer, op): point(layer, op) for layer in range(3) for op in OF_LAYER}
    assert sorted(places.values()) == list(range(1, len(stamp)))
    for (layer, op), at in places.items():
        other = [*stamp[:at], *(each + 99 for each in stamp[at:])]  # what comes behind a difference differs too
        assert first_difference(stamp, tuple(other)) == Place(layer, op)
    assert first_difference(stamp, (7, *stamp[1:])) == Place(0, EMBED)
    assert first_difference(stamp, stamp) is None


def test_stamps_of_other_models_are_not_compared():
    with pytest.raises(ValueError, match="zip"):
        first_difference((1,) * num_points(2), (1,) * num_points(3))
