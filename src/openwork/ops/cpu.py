"""Cpu: the operations as native kernels, for the instruction set this machine has.

Every operation of Reference is one call of the C++ core with the interpreter released; so are the whole attention
block and the whole feed-forward block. What an operation means, its shapes and its errors are Reference's. A row's bits
depend on neither the batch, nor the number of threads, nor where blocks lie; they do depend on the instruction set,
which is why each has its own contract id. Without the core this module can still be imported: constructing Cpu says
what to do. It knows nothing of models, requests or steps.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np

from openwork.core.errors import BackendError
from openwork.ops.packed import Packed
from openwork.ops.paged import PagedKV, Rows
from openwork.ops.reference import Reference
from openwork.ops.weights import Attention, Linear, Mlp, Norm

try:
    import openwork._core as _core
except ImportError as error:  # installed where there was no compiler, or a library it needs is gone
    _core = None  # type: ignore[assignment]
    _reason = "" if error.name in ("openwork", "openwork._core") else f" ({error})"

Record = TypeVar("Record")
ISA_VARIABLE = "OPENWORK_ISA"


def available() -> tuple[str, ...]:
    """The instruction sets that have kernels here and that this processor can run, best first; () without the core."""
    return () if _core is None else tuple(_core.available_isas())


def usable_cores() -> int:
    """Processors this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class Cpu(Reference):
    """Every operation natively.

    threads: how many work together, the caller included; the cores this process may run on when None.
    isa: one of available(); when None the environment's OPENWORK_ISA, else the best.

    Safe to call from several Python threads (one operation at a time) and in a child process after a fork, unless the
    fork happened while another thread was inside an operation.
    """

    name = "cpu"

    def __init__(self, threads: int | None = None, isa: str | None = None) -> None:
        if _core is None:
            raise BackendError(
                f"the native core of openwork is not installed{_reason}.",
                "Install a C++ compiler and reinstall openwork, or use the slower reference backend.",
                is_missing=True,
            )
        names = available()
        chosen = isa or os.environ.get(ISA_VARIABLE) or names[0]
        if chosen not in names:
            raise BackendError(
                f"instruction set {chosen!r} is unknown or not available on this processor.",
                f"Available are: {', '.join(names)}; set {ISA_VARIABLE} to one of them or leave it unset.",
            )
        count = usable_cores() if threads is None else threads
        if not 1 <= count <= 1024:
            raise BackendError(f"threads is {count}.", "Give a number from 1 to 1024.")
        self._device = _core.Device(threads=count, isa=chosen)
        self.isa = chosen
        self.contract_id = self._device.contract_id
        self.num_threads = count

    # -- preparing -----------------------------------------------------------------------------------------------

    def bind(self, record: Record) -> Record:
        """Prepare a weight record (Norm, Linear, Attention, Mlp) or a PagedKV once; call ops with what this returns.

        Raises ValueError when the arrays of the record do not fit together.
        """
        if isinstance(record, Linear):
            weight = record.weight
            return replace(record, native=_core.Linear(weight.data, weight.dtype, weight.n, weight.k, record.bias))
        if isinstance(record, Norm):
            return replace(record, native=_core.Norm(record.weight, record.bias, record.eps, record.kind == "layer"))
        if isinstance(record, Attention):
            return self._bind_attention(record)  # type: ignore[return-value]
        if isinstance(record, Mlp):
            up, down = self.bind(record.up), self.bind(record.down)
            native = _core.Mlp(up.native, down.native, record.activation, record.gated)
            return replace(record, up=up, down=down, native=native)
        if isinstance(record, PagedKV):
            return replace(record, native=_core.Cache(record.keys, record.values, record.head_dim, record.block_size))
        return record

    def _bind_attention(self, record: Attention) -> Attention:
        qkv, out = self.bind(record.qkv), self.bind(record.out)
        q_norm = None if record.q_norm is None else self.bind(record.q_norm)
        k_norm = None if record.k_norm is None else self.bind(record.k_norm)
        native = _core.Attention(
            qkv.native,
            out.native,
            num_heads=record.num_heads,
            num_kv_heads=record.num_kv_heads,
            head_dim=record.head_dim,
            rotary_dim=record.rotary_dim,
            scale=record.scale,
            softcap=record.softcap,
            window=record.window,
            q_norm=None if q_norm is None else q_norm.native,
            k_norm=None if k_norm is None else k_norm.native,
        )
        return replace(record, qkv=qkv, out=out, q_norm=q_norm, k_norm=k_norm, native=native)

    def bind_rows(self, rows: Rows) -> Rows:
        """Prepare the rows of one step: positions and tables are checked and copied once for all layers."""
        stamped = () if rows.stamps is None else (rows.stamps.rows, rows.stamps.points)
        native = _core.Rows(rows.positions, rows.starts, rows.tables, rows.cos, rows.sin, *stamped)
        return replace(rows, native=native)

    def pack_rows(self, packed: Packed, row: int, source: np.ndarray) -> bool:
        target = _core.Linear(packed.data, packed.dtype, packed.n, packed.k, None)
        return bool(self._device.pack_rows(target, packed.data, row, source))

    # -- rows ----------------------------------------------------------------------------------------------------

    def embed(self, table: Linear, ids: np.ndarray, scale: float = 1.0) -> np.ndarray:
        """Rows ``ids`` (rows,) of a packed table, times ``scale`` -> (rows, k). IndexError for an id outside it."""
        out = np.empty((len(ids), table.weight.k), np.float32)
        self._device.embed(self._native(table), ids, scale, out)
        return out

    def linear(self, x: np.ndarray, w: Linear) -> np.ndarray:
        out = np.empty((len(x), w.weight.n), np.float32)
        self._device.linear(x, self._native(w), out)
        return out

    def norm(self, x: np.ndarray, w: Norm) -> np.ndarray:
        out = np.empty(x.shape, np.float32)
        self._device.norm(x, self._native(w), out)
        return out

    def add(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        self._device.add(x, y)
        return x

    def act(self, x: np.ndarray, kind: str) -> np.ndarray:
        out = np.empty(x.shape, np.float32)
        self._device.act(np.ascontiguousarray(x), kind, out)
        return out

    def mlp_block(self, x: np.ndarray, w: Mlp) -> np.ndarray:
        out = np.empty((len(x), w.down.weight.n), np.float32)
        self._device.mlp_block(x, self._native(w), out)
        return out

    def pre_norm_layer(
        self,
        x: np.ndarray,
        attention_norm: Norm,
        attention: Attention,
        mlp_norm: Norm,
        mlp: Mlp,
        rows: Rows,
        kv: PagedKV,
        layer: int,
    ) -> np.ndarray:
        norms = self._native(attention_norm), self._native(mlp_norm)
        parts = self._native(attention), self._native(mlp)
        self._device.pre_norm_layer(
            x, norms[0], parts[0], norms[1], parts[1], self._native_rows(rows), self._native(kv), layer
        )
        return x

    # -- attention -----------------------------------------------------------------------------------------------

    def rotate(self, x: np.ndarray, rows: Rows, dim: int) -> np.ndarray:
        if rows.cos is None or dim != 2 * rows.cos.shape[1]:
            raise ValueError(f"rows hold no cosines for {dim} rotated entries")
        out = np.array(x, np.float32, order="C")
        self._device.rotate(out, x.shape[1], x.shape[2], self._native_rows(rows))
        return out

    def write(self, kv: PagedKV, layer: int, k: np.ndarray, v: np.ndarray, rows: Rows) -> None:
        k, v = np.ascontiguousarray(k), np.ascontiguousarray(v)
        self._device.write(self._native(kv), layer, k, v, self._native_rows(rows))

    def attend(self, q: np.ndarray, kv: PagedKV, layer: int, rows: Rows, w: Attention) -> np.ndarray:
        out = np.empty((len(q), w.num_heads * w.head_dim), np.float32)
        q = np.ascontiguousarray(q)
        self._device.attend(q, self._native(kv), layer, self._native_rows(rows), self._native(w), out)
        return out

    def attention_block(self, x: np.ndarray, w: Attention, rows: Rows, kv: PagedKV, layer: int) -> np.ndarray:
        out = np.empty((len(x), w.out.weight.n), np.float32)
        self._device.attention_block(x, self._native(w), self._native_rows(rows), self._native(kv), layer, out)
        return out

    def copy_blocks(self, kv: PagedKV, sources: Sequence[int], targets: Sequence[int]) -> None:
        pairs = np.asarray(sources, np.int64), np.asarray(targets, np.int64)
        self._device.copy_blocks(self._native(kv), *pairs)

    # -- the head ------------------------------------------------------------------------------------------------

    def logits(
        self, x: np.ndarray, head: Linear, softcap: float | None = None, out: np.ndarray | None = None
    ) -> np.ndarray:
        out = np.empty((len(x), head.weight.n), np.float32) if out is None else out
        self._device.logits(x, self._native(head), softcap or 0.0, out)
        return out

    def best(
        self, x: np.ndarray, head: Linear, softcap: float | None = None, hashes: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        ids, finite = np.empty(len(x), np.int64), np.empty(len(x), np.bool_)
        self._device.best(x, self._native(head), softcap or 0.0, ids, finite, hashes)
        return ids, finite

    def hash_rows(self, x: np.ndarray) -> np.ndarray:
        out = np.empty(len(x), np.uint64)
        self._device.hash_rows(x, out)
        return out

    def logsumexp(self, logits: np.ndarray) -> np.ndarray:
        out = np.empty(len(logits), np.float64)
        self._device.logsumexp(logits, out)
        return out

    def argmax(self, logits: np.ndarray) -> np.ndarray:
        out = np.empty(len(logits), np.int64)
        self._device.argmax(logits, out)
        return out

    def top_k(self, logits: np.ndarray, k: int) -> np.ndarray:
        out = np.empty(min(k, len(logits)), np.int64)
        self._device.top_k(logits, out)
        return out

    def rank(self, logits: np.ndarray, token: int) -> int:
        return self._device.rank(logits, token)

    def is_finite(self, logits: np.ndarray) -> np.ndarray:
        out = np.empty(len(logits), np.bool_)
        self._device.is_finite(logits, out)
        return out

    def choose(
        self, logits: np.ndarray, temperature: float, top_k: int, top_p: float, min_p: float, noise: float
    ) -> int:
        return self._device.choose(logits, temperature, top_k, top_p, min_p, noise)

    @property
    def busy_s(self) -> float:
        """Seconds spent in native operations so far, by the thread that called them."""
        return self._device.busy_s

    # -- the machine ---------------------------------------------------------------------------------------------

    def checksum(self, data: np.ndarray, first_page: int = 0) -> int:
        return int(self._device.checksum(data, first_page))

    def read_all(self, data: np.ndarray) -> None:
        """Read an array once, with all threads: what a product would have to do at least."""
        self._device.read_all(data)

    def multiply_all(self, dtype: str, steps: int) -> float:
        """``steps`` rounds of a dtype's dot product in registers, in every thread -> how many operations that was."""
        self._device.multiply_all(dtype, steps)
        return steps * self._device.flops_per_step(dtype) * self.num_threads

    # -- handles -------------------------------------------------------------------------------------------------

    def _native(self, record: Any) -> Any:
        """The record's handle; made on the spot, at some cost, for one that was not bound."""
        return record.native if record.native is not None else self.bind(record).native

    def _native_rows(self, rows: Rows) -> Any:
        return rows.native if rows.native is not None else self.bind_rows(rows).native
