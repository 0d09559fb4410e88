"""Checkpoints of one file and of many: every way in which the pieces can fail to fit together."""

import json
import pickle

import pytest

from openwork.core.errors import ModelError
from openwork.load.checkpoint import INDEX, SINGLE, Checkpoint
from openwork.testing.checkpoint import write_checkpoint


@pytest.fixture
def sharded(tmp_path):
    return write_checkpoint(tmp_path, shards=3)


def edit_index(directory, change):
    path = directory / INDEX
    index = json.loads(path.read_text())
    change(index)
    path.write_text(json.dumps(index))


def refused(directory, message):
    with pytest.raises(ModelError, match=message) as error:
        Checkpoint(directory)
    return error.value


def test_shards_hold_what_one_file_holds(tmp_path, sharded):
    single = write_checkpoint(tmp_path / "single")
    with Checkpoint(sharded) as many, Checkpoint(single) as one:
        assert many.tensors.keys() == one.tensors.keys()
        for name, tensor in one.tensors.items():
            size = tensor.shape[0]
            assert (many.tensors[name].rows(0, size) == tensor.rows(0, size)).all()


def test_a_missing_shard_is_named(sharded):
    (sharded / "model-00002-of-00003.safetensors").unlink()
    error = refused(sharded, "is missing; 10 tensors should be in it")
    assert error.where.endswith("model-00002-of-00003.safetensors")


def test_a_tensor_that_its_shard_does_not_hold_is_named(sharded):
    edit_index(sharded, lambda index: index["weight_map"].update(ghost="model-00001-of-00003.safetensors"))
    assert refused(sharded, "does not hold this tensor").field == "ghost"


def test_a_tensor_that_the_index_leaves_out_is_named(sharded):
    edit_index(sharded, lambda index: index["weight_map"].pop("model.norm.weight"))
    assert refused(sharded, "does not say so").field == "model.norm.weight"


@pytest.mark.parametrize(
    "shard", ["../a.safetensors", "/etc/a.safetensors", "x/a.safetensors", "..\\a.safetensors", "a.bin", "", None, 3]
)
def test_shards_are_plain_names(sharded, shard):
    edit_index(sharded, lambda index: index["weight_map"].update({"model.norm.weight": shard}))
    assert refused(sharded, "is not the plain name of a safetensors file").field == "model.norm.weight"


@pytest.mark.parametrize("value", [None, [], {}, "a"])
def test_an_index_without_a_map(sharded, value):
    edit_index(sharded, lambda index: index.update(weight_map=value))
    assert refused(sharded, "must map tensor names to files").field == "weight_map"


def test_a_damaged_shard_is_named(sharded):
    path = sharded / "model-00003-of-00003.safetensors"
    path.write_bytes(path.read_bytes()[:-7])
    assert refused(sharded, "7 bytes are missing").where == str(path)


def test_pickle_files_are_refused_unopened(tmp_path):
    class Trap:
        def __reduce__(self):
            return (pytest.fail, ("the pickle was opened",))

    (tmp_path / "pytorch_model.bin").write_bytes(pickle.dumps(Trap()))
    assert "save_file" in refused(tmp_path, "holds only pickle files").hint


def test_nothing_there(tmp_path):
    refused(tmp_path, f"neither {SINGLE} nor {INDEX}")
