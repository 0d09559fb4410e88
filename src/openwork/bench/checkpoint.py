"""A checkpoint of a real shape, filled with noise: what a start is measured on when there is no model at hand.

It is written tensor by tensor, from one piece of noise repeated, so that eight thousand million parameters need no more
memory than one. The numbers are bfloat16 between 1/128 and 1/32 of either sign, norms are one. Which tensors there are
is known to ``testing.checkpoint``; what the weights say is nonsense. There is no tokenizer.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from openwork.testing.checkpoint import tensor_shapes

_PIECE = 1 << 20  # entries


def write(directory: Path, config: Mapping[str, Any], seed: int = 0) -> int:
    """Write config.json and model.safetensors; ``config`` is one of SHAPES. Returns the bytes written.

    Raises OSError, for example when the disk is full.
    """
    shapes = tensor_shapes(config["architectures"][0], config)
    header: dict[str, Any] = {}
    at = 0
    for name, shape in shapes.items():
        size = 2 * int(np.prod(shape))
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.json").write_text(json.dumps({**config, "torch_dtype": "bfloat16"}, indent=2) + "\n")
    noise = np.random.default_rng(seed).integers(0, 512, _PIECE, np.uint16)
    noise = (0x3C00 + (noise >> 1) | (noise & 1) << 15).astype(np.uint16)  # the lowest bit of the draw is the sign
    with (directory / "model.safetensors").open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for shape in shapes.values():
            if len(shape) == 1:
                file.write(np.full(shape, 0x3F80, np.uint16).tobytes())
                continue
            left = int(np.prod(shape))
            while left:
                file.write(noise[: min(left, _PIECE)].data)
                left -= min(left, _PIECE)
    return 8 + len(text) + at
