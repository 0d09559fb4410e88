"""Formats: which number format each matrix of a model is packed in, when the model as a whole is asked for in one.

    asked for       layers          embedding and head    learned positions
    float32         float32         float32               float32
    bfloat16        bfloat16        bfloat16              bfloat16
    int8            int8            int8                  bfloat16
    int8-channel    int8-channel    int8                  bfloat16
    int4            int4            int8                  bfloat16

Norms and biases are float32 always. The embedding is often the head too, and its errors go straight into the logits, so
that four bits there cost more than they save; one scale for a whole row of it likewise. What these formats are is
written in ops/packed.py; what the choice costs is measured by run/quality.py.
"""

from __future__ import annotations

from typing import Literal, get_args

from openwork.core.errors import BackendError
from openwork.ops.packed import LANES, DType, Packed, round_up
from openwork.ops.paged import KVDType

Role = Literal["layer", "embedding", "head", "positions"]
DTYPES: tuple[DType, ...] = get_args(DType)
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
    return "bfloat16" if role == "positions" else "int8"


def packed_shape(n: int, k: int, dtype: DType) -> tuple[int, ...]:
    """The shape of the data of a packed matrix. Column blocks of 16 outputs are all alike, so one tells of all."""
    return (round_up(n, LANES) // LANES, *Packed.empty(LANES, k, dtype).data.shape[1:])


def packed_bytes(n: int, k: int, dtype: DType) -> int:
    """Bytes of a packed matrix."""
    return round_up(n, LANES) // LANES * Packed.empty(LANES, k, dtype).num_bytes


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(["auto", *names[:-1]]) + f" or {names[-1]}"
