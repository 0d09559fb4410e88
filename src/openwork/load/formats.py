"""Formats: which number format each matrix of a model is packed in, when the model as a whole is asked for in one.

    asked for       layers          embedding and head    learned positions
    float32         float32         float32               float32
    bfloat16        bfloat16        bfloat16              bfloat16
    int8            int8            int8                  bfloat16
    int8-channel    int8-channel    int8-channel          bfloat16
    int4            int4            int8                  bfloat16

Norms and biases are float32 always. The embedding is often the head too, and its errors go straight into the logits: in
the embedded model four bits there would add half to the divergence that the layers make, and save a tenth of the bytes.
What the formats are is written in ops/packed.py; what the choice costs is measured by run/quality.py.
"""

from __future__ import annotations

from math import prod
from typing import Literal, get_args

from openwork.core.errors import BackendError
from openwork.ops.packed import DTYPES, DType, shape_of
from openwork.ops.paged import KVDType

Role = Literal["layer", "embedding", "head", "positions"]
KV_DTYPES: tuple[KVDType, ...] = get_args(KVDType)


def choose_dtype(dtype: str, stored: str) -> DType:
    """What weights are packed in, when they are ``stored`` so (F32, F16 or BF16). Raises BackendError for no dtype."""
    if dtype == "auto":
        return "float32" if stored == "F32" else "bfloat16"
    if dtype not in DTYPES:
        raise BackendError(f"there is no dtype {dtype!r}", f"Choose {_listed(DTYPES)}.")
    return dtype


def choose_kv_dtype(kv_dtype: str, dtype: DType) -> KVDType:
    """What keys and values are stored in beside weights of ``dtype``. Raises BackendError for no dtype."""
    if kv_dtype == "auto":
        return "float32" if dtype == "float32" else "bfloat16"
    if kv_dtype not in KV_DTYPES:
        raise BackendError(f"there is no dtype {kv_dtype!r} for keys and values", f"Choose {_listed(KV_DTYPES)}.")
    return kv_dtype


def format_of(role: Role, dtype: DType) -> DType:
    """The format of one matrix of a model that is packed in ``dtype``."""
    if dtype in ("float32", "bfloat16") or role == "layer":
        return dtype
    if role == "positions":
        return "bfloat16"
    return "int8" if dtype == "int4" else dtype


def packed_bytes(n: int, k: int, dtype: DType) -> int:
    """Bytes of a packed matrix."""
    return prod(shape_of(n, k, dtype)) * {"float32": 4, "bfloat16": 2}.get(dtype, 1)


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(["auto", *names[:-1]]) + f" or {names[-1]}"
