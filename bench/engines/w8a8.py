"""A Hugging Face directory of ours with int8 weights, one scale an output, for vLLM.

Activations are quantised by the engine, a row at a time. Embedding and head stay bfloat16. Source: the
compressed-tensors format, "int-quantized".
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from engines import tensors

_WEIGHTS = {"num_bits": 8, "type": "int", "symmetric": True, "strategy": "channel", "dynamic": False}
_INPUTS = {"num_bits": 8, "type": "int", "symmetric": True, "strategy": "token", "dynamic": True}


def write(source: Path, target: Path) -> None:
    """Write ``source``'s model with int8 matrices to ``target``, unless it is there."""
    if (target / "complete").exists():
        return
    target.mkdir(parents=True, exist_ok=True)
    for path in source.glob("*.json"):
        shutil.copy(path, target)
    held = tensors.read(source / "model.safetensors")
    shapes: dict[str, tuple[str, tuple[int, ...]]] = {}
    for name, tensor in held.items():
        shapes[name] = ("I8" if _is_quantised(name) else tensor.kind, tensor.values.shape)
        if _is_quantised(name):
            shapes[f"{name}_scale"] = ("BF16", (tensor.values.shape[0], 1))
    tensors.write(target / "model.safetensors", shapes, _values(held))
    groups = {"group_0": {"targets": ["Linear"], "weights": _WEIGHTS, "input_activations": _INPUTS}}
    config = json.loads((source / "config.json").read_text())
    config["quantization_config"] = {
        "quant_method": "compressed-tensors",
        "format": "int-quantized",
        "quantization_status": "compressed",
        "ignore": ["lm_head"],
        "config_groups": groups,
    }
    (target / "config.json").write_text(json.dumps(config))
    (target / "complete").touch()


def _is_quantised(name: str) -> bool:
    return name.endswith("_proj.weight")


def _values(held: dict[str, tensors.Tensor]) -> Iterator[np.ndarray]:
    for name, tensor in held.items():
        if not _is_quantised(name):
            yield tensor.values
            continue
        floats = tensor.floats()
        scales = np.abs(floats).max(axis=1, keepdims=True) / 127
        yield np.rint(floats / scales).astype(np.int8)
        yield tensors.bfloat16(scales)
