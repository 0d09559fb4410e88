"""Packed files: arrays as they lie in memory, to be mapped rather than read.

    64 bytes   b"openwork packed\\n", length of the header (8, little endian), its SHA-256 (32), 8 zeros
    header     JSON: about (whatever the writer wants to find again), arrays, data_begin, data_bytes, checksum
    data       from data_begin to the end of the file; it and every array begin at multiples of 4096, zeros between

Guarantees: a file appears whole or not at all under its name, whoever else writes it at the same time; and a file that
opens is byte for byte what was written, as far as checksums can tell: the header by SHA-256, the data by
ops/checksum.py, every byte of it, each time. That is affordable because it runs in all threads at the speed of memory,
and it brings in the pages that the first step reads anyway. A file that shrinks while it is mapped ends the process, by
the operating system's rule. Whose arrays these are, and whether they are still wanted, is not known here.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np

from openwork.core.errors import ModelError
from openwork.load.document import MAX_BYTES, parse_object
from openwork.ops.checksum import PAGE
from openwork.ops.reference import Reference

MAGIC = b"openwork packed\n"
PART = ".part"  # the ending of a file that is not whole yet
PREFIX_BYTES = 64
CHUNK_BYTES = 64 * 2**20  # of data between two reports of progress
STALE_S = 3600  # after this long without a write, a part file is taken for a leftover
_KINDS = {"float32": np.float32, "uint16": np.uint16, "uint8": np.uint8}

Progress = Callable[[int, int], None]  # (bytes done, bytes in all)


class PackedFile:
    """An open file: what its writer said ``about`` it, ``records`` of the arrays, and these ``arrays``, mapped.

    Raises ModelError when anything about the file is not as it was written; the data is checked by ``verify``.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with path.open("rb") as file:
                size = file.seek(0, 2)
                if size < PREFIX_BYTES:
                    raise self._error(f"has {size} bytes, fewer than its head")
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except OSError as error:
            raise self._error(f"cannot be read: {error.strerror}") from error
        header = self._header(size)
        begin, checksum, about, entries = (header.get(name) for name in ("data_begin", "checksum", "about", "arrays"))
        if not _is_size(begin) or begin % PAGE or header.get("data_bytes") != size - begin:
            raise self._error("is not as long as its header says")
        if not isinstance(checksum, int) or not isinstance(about, dict) or not isinstance(entries, list):
            raise self._error("has no checksum, no arrays, or does not say what it is about")
        self.about: Mapping[str, Any] = about
        self._checksum = checksum
        self._data = np.frombuffer(self._map, np.uint8, size - begin, begin)
        self.records: list[Mapping[str, Any]] = []
        self.arrays = [self._array(entry) for entry in entries]

    @property
    def num_bytes(self) -> int:
        """Of all arrays and what lies between them."""
        return int(self._data.size)

    def verify(self, ops: Reference, progress: Progress | None = None) -> None:
        """Compare the data with its checksum, every byte. Raises ModelError."""
        total = 0
        for start in range(0, self._data.size, CHUNK_BYTES):
            part = self._data[start : start + CHUNK_BYTES]
            total += ops.checksum(part, start // PAGE)
            if progress is not None:
                progress(start + part.size, self._data.size)
        if total % 2**64 != self._checksum:
            raise self._error("holds other data than was written")

    def _header(self, size: int) -> dict[str, Any]:
        prefix = self._map[:PREFIX_BYTES]
        length = int.from_bytes(prefix[16:24], "little")
        if prefix[:16] != MAGIC or any(prefix[56:]) or length > min(MAX_BYTES, size - PREFIX_BYTES):
            raise self._error("does not begin as a packed file does")
        text = self._map[PREFIX_BYTES : PREFIX_BYTES + length]
        if hashlib.sha256(text).digest() != prefix[24:56]:
            raise self._error("has a header that is not what was written")
        return parse_object(text, str(self.path))

    def _array(self, entry: Any) -> np.ndarray:
        """One array, a view of the file, inside its data whatever the entry says."""
        name = entry.get("type") if isinstance(entry, dict) else None
        if not isinstance(name, str) or name not in _KINDS:
            raise self._error("lists an array of an unknown type")
        kind, shape, offset = np.dtype(_KINDS[name]), entry.get("shape"), entry.get("offset")
        if (
            not isinstance(shape, list)
            or not all(_is_size(each) for each in shape)
            or not _is_size(offset)
            or offset % PAGE
        ):
            raise self._error("lists an array without a shape or a place")
        if offset + prod(shape) * kind.itemsize > self._data.size:
            raise self._error("lists an array beyond its end")
        self.records.append(entry)
        return self._data[offset : offset + prod(shape) * kind.itemsize].view(kind).reshape(shape)

    def _error(self, message: str) -> ModelError:
        return ModelError(message, where=str(self.path))


def write(
    path: Path,
    arrays: Sequence[np.ndarray],
    records: Sequence[Mapping[str, Any]],
    about: Callable[[], Mapping[str, Any]],
    ops: Reference,
    progress: Progress | None = None,
) -> None:
    """Write contiguous arrays, each with a record, under ``path``, replacing what was there.

    ``about`` is called when the data is written, so that it may be found out meanwhile. The file is made beside its
    place, brought to the disk and renamed. Raises OSError, leaving nothing behind.
    """
    entries, offset = [], 0
    for array, record in zip(arrays, records, strict=True):
        where = {"type": array.dtype.name, "shape": list(array.shape), "offset": offset}
        entries.append({**record, **where})
        offset += -(-array.nbytes // PAGE) * PAGE
    # The header's length is not known before its checksum and what it is about are: room for them is left.
    room = len(json.dumps(entries)) + PREFIX_BYTES + 64 * PAGE
    begin = -(-room // PAGE) * PAGE
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    _sweep(path.parent)
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=PART, dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            checksum = _write_data(file, begin, arrays, offset, ops, progress)
            header = {"about": about(), "arrays": entries, "data_begin": begin, "data_bytes": offset}
            text = json.dumps({**header, "checksum": checksum}).encode()
            if PREFIX_BYTES + len(text) > begin:
                raise OSError("the header of the packed file is longer than the room that was left for it")
            file.seek(0)
            file.write(MAGIC + len(text).to_bytes(8, "little") + hashlib.sha256(text).digest() + bytes(8) + text)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _write_data(
    file: Any, begin: int, arrays: Sequence[np.ndarray], total: int, ops: Reference, progress: Progress | None
) -> int:
    """Write the arrays from ``begin`` on; returns the checksum of them and of the zeros between."""
    file.seek(begin)
    checksum = done = 0
    for array in arrays:
        flat = array.reshape(-1).view(np.uint8)
        checksum += ops.checksum(flat, done // PAGE)
        for start in range(0, flat.size, CHUNK_BYTES):
            file.write(flat[start : start + CHUNK_BYTES])
            if progress is not None:
                progress(done + min(start + CHUNK_BYTES, flat.size), total + 1)
        file.write(bytes(-flat.size % PAGE))
        done += -(-flat.size // PAGE) * PAGE
    return checksum % 2**64


def _sweep(directory: Path) -> None:
    """Remove what writers left that were killed."""
    for path in directory.glob(f".*{PART}"):
        try:
            if time.time() - path.stat().st_mtime > STALE_S:
                path.unlink()
        except OSError:  # somebody else's, or gone already
            continue


def _is_size(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 2**48
