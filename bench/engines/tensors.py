"""Safetensors, as much of it as the benchmark's own files need: read by memory map, write one tensor after another.

Source: the format's description by Hugging Face: 8 bytes of length, a JSON header, then the data.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

TYPES = {"BF16": np.uint16, "F32": np.float32, "I8": np.int8}


@dataclass(frozen=True)
class Tensor:
    """``values`` holds the bits: bfloat16 as uint16."""

    kind: str  # one of TYPES
    values: np.ndarray

    def floats(self) -> np.ndarray:
        return (self.values.astype(np.uint32) << 16).view(np.float32) if self.kind == "BF16" else self.values


def read(path: Path) -> dict[str, Tensor]:
    """Every tensor of a file, mapped."""
    data = np.memmap(path, np.uint8, "r")
    size = int.from_bytes(data[:8].tobytes(), "little")
    header = json.loads(data[8 : 8 + size].tobytes())
    header.pop("__metadata__", None)
    found = {}
    for name, about in header.items():
        first, last = (8 + size + offset for offset in about["data_offsets"])
        found[name] = Tensor(about["dtype"], data[first:last].view(TYPES[about["dtype"]]).reshape(about["shape"]))
    return found


def write(path: Path, shapes: Mapping[str, tuple[str, tuple[int, ...]]], tensors: Iterable[np.ndarray]) -> None:
    """Write ``tensors`` in the order of ``shapes``, name -> (kind, shape)."""
    header, at = {"__metadata__": {"format": "pt"}}, 0
    for name, (kind, shape) in shapes.items():
        size = int(np.prod(shape)) * np.dtype(TYPES[kind]).itemsize
        header[name] = {"dtype": kind, "shape": list(shape), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for values in tensors:
            file.write(np.ascontiguousarray(values).data)


def bfloat16(values: np.ndarray) -> np.ndarray:
    """float32 -> the bits of the nearest bfloat16; finite values only."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    return ((bits + np.uint32(0x7FFF) + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
