"""The checksum: the native core and NumPy agree, parts add up, and what happens to files changes it."""

import numpy as np
import pytest

from openwork.ops import checksum as module
from openwork.ops.checksum import PAGE, checksum
from openwork.ops.cpu import Cpu, available

SIZES = [0, 1, 7, PAGE - 1, PAGE, PAGE + 1, 5 * PAGE + 64, 300 * PAGE + 3]


def noise(size, seed=0):
    return np.random.default_rng(seed).integers(0, 256, size, dtype=np.uint8)


@pytest.mark.skipif(not available(), reason="the native core is not built")
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("size", SIZES)
def test_native_and_numpy_agree(size, threads):
    data, ops = noise(size), Cpu(threads)
    for first in (0, 1, 2**40):
        assert ops.checksum(data, first) == checksum(data, first)


def test_the_native_core_wants_bytes_that_lie_together():
    if available():
        with pytest.raises((BufferError, ValueError)):
            Cpu(1).checksum(noise(64)[::2])


@pytest.mark.parametrize("dtype", [np.float32, np.uint16])
def test_only_the_bytes_count(dtype):
    data = noise(8 * PAGE)
    assert checksum(data.view(dtype).reshape(8, -1)) == checksum(data)


@pytest.mark.parametrize("cut", [0, PAGE, 3 * PAGE, 7 * PAGE])
def test_parts_add_up(cut):
    data = noise(7 * PAGE + 11)
    parts = checksum(data[:cut]) + checksum(data[cut:], cut // PAGE)
    assert parts % 2**64 == checksum(data)


def test_pieces_of_any_size_give_the_same(monkeypatch):
    data = noise(9 * PAGE + 5)
    whole = checksum(data)
    monkeypatch.setattr(module, "_AT_ONCE", PAGE)
    assert checksum(data) == whole


def test_every_bit_counts():
    data = noise(2 * PAGE, seed=1)
    seen = {checksum(data)}
    for at in range(0, data.size, 37):
        for bit in (0, 7):
            data[at] ^= 1 << bit
            seen.add(checksum(data))
            data[at] ^= 1 << bit
    assert len(seen) == 1 + 2 * len(range(0, data.size, 37))


def test_zeros_and_places_count():
    empty, page = np.zeros(4 * PAGE, np.uint8), noise(PAGE)
    sums = {checksum(empty), checksum(empty[: 3 * PAGE])}
    for at in range(4):
        moved = empty.copy()
        moved[at * PAGE : (at + 1) * PAGE] = page
        sums.add(checksum(moved))
    assert len(sums) == 6
