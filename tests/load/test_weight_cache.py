"""Packed weights on disk: the same bits on the second start, and nothing that breaks a file breaks a load."""

from __future__ import annotations

import errno
import json
import os
import shutil
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from one_sequence import OneSequence

from openwork.load import packed_file, weight_cache
from openwork.load.assemble import load
from openwork.load.checkpoint import Checkpoint
from openwork.load.store import Pack
from openwork.load.weight_cache import WeightCache, cache_directory
from openwork.ops.packed import DTYPES
from openwork.ops.reference import Reference
from openwork.testing.checkpoint import ARCHITECTURES, write_checkpoint

IDS = [3, 1, 4, 1, 5, 9, 2, 6]
PROBE = (40, 200)


class Counting(Reference):
    """Counts the weights that are packed; the probe of the packing is no weight."""

    def __init__(self):
        self.packed = 0

    def pack_rows(self, packed, row, source):
        self.packed += source.shape != PROBE
        return super().pack_rows(packed, row, source)


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("OPENWORK_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "packed"


@pytest.fixture
def llama(tmp_path):
    return settled(write_checkpoint(tmp_path / "llama"))


def settled(directory):
    """As if written an hour ago; the time of the inode's own change cannot be set back."""
    for path in directory.iterdir():
        os.utime(path, (path.stat().st_atime, path.stat().st_mtime - 3600))
    return directory


def logits(loaded):
    return OneSequence(loaded.model).feed(IDS).tobytes()


def start(directory, dtype="auto", **how):
    """One start: the logits, how many slabs were packed, and what was loaded."""
    ops = Counting()
    loaded = load(directory, ops, dtype, **({"cache": "always"} | how))
    return logits(loaded), ops.packed, loaded


def the_file(home):
    (path,) = home.glob("*.packed")
    return path


def start_twice(directory, dtype="auto"):
    first, second = start(directory, dtype), start(directory, dtype)
    assert second[1] == 0 and second[2].is_mapped
    assert first[0] == second[0]
    return first, second


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_mapped_model_gives_the_same_bytes(architecture, tmp_path):
    directory = write_checkpoint(tmp_path / "model", architecture, seed=3)
    first, second = start_twice(directory)
    assert first[1] > 0 and not first[2].is_mapped
    assert second[2].weight_bytes == first[2].weight_bytes
    assert second[2].cache_file is not None and second[2].cache_file == first[2].cache_file


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("architecture", ["Qwen3ForCausalLM", "GPT2LMHeadModel"])
def test_every_dtype_is_kept(dtype, architecture, tmp_path):
    start_twice(write_checkpoint(tmp_path / "model", architecture, dtype="bfloat16"), dtype)


def test_the_arrays_are_those_of_the_file(llama):
    _, second = start_twice(llama)
    data = second[2].model.weights.layers[0].mlp.up.weight.data
    assert not data.flags.writeable and not data.flags.owndata
    base = data
    while isinstance(base, np.ndarray) and base.base is not None:
        base = base.base
    assert type(base).__name__ in ("mmap", "memoryview")


def test_dtypes_have_files_of_their_own(llama, home):
    start_twice(llama, "float32")
    start_twice(llama, "bfloat16")
    assert len([*home.glob("*.packed")]) == 2


def test_never_is_never(llama, home):
    assert start(llama, cache="never")[2].cache_file is None
    start(llama)
    assert start(llama, cache="never")[1] > 0


def test_small_weights_are_not_worth_a_file_but_one_that_is_there_is_used(llama, home, monkeypatch):
    assert start(llama, cache="big")[2].cache_file is None
    assert not home.exists()
    monkeypatch.setattr("openwork.load.assemble.WORTH_BYTES", 1)
    assert start(llama, cache="big")[2].cache_file == the_file(home)
    monkeypatch.undo()


def test_progress_says_what_happens(llama):
    calls = []
    load(llama, Reference(), cache="always", progress=lambda *call: calls.append(call))
    assert [*dict.fromkeys(stage for stage, _, _ in calls)] == ["packing", "saving"]
    calls.clear()
    load(llama, Reference(), cache="always", progress=lambda *call: calls.append(call))
    assert {stage for stage, _, _ in calls} == {"loading"} and calls[-1][1] == calls[-1][2]


# ---------------------------------------------------------------- files that broke


def flip(path, at):
    with path.open("r+b") as file:
        file.seek(at, 2 if at < 0 else 0)
        byte = file.read(1)
        file.seek(-1, 1)
        file.write(bytes([byte[0] ^ 1]))


BREAK = {
    "magic": lambda path: flip(path, 0),
    "length": lambda path: flip(path, 20),
    "header hash": lambda path: flip(path, 30),
    "header": lambda path: flip(path, 100),
    "first data": lambda path: flip(path, -(path.stat().st_size - first_data(path))),
    "last page": lambda path: flip(path, -4096),
    "last byte": lambda path: flip(path, -1),
    "cut off": lambda path: os.truncate(path, path.stat().st_size - 4096),
    "longer": lambda path: os.truncate(path, path.stat().st_size + 4096),
    "tiny": lambda path: os.truncate(path, 10),
    "empty": lambda path: os.truncate(path, 0),
    "pages in another order": lambda path: swap_pages(path),
}


def first_data(path):
    return read_header(path)["data_begin"]


def read_header(path):
    data = path.read_bytes()
    return json.loads(data[64 : 64 + int.from_bytes(data[16:24], "little")])


def swap_pages(path):
    data, at = bytearray(path.read_bytes()), first_data(path)
    one, two = bytes(data[at : at + 4096]), bytes(data[at + 4096 : at + 8192])
    assert one != two
    data[at : at + 8192] = two + one
    path.write_bytes(data)


@pytest.mark.parametrize("how", BREAK)
def test_a_broken_file_is_made_anew(how, llama, home):
    good = start(llama)[0]
    before = the_file(home).read_bytes()
    BREAK[how](the_file(home))
    with pytest.warns(RuntimeWarning, match="made anew"):
        again = start(llama)
    assert again[0] == good and again[1] > 0
    assert the_file(home).read_bytes() == before
    assert start(llama)[1] == 0


def test_a_file_in_the_place_of_a_directory_is_no_reason_to_fail(llama, home):
    home.parent.mkdir(parents=True)
    home.write_bytes(b"")
    with pytest.warns(RuntimeWarning, match="could not be kept"):
        assert start(llama)[2].cache_file is None


# ---------------------------------------------------------------- files that are not current


def test_other_weights_are_packed_again(llama, home):
    before = start(llama)[0]
    write_checkpoint(llama, seed=1)  # of the same size
    after = start(llama)
    assert after[0] != before and after[1] > 0
    assert after[0] == start(llama, cache="never")[0]


def test_one_changed_weight_is_noticed_although_size_and_time_are_as_before(llama, home):
    before = start(llama)[0]
    path = llama / "model.safetensors"
    status = path.stat()
    data = bytearray(path.read_bytes())
    at = len(data) // 2
    data[at + 3] ^= 0x01
    with path.open("r+b") as file:  # in place: the same inode
        file.write(data)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    after = start(llama)
    assert after[1] > 0 and after[0] != before


def test_a_touched_checkpoint_is_hashed_and_found_the_same(llama):
    start(llama)
    for path in llama.iterdir():
        path.touch()
    assert start(llama)[1] == 0


def test_a_copied_checkpoint_is_another_place(llama, tmp_path):
    start(llama)
    assert start(shutil.copytree(llama, tmp_path / "copy"))[1] > 0


def test_another_config_is_another_source(llama):
    start(llama)
    config = json.loads((llama / "config.json").read_text())
    (llama / "config.json").write_text(json.dumps(config | {"rope_theta": 5000.0}))
    assert start(llama)[1] > 0


def test_another_layout_or_contract_is_packed_again(llama, monkeypatch):
    start(llama)
    monkeypatch.setattr(weight_cache, "LAYOUT", 999)
    assert start(llama)[1] > 0
    assert start(llama)[1] == 0
    monkeypatch.setattr(Counting, "contract_id", "numpy-v999", raising=False)
    assert start(llama)[1] > 0


def test_a_packing_that_gives_other_bytes_is_noticed(llama):
    """Nobody has to remember to raise a version when a layout or a rounding changes."""
    start(llama)

    class Other(Counting):
        def pack_rows(self, packed, row, source):
            return super().pack_rows(packed, row, source * np.float32(0.5))

    assert not load(llama, Other(), cache="always").is_mapped


def test_a_file_with_other_recipes_is_packed_again(llama, home):
    """As if the model file had learned to take its tensors in another way."""
    good = start(llama)[0]
    with Checkpoint(llama) as checkpoint:
        cache = WeightCache(checkpoint, "float32", Reference())
        file = cache.find()
        entries = [{"name": each["name"], "recipe": "0" * 16} for each in file.records]
        packed_file.write(cache.path, file.arrays, entries, lambda: file.about, Reference())
    again = start(llama)
    assert again[0] == good and again[1] > 0


def test_a_checkpoint_that_changes_while_it_is_packed_is_not_kept(llama, home, monkeypatch):
    pack = Pack.matrix

    def slow(self, pieces, *rest):
        (llama / "config.json").touch()
        return pack(self, pieces, *rest)

    monkeypatch.setattr(Pack, "matrix", slow)
    with pytest.warns(RuntimeWarning, match="changed while"):
        assert start(llama)[2].cache_file is None
    assert not [*home.glob("*.packed")]


# ---------------------------------------------------------------- writing


def nothing_left(home):
    return not home.exists() or not [*home.glob("*.packed"), *home.glob(".*.part")]


def test_no_room_is_a_warning(llama, home, monkeypatch):
    usage = shutil.disk_usage(llama)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=2**20))
    with pytest.warns(RuntimeWarning, match="should stay free"):
        assert start(llama)[1] > 0
    assert nothing_left(home)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_a_disk_that_fills_up_or_fails_is_a_warning(code, llama, home, monkeypatch):
    def fsync(descriptor):
        raise OSError(code, os.strerror(code))

    good = start(llama, cache="never")[0]
    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.warns(RuntimeWarning, match=os.strerror(code)):
        assert start(llama)[0] == good
    assert nothing_left(home)


def test_a_directory_that_may_not_be_written_is_a_warning(llama, home, monkeypatch):
    def mkstemp(**how):
        raise PermissionError(errno.EACCES, "Permission denied", str(how["dir"]))

    monkeypatch.setattr("tempfile.mkstemp", mkstemp)
    with pytest.warns(RuntimeWarning, match=r"Permission denied.*--no-weight-cache"):
        assert start(llama)[2].cache_file is None
    assert nothing_left(home)


def test_an_interrupt_leaves_nothing_behind(llama, home, monkeypatch):
    def fsync(descriptor):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(KeyboardInterrupt):
        start(llama)
    assert nothing_left(home)


def test_what_a_killed_writer_left_is_removed_and_what_a_living_one_writes_is_not(llama, home):
    home.mkdir(parents=True)
    old, new = home / ".a.packed.x.part", home / ".b.packed.y.part"
    for path in (old, new):
        path.write_bytes(b"")
    os.utime(old, (0, 0))
    start(llama)
    assert not old.exists() and new.exists()


def test_two_writers_at_once(llama, home):
    """Both finish, and whoever was last left a whole file."""
    gate, seen, good = threading.Barrier(2), [], start(llama, cache="never")[0]

    class Waiting(Reference):
        def pack_rows(self, packed, row, source):
            if source.shape != PROBE and not hasattr(self, "came"):
                self.came = True
                gate.wait(60)
            return super().pack_rows(packed, row, source)

    def one():
        seen.append(logits(load(llama, Waiting(), cache="always")))

    threads = [threading.Thread(target=one) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [good, good]
    assert not [*home.glob(".*.part")]
    assert start(llama)[:2] == (good, 0)


def test_a_file_that_is_replaced_stays_whole_for_who_has_it_open(llama):
    start(llama)
    _, _, loaded = start(llama)
    before = logits(loaded)
    write_checkpoint(llama, seed=1)
    start(llama)
    assert logits(loaded) == before


# ---------------------------------------------------------------- places


@pytest.mark.parametrize(
    ("platform", "variable", "value", "expected"),
    [
        ("linux", "XDG_CACHE_HOME", "/somewhere", Path("/somewhere/openwork/packed")),
        ("linux", "XDG_CACHE_HOME", "", Path("~/.cache/openwork/packed")),
        ("darwin", "XDG_CACHE_HOME", "/somewhere", Path("~/Library/Caches/openwork/packed")),
        ("win32", "LOCALAPPDATA", "/local", Path("/local/openwork/packed")),
        ("linux", "OPENWORK_CACHE", "~/mine", Path("~/mine/packed")),
    ],
)
def test_the_place(platform, variable, value, expected, monkeypatch):
    monkeypatch.delenv("OPENWORK_CACHE")
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setenv(variable, value)
    assert cache_directory() == expected.expanduser()


def test_only_the_owner_may_look(llama, home):
    start(llama)
    if os.name == "posix":
        assert home.stat().st_mode & 0o077 == 0
        assert the_file(home).stat().st_mode & 0o077 == 0
