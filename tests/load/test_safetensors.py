"""The reader of safetensors files: what it gives, and that nothing malformed gets past it or crashes it."""

import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from openwork.core.errors import ModelError
from openwork.load.safetensors import MAX_HEADER_BYTES, File
from openwork.testing.checkpoint import write_safetensors


def write(path, header, data=b"", length=None):
    """A file with any header: an object, or bytes."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes((len(text) if length is None else length).to_bytes(8, "little") + text + data)
    return path


def entry(dtype="F32", shape=(2,), begin=0, end=8):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.safetensors"


@pytest.mark.parametrize(("dtype", "stored"), [("float32", "F32"), ("float16", "F16"), ("bfloat16", "BF16")])
def test_reads_what_was_written(path, dtype, stored):
    values = np.arange(60, dtype=np.float32).reshape(12, 5) / 4
    write_safetensors(path, {"one": values, "two": np.ones(3, np.float32)}, dtype)
    with File(path) as file:
        tensor = file.tensors["one"]
        assert (tensor.dtype, tensor.shape, tensor.num_entries) == (stored, (12, 5), 60)
        got = tensor.rows(3, 7)
        if dtype == "bfloat16":
            got = (got.astype(np.uint32) << 16).view(np.float32)
        np.testing.assert_array_equal(got.astype(np.float32), values[3:7])
        assert not tensor.rows(0, 1).flags.writeable
        tensor.drop()
        np.testing.assert_array_equal(tensor.rows(0, 12).shape, (12, 5))


def test_reads_the_official_writer(path):
    numpy_writer = pytest.importorskip("safetensors.numpy")
    values = {"a": np.random.default_rng(0).random((7, 3), np.float32), "b": np.zeros((0, 4), np.float32)}
    numpy_writer.save_file(values, path, metadata={"format": "pt"})
    with File(path) as file:
        np.testing.assert_array_equal(file.tensors["a"].rows(0, 7), values["a"])
        assert file.tensors["b"].shape == (0, 4)


def test_entries_that_are_not_aligned_are_copied(path):
    data = b"\x07" + np.array([1.5, 2.5], "<f4").tobytes()
    with File(write(path, {"a": entry("U8", (1,), 0, 1), "b": entry(begin=1, end=9)}, data)) as file:
        rows = file.tensors["b"].rows(0, 2)
        assert rows.flags.aligned
        assert rows.tolist() == [1.5, 2.5]


def test_views_outlive_a_closed_file(path):
    write_safetensors(path, {"one": np.arange(4, dtype=np.float32)})
    file = File(path)
    rows = file.tensors["one"].rows(0, 4)
    file.close()
    assert rows.tolist() == [0, 1, 2, 3]


def test_a_type_that_is_no_weight_is_named_when_it_is_read(path):
    with (
        File(write(path, {"mask": entry("U8", (8,))}, bytes(8))) as file,
        pytest.raises(ModelError, match="dtype U8") as e,
    ):
        file.tensors["mask"].rows(0, 8)
    assert e.value.field == "mask"


MALFORMED = {
    "empty file": (lambda p: p.write_bytes(b""), "has 0 bytes"),
    "seven bytes": (lambda p: p.write_bytes(b"1234567"), "has 7 bytes"),
    "header beyond the bound": (lambda p: write(p, b"{}", length=MAX_HEADER_BYTES + 1), "the format allows"),
    "header of 2**64 bytes": (lambda p: write(p, b"{}", length=2**64 - 1), "the format allows"),
    "header beyond the file": (lambda p: write(p, b"{}", length=1000), "cut off after 2 of them"),
    "not JSON": (lambda p: write(p, b"{nonsense"), "not valid JSON"),
    "not UTF-8": (lambda p: write(p, b'{"\xff": 1}'), "not UTF-8 at byte 2"),
    "a list": (lambda p: write(p, [1]), "not an object"),
    "deep brackets": (lambda p: write(p, b"[" * 200_000), "too many digits or levels"),
    "long number": (lambda p: write(p, b'{"a": ' + b"9" * 9000 + b"}"), "too many digits or levels"),
    "name twice": (lambda p: write(p, b'{"a": 1, "a": 2}'), "is there twice"),
    "metadata of numbers": (lambda p: write(p, {"__metadata__": {"a": 1}}), "text to text"),
    "entry is text": (lambda p: write(p, {"a": "b"}), "must have dtype, shape and data_offsets"),
    "entry with more": (lambda p: write(p, {"a": entry() | {"x": 1}}, bytes(8)), "nothing else"),
    "unknown dtype": (lambda p: write(p, {"a": entry("Q7")}, bytes(8)), "unknown dtype 'Q7'"),
    "dtype is a list": (lambda p: write(p, {"a": entry([])}, bytes(8)), "unknown dtype"),
    "negative shape": (lambda p: write(p, {"a": entry(shape=(-2,))}, bytes(8)), "shape of at most"),
    "true in shape": (lambda p: write(p, {"a": entry(shape=(True, 2))}, bytes(8)), "shape of at most"),
    "many dimensions": (lambda p: write(p, {"a": entry(shape=(1,) * 17)}, bytes(8)), "shape of at most"),
    "huge shape": (lambda p: write(p, {"a": entry(shape=(2**40, 2**40))}, bytes(8)), "has 8 bytes, but F32"),
    "offsets backwards": (lambda p: write(p, {"a": entry(begin=8, end=0)}, bytes(8)), "has -8 bytes"),
    "three offsets": (lambda p: write(p, {"a": entry() | {"data_offsets": [0, 4, 8]}}, bytes(8)), "two data_offsets"),
    "half a byte": (lambda p: write(p, {"a": entry("F4", (3,), 0, 1)}, bytes(1)), "takes 1.5"),
    "wrong size": (lambda p: write(p, {"a": entry(shape=(3,))}, bytes(8)), "takes 12"),
    "overlap": (lambda p: write(p, {"a": entry(), "b": entry(begin=4, end=12)}, bytes(12)), "overlaps a"),
    "gap": (
        lambda p: write(p, {"a": entry(), "b": entry(begin=12, end=20)}, bytes(20)),
        "leaves 4 unused bytes after a",
    ),
    "gap at the start": (lambda p: write(p, {"a": entry(begin=4, end=12)}, bytes(12)), "after the header"),
    "cut off": (lambda p: write(p, {"a": entry()}, bytes(5)), "3 bytes are missing"),
    "bytes at the end": (lambda p: write(p, {"a": entry()}, bytes(11)), "3 bytes after its last tensor"),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_files_are_refused(path, name):
    make, message = MALFORMED[name]
    make(path)
    with pytest.raises(ModelError, match=message) as error:
        File(path)
    assert error.value.where == str(path)


def test_a_file_that_cannot_be_opened(path):
    with pytest.raises(ModelError, match="cannot be read"):
        File(path)


ANYTHING = settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
ENTRY = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["F32", "BF16", "F4", "BOOL", "F64", "?"]),
        "shape": st.lists(st.integers(-2, 40), max_size=3),
        "data_offsets": st.lists(st.integers(-2, 200), min_size=1, max_size=3),
    }
)


def opens_or_refuses(path):
    """Either a ModelError, or a file all of whose tensors can be read to the last byte."""
    try:
        file = File(path)
    except ModelError:
        return
    with file:
        for tensor in file.tensors.values():
            assert 8 <= tensor.begin <= tensor.end <= file.size
            if tensor.dtype in ("F32", "F16", "BF16") and tensor.shape:
                assert tensor.rows(0, tensor.shape[0]).size == tensor.num_entries


@ANYTHING
@given(st.binary(max_size=200))
def test_random_bytes(path, data):
    path.write_bytes(data)
    opens_or_refuses(path)


@ANYTHING
@given(JSON | st.dictionaries(st.text(max_size=4), ENTRY | JSON, max_size=3), st.binary(max_size=160))
def test_random_headers(path, header, data):
    write(path, header, data)
    opens_or_refuses(path)


@ANYTHING
@given(st.data())
def test_mutated_files(path, data):
    write_safetensors(path, {"one": np.ones((3, 4), np.float32), "two": np.ones(5, np.float32)}, "bfloat16")
    blob = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        blob[data.draw(st.integers(0, min(len(blob), 260) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(bytes(blob[: data.draw(st.integers(0, len(blob)))]) if data.draw(st.booleans()) else bytes(blob))
    opens_or_refuses(path)
