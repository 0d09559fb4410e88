"""Counter random numbers against the published test vectors, and their use as noise."""

from hypothesis import given
from hypothesis import strategies as st

from openwork.core.noise import philox, uniform

M = 0xFFFFFFFF


def test_philox_gives_the_published_vectors():
    # The known-answer tests that accompany Salmon et al. 2011.
    assert philox((0, 0, 0, 0), (0, 0)) == (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)
    assert philox((M, M, M, M), (M, M)) == (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)
    pi = (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344)
    assert philox(pi, (0xA4093822, 0x299F31D0)) == (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1)


@given(st.integers(0, 2**64 - 1), st.integers(0, 127), st.integers(0, 2**31), st.integers(0, 3))
def test_uniform_is_in_the_unit_interval_and_repeats(seed, index, position, draw):
    first = uniform(seed, index, position, draw)
    assert 0 <= first < 1
    assert first == uniform(seed, index, position, draw)


def test_uniform_differs_in_every_argument_and_is_even():
    base = uniform(1, 2, 3, 4)
    assert len({base, uniform(2, 2, 3, 4), uniform(1, 3, 3, 4), uniform(1, 2, 4, 4), uniform(1, 2, 3, 5)}) == 5
    assert uniform(1, 2, 3) != uniform(1 + 2**32, 2, 3), "the upper half of the seed counts"
    draws = [uniform(7, 0, position) for position in range(4000)]
    counts = [sum(1 for d in draws if int(d * 10) == bucket) for bucket in range(10)]
    assert all(320 < count < 480 for count in counts), counts
