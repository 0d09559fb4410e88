"""Weight cache: the packed weights of big models, kept in files and mapped on the next start.

    $OPENWORK_CACHE, or openwork/ in the platform's cache directory
        packed/<model>-<dtype>-<hash of the path>.packed, and .sources.json beside it

A file is used when all of this holds, and is made anew otherwise:

    its bytes are those that were written     checksums over everything, each time (packed_file.py)
    it was made from these very files         SHA-256 of config and weights (fingerprint.py)
    packing would give the same bytes today   the contract's version, and the hash of a small matrix packed just now
    its numbers are finite                    they were looked at when they were packed
    it holds what the model file asks for     every array has a recipe: names, ranges, offsets and shapes

Nothing about the cache can fail a load: no room, no permission, a file that somebody broke, two processes at once. The
worst is a warning and the time that packing takes. Which files are old is not known here; removing any is always safe.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from openwork.core.errors import ModelError
from openwork.load import packed_file
from openwork.load.checkpoint import Checkpoint
from openwork.load.fingerprint import Fingerprints
from openwork.load.formats import Role, format_of
from openwork.load.packed_file import PackedFile, Progress
from openwork.load.store import Entry, Piece, num_outputs, recipe
from openwork.ops.checksum import PAGE
from openwork.ops.packed import DType, Packed, shape_of
from openwork.ops.reference import Reference

VARIABLE = "OPENWORK_CACHE"
WORTH_BYTES = 64 * 2**20  # smaller weights are packed faster than anybody notices
SPARE_BYTES = 2**30  # that a cache file must leave free on its disk
LAYOUT = 2  # to be raised when a file of this kind means something else; since 2 all its numbers are known to be finite


class Mapped:
    """A Store that finds everything packed, in the order in which it was packed. Raises ModelError when it does not."""

    checks_copies = False  # they were compared when the file was made

    def __init__(self, file: PackedFile, dtype: DType) -> None:
        self._file, self._dtype = file, dtype
        self._at = 0

    def vector(self, pieces: Sequence[Piece], offset: float) -> np.ndarray:
        return self._next(recipe(pieces, offset), (num_outputs(pieces),), "float32")

    def matrix(self, pieces: Sequence[Piece], k: int, transposed: bool, role: Role) -> Packed:
        n, dtype = num_outputs(pieces), format_of(role, self._dtype)
        kind = {"float32": "float32", "bfloat16": "uint16"}.get(dtype, "uint8")
        return Packed(dtype, n, k, self._next(recipe(pieces, k, transposed), shape_of(n, k, dtype), kind))

    def _next(self, made_from: str, shape: tuple[int, ...], kind: str) -> np.ndarray:
        if self._at == len(self._file.arrays):
            raise ModelError("holds fewer arrays than the model needs", where=str(self._file.path))
        array, record = self._file.arrays[self._at], self._file.records[self._at]
        self._at += 1
        if record.get("recipe") != made_from or array.shape != shape or array.dtype.name != kind:
            raise ModelError("holds another array here", where=str(self._file.path), field=str(record.get("name")))
        return array


class WeightCache:
    """The place of one checkpoint's weights in one format."""

    def __init__(self, checkpoint: Checkpoint, dtype: DType, ops: Reference) -> None:
        """Raises OSError when the checkpoint's files cannot be looked at."""
        self._ops, self._dtype = ops, dtype
        self.path = cache_directory() / file_name(checkpoint.directory, dtype)
        paths = [checkpoint.directory / "config.json", *checkpoint.paths]
        # Looked at before anything is read, so that a change in the meantime is noticed when it is saved.
        self._fingerprints = Fingerprints(self.path.with_suffix(".sources.json"), paths)

    def find(self, progress: Progress | None = None) -> PackedFile | None:
        """The file, checked, or None when it must be made. Warns when there is one that is broken."""
        try:
            if not self.path.exists():
                return None
            file = PackedFile(self.path)
            about = file.about
            if about.get("packing") != self._packing() or not self._has_same_sizes(about.get("sources")):
                return None
            if about.get("sources") != self._fingerprints.sources():
                return None
            file.verify(self._ops, progress)
        except (ModelError, OSError) as error:
            warnings.warn(f"The packed weights of an earlier start are made anew. {error}", RuntimeWarning, 2)
            return None
        return file

    def save(self, entries: Sequence[Entry], progress: Progress | None = None) -> bool:
        """Write what was packed, for the next start. Warns when that is impossible; returns whether it was done."""
        from concurrent.futures import ThreadPoolExecutor  # a start that finds its file does not wait for this import

        needed = sum(entry.data.nbytes + PAGE for entry in entries)
        try:
            free = shutil.disk_usage(_nearest(self.path)).free
            if free < needed + SPARE_BYTES:
                raise OSError(f"{needed:,} bytes are needed and {SPARE_BYTES:,} should stay free; there are {free:,}")
            with ThreadPoolExecutor(1) as beside:  # the source is hashed while the file is written
                sources = beside.submit(self._fingerprints.sources)
                packed_file.write(
                    self.path,
                    [entry.data for entry in entries],
                    [_record(entry) for entry in entries],
                    lambda: {"packing": self._packing(), "sources": sources.result()},
                    self._ops,
                    progress,
                )
        except OSError as error:
            reason = error.strerror or str(error)
            message = f"The packed weights could not be kept in {self.path.parent} for the next start: {reason}."
            hint = f"Set {VARIABLE} to another directory, or leave the cache alone with --no-weight-cache."
            warnings.warn(f"{message} {hint}", RuntimeWarning, 2)
            return False
        return True

    def _packing(self) -> dict[str, object]:
        """What decides about the bytes beside the source: were any of it another, the file would be too."""
        contract = self._ops.contract_id.rpartition("-")[2]
        roles: tuple[Role, ...] = ("layer", "embedding", "positions")
        probes = [_probe(self._ops, each) for each in dict.fromkeys(format_of(role, self._dtype) for role in roles)]
        return {"layout": LAYOUT, "contract": contract, "dtype": self._dtype, "probes": probes}

    def _has_same_sizes(self, sources: Any) -> bool:
        """Whether it is worth a hash."""
        if not isinstance(sources, list) or not all(isinstance(each, dict) for each in sources):
            return False
        return [each.get("bytes") for each in sources] == [look.size for look in self._fingerprints.looks]


def cache_directory() -> Path:
    """Where packed weights are kept: $OPENWORK_CACHE or the platform's place for caches."""
    chosen = os.environ.get(VARIABLE)
    if chosen:
        return Path(chosen).expanduser() / "packed"
    if sys.platform == "darwin":
        base = Path("~/Library/Caches").expanduser()
    elif sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path("~/AppData/Local").expanduser())
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser())
    return base / "openwork" / "packed"


def file_name(directory: Path, dtype: DType) -> str:
    """One name for each checkpoint directory and dtype, so that a changed checkpoint replaces its file."""
    where = directory.resolve()
    short = re.sub(r"[^\w.-]", "_", where.name)[:60]
    return f"{short}-{dtype}-{hashlib.sha256(str(where).encode()).hexdigest()[:12]}.packed"


def _record(entry: Entry) -> dict[str, object]:
    return {"name": entry.name, "recipe": entry.recipe}


def _probe(ops: Reference, dtype: DType) -> str:
    """The hash of a small matrix as it is packed today: another layout or rounding gives another one."""
    n, k = 40, 200
    numbers = np.arange(n * k, dtype=np.int64) * 2654435761 % 65536 - 32768
    packed = Packed.empty(n, k, dtype)
    ops.pack_rows(packed, 0, (numbers.reshape(n, k) * 2.0**-13).astype(np.float32))
    return hashlib.sha256(packed.data.tobytes()).hexdigest()[:16]


def _nearest(path: Path) -> Path:
    """The first directory above that exists already."""
    return next((each for each in path.parents if each.exists()), Path())
