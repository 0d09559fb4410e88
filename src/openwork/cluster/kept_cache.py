"""Kept cache: the prefix cache in a file, from an orderly stop to the next start.

    <model>-<dtype>-<kv dtype>-<hash of the path>.prefix      a packed file: checksums over everything
        records     uint8: the tree as JSON (kv/saved.py), the most recently used lines first
        keys, values of each layer       (blocks, ...) in the order of the records

A file is used when its bytes are those that were written, the model's files have the same SHA-256, and contract, number
formats, context and layout are the same; its records are checked one by one before a block of the cache is touched.
Anything else is one warning, or none when it is simply another model's, and a cold cache. A file appears whole or not
at all, so servers that share the directory cannot hurt each other: the last to stop is remembered. It holds what people
wrote, so nobody but the owner may read it.
"""

from __future__ import annotations

import hashlib
import re
import warnings
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np

from openwork.core.errors import ModelError, OpenworkError
from openwork.kv.saved import Saved, export, restore
from openwork.load import packed_file
from openwork.load.checkpoint import Checkpoint
from openwork.load.fingerprint import Fingerprints, Look
from openwork.load.packed_file import PackedFile
from openwork.wiring import Wired

LAYOUT = 1  # to be raised when a file of this kind means something else
MOST_BYTES = 4 * 2**30  # of keys and values in a file: what was used longest ago is left out
MOST_RECORD_BYTES = 256 * 2**20

_decoder = msgspec.json.Decoder(list[Saved])


class KeptCache:
    """The file of one model, as it is served."""

    def __init__(self, directory: Path, wired: Wired) -> None:
        """Looks at the model's files. Raises OSError and ModelError when they cannot be looked at."""
        self.records: tuple[Saved, ...] = ()  # what was brought back
        self._wired = wired
        self._cache = wired.scheduler.cache
        info = wired.info
        self.path = directory.expanduser() / _file_name(Path(info.directory), f"{info.dtype}-{info.kv_dtype}")
        # Looked at when they were loaded, so that a change in the meantime is noticed when the cache is saved.
        self._fingerprints = Fingerprints(self.path.with_suffix(".sources.json"), model_files(Path(info.directory)))

    def restore(self) -> int:
        """Put what was kept into an empty cache. How many tokens that is; warns when a file cannot be used."""
        try:
            if not self.path.exists():
                return 0
            file = PackedFile(self.path)
            if file.about != self._about():
                return 0
            file.verify(self._wired.ops)
            return self._take(file)
        except (OpenworkError, OSError, msgspec.MsgspecError, RecursionError) as error:
            reason = str(error)[:300]
            warnings.warn(f"The saved prefix cache is left alone, and begins anew. {reason}", RuntimeWarning, 2)
            return 0

    def save(self) -> int:
        """Write what is cached. How many tokens that is; warns when it cannot be done."""
        kv = self._wired.kv
        most = MOST_BYTES * kv.num_blocks // max(1, kv.num_bytes)
        records = export(self._cache)[:most]  # parents come before children, so any beginning is whole
        if not records:
            return 0
        blocks = [record.block for record in records]
        renumbered = [replace(record, block=place) for place, record in enumerate(records)]
        text = np.frombuffer(msgspec.json.encode(renumbered), np.uint8)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            layers = range(len(kv.keys))
            arrays = [text, *(kv.keys[i][blocks] for i in layers), *(kv.values[i][blocks] for i in layers)]
            about = self._about()
            packed_file.write(self.path, arrays, [{} for _ in arrays], lambda: about, self._wired.ops)
        except (OSError, MemoryError) as error:
            warnings.warn(f"The prefix cache could not be saved: {error}.", RuntimeWarning, 2)
            return 0
        return sum(len(record.tokens) for record in records)

    def _take(self, file: PackedFile) -> int:
        """Raises OpenworkError and MsgspecError, changing nothing, when the file does not hold what it should."""
        kv = self._wired.kv
        layers = len(kv.keys)
        if len(file.arrays) != 1 + 2 * layers or file.arrays[0].nbytes > MOST_RECORD_BYTES:
            raise ModelError("does not hold records, keys and values", where=str(self.path))
        records = _decoder.decode(file.arrays[0].tobytes())
        targets = [*kv.keys, *kv.values]  # of each layer (blocks, ...)
        for array, target in zip(file.arrays[1:], targets, strict=True):
            if array.shape != (len(records), *target.shape[1:]) or array.dtype != target.dtype:
                raise ModelError("holds blocks of another shape", where=str(self.path))
        if [record.block for record in records] != list(range(len(records))):
            raise ModelError("does not number its blocks in order", where=str(self.path))
        moves = restore(self._cache, records, self._wired.spec.vocab_size)
        old, new = [source for source, _ in moves], [target for _, target in moves]
        for array, target in zip(file.arrays[1:], targets, strict=True):
            target[new] = array[old]
        self.records = tuple(records)
        return sum(len(records[place].tokens) for place in old)

    def _about(self) -> dict[str, object]:
        """All that decides about the bytes. Raises OSError when the model's files have changed since."""
        info = self._wired.info
        return {
            "layout": LAYOUT,
            "model": self._fingerprints.sources(),
            "contract": info.contract_id,
            "dtypes": [info.dtype, info.kv_dtype],
            "context": info.context,
            "block": [info.block_size, *self._wired.kv.keys.shape[2:]],
        }


def model_files(directory: Path) -> list[Path]:
    """Everything that decides about the numbers of a model. Raises ModelError."""
    with Checkpoint(directory) as checkpoint:
        return [directory / "config.json", *checkpoint.paths]


def likeness(directory: Path) -> str:
    """A hash of how a model's files look, without reading them whole. Raises OSError and ModelError."""
    looks = [(path.name, look.size, look.samples) for path in model_files(directory) for look in [Look.at(path)]]
    return hashlib.sha256(repr(looks).encode()).hexdigest()


def _file_name(directory: Path, formats: str) -> str:
    where = directory.resolve()
    short = re.sub(r"[^\w.-]", "_", where.name)[:60]
    return f"{short}-{formats}-{hashlib.sha256(str(where).encode()).hexdigest()[:12]}.prefix"
