"""Fingerprints: files that nobody touched are known without being read; all others are hashed."""

import hashlib
import os

import pytest

from openwork.load import fingerprint
from openwork.load.fingerprint import Fingerprints, Look

HASH = hashlib.sha256(b"weights").hexdigest()


@pytest.fixture
def weights(tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"weights")
    return path


@pytest.fixture
def hashed(monkeypatch):
    """The files that were hashed; all files look settled."""
    monkeypatch.setattr(Look, "is_settled", True)
    names, digest = [], hashlib.file_digest

    def file_digest(file, kind):
        names.append(os.path.basename(file.name))
        return digest(file, kind)

    monkeypatch.setattr(fingerprint.hashlib, "file_digest", file_digest)
    return names


def sources(memo, *paths):
    return Fingerprints(memo, paths).sources()


def test_a_file_is_hashed_once(weights, tmp_path, hashed):
    memo = tmp_path / "memo.json"
    expected = [{"name": weights.name, "bytes": 7, "sha256": HASH}]
    assert sources(memo, weights) == expected
    assert sources(memo, weights) == expected
    assert hashed == [weights.name]


@pytest.mark.parametrize("how", ["touch", "replace", "write"])
def test_a_file_that_looks_otherwise_is_hashed_again(how, weights, tmp_path, hashed):
    memo = tmp_path / "memo.json"
    sources(memo, weights)
    if how == "touch":
        os.utime(weights, (0, 0))
    elif how == "replace":
        (tmp_path / "new").write_bytes(b"weights")
        (tmp_path / "new").replace(weights)
    else:
        weights.write_bytes(b"weightz")
    assert (sources(memo, weights)[0]["sha256"] == HASH) == (how != "write")
    assert len(hashed) == 2


def test_a_file_of_this_second_is_not_remembered(weights, tmp_path):
    memo = tmp_path / "memo.json"
    sources(memo, weights)
    assert weights.name not in memo.read_text() if memo.exists() else True


def test_a_file_of_the_hub_has_its_hash_for_a_name(tmp_path, hashed):
    (tmp_path / "blobs").mkdir()
    blob = tmp_path / "blobs" / HASH
    blob.write_bytes(b"weights")
    link = tmp_path / "model.safetensors"
    try:
        link.symlink_to(blob)
    except OSError:
        pytest.skip("no symbolic links here")
    memo = tmp_path / "memo.json"
    assert sources(memo, link)[0]["sha256"] == HASH and hashed == []
    blob.write_bytes(b"changed")  # nobody should, but the name no longer tells
    assert sources(memo, link)[0]["sha256"] != HASH and hashed == [link.name]


@pytest.mark.parametrize(
    "memo_text", ["", "{", "[]", '{"model.safetensors": 1}', '{"model.safetensors": {"sha256": "x"}}']
)
def test_a_broken_memo_is_no_memo(memo_text, weights, tmp_path, hashed):
    memo = tmp_path / "memo.json"
    memo.write_text(memo_text)
    assert sources(memo, weights)[0]["sha256"] == HASH
    assert hashed == [weights.name]
    sources(memo, weights)
    assert hashed == [weights.name]


def test_a_memo_that_cannot_be_written_is_done_without(weights, tmp_path, hashed):
    assert sources(tmp_path / "nowhere" / "memo.json", weights)[0]["sha256"] == HASH


def test_a_change_while_hashing_is_noticed(weights, tmp_path):
    prints = Fingerprints(tmp_path / "memo.json", [weights])
    weights.write_bytes(b"weights!")
    with pytest.raises(OSError, match="changed while"):
        prints.sources()


def test_samples_see_the_whole_length_of_a_file(tmp_path):
    path = tmp_path / "big"
    path.write_bytes(bytes(2**20))
    before = Look.at(path).samples
    seen = set()
    for at in (0, 2**19 + 2**14, 2**20 - 1):
        data = bytearray(2**20)
        data[at - at % 4096 : at - at % 4096 + 70000] = b"x" * 70000
        path.write_bytes(data[: 2**20])
        seen.add(Look.at(path).samples)
    assert before not in seen and len(seen) == 3


def test_an_empty_file_has_a_look(tmp_path):
    (tmp_path / "empty").write_bytes(b"")
    assert Look.at(tmp_path / "empty").size == 0
