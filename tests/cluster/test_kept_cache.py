"""The prefix cache over a restart: found again where everything agrees, and begun anew wherever anything does not."""

import json
import os
import shutil
import stat

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from remotely import answer, ask, remote, run

import openwork
from openwork.build import wire
from openwork.cluster.kept_cache import KeptCache
from openwork.core.settings import AdmissionSettings, LoadSettings, ScheduleSettings
from openwork.core.terms import Tenants
from openwork.engine.loop import Loop
from openwork.engine.service import Engine
from openwork.load import packed_file

LONG = tuple(range(100, 200))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A copy of the embedded model that tests may change."""
    path = tmp_path_factory.mktemp("model") / "stories"
    return shutil.copytree(os.path.join(os.path.dirname(openwork.__file__), "stories"), path)


class Life:
    """An engine with a kept cache, in this process."""

    def __init__(self, model, directory, **load):
        options = {"kv_cache_bytes": 4 * 2**20, **load}
        self.wired = wire(model, LoadSettings(**options), ScheduleSettings(), AdmissionSettings(), Tenants())
        self.engine = Engine(Loop(self.wired.scheduler, self.wired.runner, self.wired.clock))
        self.kept = KeptCache(directory, self.wired)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.engine.close()

    def ask(self, prompt=LONG, **params):
        how = openwork.SamplingParams(
            **{"temperature": 0, "max_tokens": 20, "logprobs": 3, "ignore_eos": True, **params}
        )
        from openwork.core.request import Request

        stream = self.engine.submit(Request(prompt, how, self.wired.limits))
        self.engine.drain()
        return stream.take()

    def check(self):
        self.wired.scheduler.check()


@pytest.fixture(scope="module")
def written(model, tmp_path_factory):
    """A directory with a file of an earlier life, and what that life answered."""
    directory = tmp_path_factory.mktemp("kept")
    with Life(model, directory) as life:
        assert life.kept.restore() == 0
        events = answer(life.ask())
        assert life.kept.save() == 119
    return directory, events


def test_what_was_cached_is_found_and_gives_the_same_bits(model, written):
    directory, events = written
    with Life(model, directory) as life:
        assert life.kept.restore() == 119
        life.check()
        again = life.ask()
        assert again[-1].account.cached == 99
        assert answer(again) == events
        life.check()


def test_the_file_is_its_owners_and_whole(written):
    directory, _ = written
    assert {stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()} == {0o600}
    assert len(list(directory.glob("*.prefix"))) == 1


@pytest.mark.parametrize("load", [{"kv_dtype": "int8"}, {"dtype": "float32"}, {"context": 256}, {"block_size": 32}])
def test_another_format_or_layout_begins_cold_and_in_peace(model, written, load):
    directory, _ = written
    with Life(model, directory, **load) as life:
        assert life.kept.restore() == 0


def test_less_room_takes_what_was_used_last(model, written):
    directory, events = written
    with Life(model, directory, kv_cache_bytes=49152 * 36, context=512) as life:
        assert 0 < life.kept.restore() <= 119
        life.check()
        assert answer(life.ask()) == events


def test_other_weights_begin_cold(model, written, tmp_path):
    directory, _ = written
    other = shutil.copytree(model, tmp_path / "stories")
    weights = bytearray((other / "model.safetensors").read_bytes())
    weights[-2] ^= 1
    (other / "model.safetensors").write_bytes(weights)
    with Life(other, tmp_path) as life:
        shutil.copy(next(directory.glob("*.prefix")), life.kept.path)
        assert life.kept.restore() == 0


def test_weights_that_change_while_they_are_served_are_not_saved_for(model, tmp_path):
    other = shutil.copytree(model, tmp_path / "stories")
    with Life(other, tmp_path) as life:
        life.ask()
        with (other / "config.json").open("a") as file:
            file.write("\n")
        with pytest.warns(RuntimeWarning, match="could not be saved"):
            assert life.kept.save() == 0
        assert not life.kept.path.exists()


def damaged(path, place, change):
    """Change one byte of those that mean something: between header and data there is room that nobody reads."""
    data = bytearray(path.read_bytes())
    header = packed_file.PREFIX_BYTES + int.from_bytes(data[16:24], "little")
    begin = json.loads(data[packed_file.PREFIX_BYTES : header])["data_begin"]
    place %= header + len(data) - begin
    data[place if place < header else place - header + begin] ^= change
    path.write_bytes(data)


@given(st.integers(0, 2**40), st.integers(1, 255))
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_damaged_byte_is_found(life_with_a_copy, place, change):
    life, original = life_with_a_copy
    shutil.copy(original, life.kept.path)
    damaged(life.kept.path, place, change)
    with pytest.warns(RuntimeWarning, match="left alone"):
        assert life.kept.restore() == 0
    assert not len(life.wired.scheduler.cache.tree)


@pytest.fixture(scope="module")
def life_with_a_copy(model, written, tmp_path_factory):
    original = next(written[0].glob("*.prefix"))
    with Life(model, tmp_path_factory.mktemp("copy")) as life:
        yield life, original


@pytest.mark.parametrize("length", [0, 10, 64, 5000, -1])
def test_a_file_that_was_cut_is_left_alone(life_with_a_copy, length):
    life, original = life_with_a_copy
    life.kept.path.write_bytes(original.read_bytes()[:length])
    with pytest.warns(RuntimeWarning, match="left alone"):
        assert life.kept.restore() == 0


def rewrite(life, original, change):
    """The file again with valid checksums over other content: from somebody who may write it, and means ill."""
    file = packed_file.PackedFile(original)
    arrays = [np.array(array) for array in file.arrays]
    records = json.loads(arrays[0].tobytes())
    records, arrays[1:] = change(records, arrays[1:])
    arrays[0] = np.frombuffer(json.dumps(records).encode(), np.uint8)
    packed_file.write(life.kept.path, arrays, [{} for _ in arrays], lambda: dict(file.about), life.wired.ops)


def with_record(change):
    def changed(records, arrays):
        change(records)
        return records, arrays

    return changed


@pytest.mark.parametrize(
    "change",
    [
        with_record(lambda records: records[0].update(block=10**6)),
        with_record(lambda records: records[0].update(block=-1)),
        with_record(lambda records: records[1].update(parent=5)),
        with_record(lambda records: records[1].update(parent=-1)),
        with_record(lambda records: records[0].update(tokens=[10**9])),
        with_record(lambda records: records[0].update(tokens=["x"])),
        with_record(lambda records: records[0].update(tokens=[])),
        with_record(lambda records: records[0].update(tokens=[1] * 10_000)),
        with_record(lambda records: records[0].update(namespace="tenant")),
        with_record(lambda records: records[0].pop("tenant")),
        with_record(lambda records: records.pop()),
        with_record(lambda records: records.append(dict(records[0], block=len(records)))),
        lambda records, arrays: ({}, arrays),
        lambda records, arrays: (records, arrays[:-1]),
        lambda records, arrays: (records, [*arrays, arrays[0]]),
        lambda records, arrays: (records, [array[:-1] for array in arrays]),
        lambda records, arrays: (records, [array.view(np.uint8) for array in arrays]),
    ],
)
def test_records_that_lie_are_refused_before_anything_changes(life_with_a_copy, change):
    life, original = life_with_a_copy
    rewrite(life, original, change)
    with pytest.warns(RuntimeWarning, match="left alone"):
        assert life.kept.restore() == 0
    assert not len(life.wired.scheduler.cache.tree)
    life.check()


def test_two_that_share_a_directory_do_not_hurt_each_other(model, tmp_path):
    with Life(model, tmp_path) as one, Life(model, tmp_path) as two:
        whole = answer(one.ask())
        two.ask(tuple(range(300, 340)))
        assert one.kept.save() and two.kept.save() and one.kept.save()
    with Life(model, tmp_path) as life:
        assert life.kept.restore() == 119
        assert answer(life.ask()) == whole
    assert len(list(tmp_path.glob("*.prefix"))) == 1 and not list(tmp_path.glob(".*"))


def test_a_directory_that_cannot_be_written_is_one_warning(model, tmp_path):
    (tmp_path / "file").touch()
    with Life(model, tmp_path / "file" / "below") as life:
        life.ask()
        with pytest.warns(RuntimeWarning, match="could not be saved"):
            assert life.kept.save() == 0


def test_an_engine_that_was_stopped_finds_its_cache_again(tmp_path):
    async def test():
        found = []
        for _ in range(2):
            async with remote(cache_dir=str(tmp_path)) as engine:
                events = await ask(engine, *LONG)
                found.append((engine.restored, events[-1].account.cached, answer(events)))
        return found

    first, second = run(test)
    assert first[:2] == (0, 0) and second[:2] == (119, 99)
    assert first[2] == second[2]
