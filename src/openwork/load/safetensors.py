"""Safetensors files, read through mmap and trusted in nothing.

    8 bytes   length of the header, little endian
    header    JSON: name -> {"dtype", "shape", "data_offsets": [begin, end)}, and "__metadata__": text -> text
    data      the tensors, C order, offsets relative to its start

Source: the format document of the safetensors project (README, "Format"). Guarantees: when a file opens, its header is
within bounds, every tensor's bytes lie inside the file, agree with its shape, and neither overlap nor leave gaps.
Nothing is allocated on the header's word. A file that shrinks while it is mapped ends the process (a bus error, by the
operating system's rule); nobody can check for that. Which tensors a model needs is not known here.
"""

from __future__ import annotations

import mmap
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from openwork.core.errors import ModelError
from openwork.load.document import parse_object

MAX_HEADER_BYTES = 100_000_000  # the bound of the format's own implementation
MAX_DIMENSIONS = 16
# Bits an entry. Only the floats at the end can be weights here; the others may be there, unused.
_BITS = {"BOOL": 8, "U8": 8, "I8": 8, "U16": 16, "I16": 16, "U32": 32, "I32": 32, "U64": 64, "I64": 64}
_BITS |= {"F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "F64": 64, "C64": 64}
_BITS |= {"F16": 16, "BF16": 16, "F32": 32}
FLOATS: Mapping[str, type[np.generic]] = {"F32": np.float32, "F16": np.float16, "BF16": np.uint16}


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor in a file. ``begin`` and ``end`` are bytes from the start of the file."""

    name: str
    dtype: str  # as the format spells it
    shape: tuple[int, ...]
    begin: int
    end: int
    file: File

    @property
    def num_entries(self) -> int:
        return prod(self.shape)

    @property
    def num_bytes(self) -> int:
        return self.end - self.begin

    def rows(self, first: int, last: int) -> np.ndarray:
        """Entries first .. last - 1 of the first axis, a read-only view of the file; BF16 as uint16 bits.

        The view keeps the file mapped. Raises ModelError when the tensor is not of a float type that openwork reads.
        """
        if self.dtype not in FLOATS:
            raise ModelError(
                f"has dtype {self.dtype}; weights must be {', '.join(FLOATS)}",
                "Convert the checkpoint to float32, float16 or bfloat16.",
                where=str(self.file.path),
                field=self.name,
            )
        shape = (last - first, *self.shape[1:])
        kind = np.dtype(FLOATS[self.dtype])
        offset = self.begin + first * prod(self.shape[1:]) * kind.itemsize
        view = np.frombuffer(self.file.buffer, kind, prod(shape), offset).reshape(shape)
        return view if view.flags.aligned else view.copy()

    def drop(self) -> None:
        """Give back the memory that reading took; the file can be read again."""
        self.file.drop(self.begin, self.end)


class File:
    """An open file and its tensors by name. Raises ModelError for anything that is not as the format says."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.tensors: dict[str, Tensor] = {}
        if sys.byteorder != "little":
            raise ModelError("safetensors files need a little-endian machine", where=str(path))
        try:
            with path.open("rb") as file:
                self.size = file.seek(0, 2)
                if self.size < 8:
                    raise self._error(f"has {self.size} bytes, fewer than the 8 that every file starts with")
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except OSError as error:
            raise self._error(f"cannot be read: {error.strerror}") from error
        try:
            self._read_header()
        except ModelError:
            self.close()
            raise

    @property
    def buffer(self) -> mmap.mmap:
        return self._map

    def __enter__(self) -> File:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Unmap the file. Views that are still alive keep it mapped until they go."""
        try:
            self._map.close()
        except BufferError:  # a view is alive, in the frames of an error for example
            return

    def drop(self, begin: int, end: int) -> None:
        """Give back the pages between two bytes of the file."""
        if hasattr(mmap, "MADV_DONTNEED"):
            begin -= begin % mmap.PAGESIZE
            self._map.madvise(mmap.MADV_DONTNEED, begin, min(end, self.size) - begin)

    def _read_header(self) -> None:
        length = int.from_bytes(self._map[:8], "little")
        if length > MAX_HEADER_BYTES:
            raise self._error(f"declares a header of {length} bytes; the format allows {MAX_HEADER_BYTES}")
        if 8 + length > self.size:
            raise self._error(f"declares a header of {length} bytes, but is cut off after {self.size - 8} of them")
        header = parse_object(self._map[8 : 8 + length], str(self.path))
        metadata = header.pop("__metadata__", {})
        if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
            raise self._error("must map text to text", "__metadata__")
        start = 8 + length
        for name, entry in header.items():
            self.tensors[name] = self._tensor(name, entry, start)
        self._check_layout(start)

    def _tensor(self, name: str, entry: Any, start: int) -> Tensor:
        short = name[:200]
        if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
            raise self._error("must have dtype, shape and data_offsets, and nothing else", short)
        dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
        if not isinstance(dtype, str) or dtype not in _BITS:
            raise self._error(f"has the unknown dtype {str(dtype)[:40]!r}", short)
        if not isinstance(shape, list) or len(shape) > MAX_DIMENSIONS or not all(_is_size(each) for each in shape):
            raise self._error(f"must have a shape of at most {MAX_DIMENSIONS} integers from 0 to 2**48", short)
        if not isinstance(offsets, list) or len(offsets) != 2 or not all(_is_size(each) for each in offsets):
            raise self._error("must have two data_offsets from 0 to 2**48", short)
        begin, end = offsets
        bits = prod(shape) * _BITS[dtype]
        if bits % 8 or end - begin != bits // 8:
            raise self._error(f"has {end - begin} bytes, but {dtype} of shape {shape} takes {bits / 8:g}", short)
        return Tensor(name, dtype, tuple(shape), start + begin, start + end, self)

    def _check_layout(self, start: int) -> None:
        """Tensors tile the data:   start |t0|t1|  t2  |t3| size"""
        at, last = start, "the header"
        for tensor in sorted(self.tensors.values(), key=lambda each: (each.begin, each.end)):
            if tensor.begin != at:
                what = "overlaps" if tensor.begin < at else f"leaves {tensor.begin - at} unused bytes after"
                raise self._error(f"{what} {last}", tensor.name[:200])
            at, last = tensor.end, tensor.name[:200]
        if at > self.size:
            raise self._error(f"is cut off: {at - self.size} bytes are missing at its end", hint="Download it again.")
        if at < self.size:
            raise self._error(f"has {self.size - at} bytes after its last tensor that belong to none")

    def _error(self, message: str, field: str = "", hint: str = "") -> ModelError:
        return ModelError(message, hint, where=str(self.path), field=field)


def _is_size(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 2**48
