"""Packed files: what comes back is what was written, and no header can point outside."""

import hashlib
import json

import numpy as np
import pytest

from openwork.core.errors import ModelError
from openwork.load import packed_file
from openwork.load.packed_file import PackedFile, write
from openwork.ops.checksum import PAGE
from openwork.ops.reference import Reference

ARRAYS = [
    np.arange(5, dtype=np.float32),
    np.random.default_rng(0).integers(0, 256, (3, 50, 64), dtype=np.uint8),
    np.random.default_rng(1).integers(0, 2**16, (2, 64, 16, 2), dtype=np.uint16),
    np.zeros((1, PAGE), np.uint8),
]
RECORDS = [{"name": str(number)} for number in range(len(ARRAYS))]


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "deep" / "er" / "a.packed"
    write(path, ARRAYS, RECORDS, lambda: {"about": "a test"}, Reference())
    return path


def test_what_comes_back_is_what_was_written(path):
    file = PackedFile(path)
    file.verify(Reference())
    assert file.about == {"about": "a test"}
    assert [record["name"] for record in file.records] == ["0", "1", "2", "3"]
    for array, written in zip(file.arrays, ARRAYS, strict=True):
        assert array.dtype == written.dtype and array.shape == written.shape and np.array_equal(array, written)
        assert not array.flags.writeable and array.ctypes.data % PAGE == 0


def test_progress_counts_bytes(path, monkeypatch):
    monkeypatch.setattr(packed_file, "CHUNK_BYTES", PAGE)
    calls = []
    PackedFile(path).verify(Reference(), lambda *call: calls.append(call))
    assert calls == [(n * PAGE, len(calls) * PAGE) for n in range(1, len(calls) + 1)]


def test_the_data_is_checked_at_once_or_in_chunks_alike(path, monkeypatch):
    data = bytearray(path.read_bytes())
    data[-1] ^= 255
    path.write_bytes(data)
    for size in (PAGE, 64 * PAGE):
        monkeypatch.setattr(packed_file, "CHUNK_BYTES", size)
        with pytest.raises(ModelError, match="other data than was written"):
            PackedFile(path).verify(Reference())


def rewrite(path, change):
    """Change the header as somebody could who also knows how to hash it."""
    data = path.read_bytes()
    length = int.from_bytes(data[16:24], "little")
    header = json.loads(data[64 : 64 + length])
    begin = header["data_begin"]
    change(header)
    text = json.dumps(header).encode()
    head = data[:16] + len(text).to_bytes(8, "little") + hashlib.sha256(text).digest() + bytes(8) + text
    path.write_bytes(head.ljust(begin, b"\0") + data[begin:])


HOSTILE = {
    "no arrays": lambda h: h.pop("arrays"),
    "arrays of nothing": lambda h: h.update(arrays=[None]),
    "an unknown type": lambda h: h["arrays"][0].update(type="object"),
    "a type that is none": lambda h: h["arrays"][0].update(type=["float32"]),
    "no shape": lambda h: h["arrays"][0].pop("shape"),
    "a negative size": lambda h: h["arrays"][0].update(shape=[-5]),
    "a fraction": lambda h: h["arrays"][0].update(shape=[5.0]),
    "a truth": lambda h: h["arrays"][0].update(shape=[True]),
    "a huge size": lambda h: h["arrays"][0].update(shape=[2**48, 2**48]),
    "a size beyond the end": lambda h: h["arrays"][3].update(shape=[2, PAGE]),
    "a place beyond the end": lambda h: h["arrays"][0].update(offset=2**40),
    "a negative place": lambda h: h["arrays"][0].update(offset=-PAGE),
    "a crooked place": lambda h: h["arrays"][0].update(offset=64),
    "data elsewhere": lambda h: h.update(data_begin=h["data_begin"] + PAGE),
    "data at a crooked place": lambda h: h.update(data_begin=h["data_begin"] + 1, data_bytes=h["data_bytes"] - 1),
    "more data": lambda h: h.update(data_bytes=h["data_bytes"] + PAGE),
    "no data": lambda h: h.pop("data_bytes"),
    "no checksum": lambda h: h.pop("checksum"),
    "about nothing": lambda h: h.pop("about"),
}


@pytest.mark.parametrize("how", HOSTILE)
def test_no_header_points_outside(how, path):
    rewrite(path, HOSTILE[how])
    with pytest.raises(ModelError):
        PackedFile(path)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(ModelError, match="cannot be read"):
        PackedFile(tmp_path / "nowhere")


def test_an_error_while_writing_leaves_the_old_file(path):
    before = path.read_bytes()

    def about():
        raise OSError("no")

    with pytest.raises(OSError, match="no"):
        write(path, ARRAYS[:1], RECORDS[:1], about, Reference())
    assert path.read_bytes() == before
    assert [each.name for each in path.parent.iterdir()] == [path.name]


def test_a_header_that_outgrows_its_room_is_refused(path):
    with pytest.raises(OSError, match="longer than the room"):
        write(path, ARRAYS, RECORDS, lambda: {"much": "x" * (70 * PAGE)}, Reference())
