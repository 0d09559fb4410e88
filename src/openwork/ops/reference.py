"""Reference: what every operation means, in plain NumPy. It is the contract, the base class and a working backend.

It guarantees the numeric contract by the simplest means: whatever sums over an axis is computed for one row at a time,
with arrays whose shapes depend on that row alone, so a row's bits cannot depend on its neighbours. It is slow on
purpose. A backend subclasses it and overrides what it does better; what it leaves alone stays correct. It knows
nothing of models, requests or steps: rows go in, rows come out.

Arrays of activations are float32 and C-contiguous. "Rows" are (rows, size). A product with a bfloat16 matrix rounds its
input row to bfloat16 first, because that is what the dot-product instruction reads; sums stay float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np

from openwork.core.stamp import ATTEND, FEED_FORWARD, OUTPUT, PROJECT, point
from openwork.ops.activation import activate
from openwork.ops.attention import attend_row
from openwork.ops.checksum import checksum
from openwork.ops.packed import Packed, bfloat16_round
from openwork.ops.paged import PagedKV, Rows
from openwork.ops.quantise import Chains
from openwork.ops.weights import Attention, Linear, Mlp, Norm

Record = TypeVar("Record")


def _open(weight: Packed) -> np.ndarray | Chains:
    return Chains.of(weight.quantised(np.arange(weight.n))) if weight.is_quantised else weight.unpack()


class Reference:
    """Every operation in NumPy. Subclass it to make a backend."""

    name = "reference"
    contract_id = "numpy-v2"
    num_threads = 1

    # -- preparing -----------------------------------------------------------------------------------------------

    def bind(self, record: Record) -> Record:
        """Prepare a weight record (Norm, Linear, Attention, Mlp) or a PagedKV once; call ops with what this returns."""
        if isinstance(record, Linear):  # unpacked once, for matrix-vector products
            return replace(record, native=_open(record.weight))
        if isinstance(record, Attention):
            return replace(record, qkv=self.bind(record.qkv), out=self.bind(record.out))
        if isinstance(record, Mlp):
            return replace(record, up=self.bind(record.up), down=self.bind(record.down))
        return record

    def bind_rows(self, rows: Rows) -> Rows:
        """Prepare the rows of one step."""
        return rows

    def pack_rows(self, packed: Packed, row: int, source: np.ndarray) -> bool:
        """Write source (rows, k), float32 / float16 / bfloat16 bits (uint16), any strides, into a packed matrix.

        Returns whether every weight is finite, as it lies there now: a format may not hold what was in the source.
        """
        packed.put(row, source.astype(np.float32) if source.dtype == np.float16 else source)
        return bool(np.isfinite(packed.unpack(np.arange(row, row + len(source)))).all())

    def checksum(self, data: np.ndarray, first_page: int = 0) -> int:
        """64 bits over the bytes of a contiguous array (ops/checksum.py)."""
        return checksum(data, first_page)

    # -- rows ----------------------------------------------------------------------------------------------------

    def embed(self, table: Linear, ids: np.ndarray, scale: float = 1.0) -> np.ndarray:
        """Rows ``ids`` (rows,) int32 of a packed table, times ``scale`` -> (rows, k)."""
        return table.weight.unpack(ids) * np.float32(scale)

    def linear(self, x: np.ndarray, w: Linear) -> np.ndarray:
        """x (rows, k) -> W x + bias (rows, n), one matrix-vector product a row.

        With a quantised matrix the row is quantised too, sums inside a group are exact integers, and the groups are
        one chain: the sum of a group times the scale of the row times that of the weights (docs/numeric-contract.md).
        """
        weight = _open(w.weight) if w.native is None else w.native
        out = np.empty((len(x), w.weight.n), np.float32)
        if isinstance(weight, Chains):
            for row in range(len(x)):
                out[row] = weight.times(x[row])
        else:
            for row, values in enumerate(bfloat16_round(x) if w.weight.dtype == "bfloat16" else x):
                out[row] = weight @ values
        return out if w.bias is None else out + w.bias

    def norm(self, x: np.ndarray, w: Norm) -> np.ndarray:
        """RMSNorm x / sqrt(mean x^2 + eps) * weight, or LayerNorm; over the last axis of x (rows, size)."""
        if w.kind == "layer":
            x = x - x.mean(axis=-1, keepdims=True)
        spread = np.sqrt(np.square(x).mean(axis=-1, keepdims=True) + np.float32(w.eps))
        out = x / spread * w.weight
        if w.bias is not None:
            out = out + w.bias
        return np.asarray(out)

    def add(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """x += y, in place; the residual stream. Returns x."""
        x += y
        return x

    def act(self, x: np.ndarray, kind: str) -> np.ndarray:
        """The activation of every entry. gelu is the exact one (erf), gelu_tanh its usual approximation."""
        return activate(x, kind)

    # -- attention -----------------------------------------------------------------------------------------------

    def rotate(self, x: np.ndarray, rows: Rows, dim: int) -> np.ndarray:
        """Rope on the first ``dim`` entries of every head of x (rows, heads, head_dim): i turns with i + dim/2."""
        assert rows.cos is not None and rows.sin is not None
        cos, sin = rows.cos[:, None, :], rows.sin[:, None, :]  # (rows, 1, dim/2)
        a, b = x[..., : dim // 2], x[..., dim // 2 : dim]
        return np.concatenate([a * cos - b * sin, b * cos + a * sin, x[..., dim:]], axis=-1)

    def write(self, kv: PagedKV, layer: int, k: np.ndarray, v: np.ndarray, rows: Rows) -> None:
        """Put k and v (rows, kv_heads, head_dim) into their slots. One writer a slot."""
        counts = np.diff(rows.starts)
        table_of_row = np.repeat(np.arange(rows.num_sequences), counts)
        block = rows.tables[table_of_row, rows.positions // kv.block_size]  # (rows,)
        slot = rows.positions % kv.block_size
        kv.put(layer, block, slot, k, v)

    def read(self, kv: PagedKV, layer: int, table: np.ndarray, first: int, last: int) -> tuple[np.ndarray, np.ndarray]:
        """Keys and values at positions first .. last - 1 of one sequence, float32 (kv_heads, positions, head_dim)."""
        position = np.arange(first, last)
        block, slot = table[position // kv.block_size], position % kv.block_size
        k, v = kv.take(layer, block, slot)
        return np.ascontiguousarray(k.swapaxes(0, 1)), np.ascontiguousarray(v.swapaxes(0, 1))

    def attend(self, q: np.ndarray, kv: PagedKV, layer: int, rows: Rows, w: Attention) -> np.ndarray:
        """Causal attention of q (rows, heads, head_dim) over the cached keys -> (rows, heads * head_dim).

        A window hides keys at or before position - window. How sums are cut and rounded: ops/attention.py.
        """
        group = w.num_heads // w.num_kv_heads
        out = np.empty((len(q), w.num_heads, w.head_dim), np.float32)
        for s in range(rows.num_sequences):
            table = rows.tables[s]
            for row in range(rows.starts[s], rows.starts[s + 1]):
                heads = q[row].reshape(w.num_kv_heads, group, w.head_dim)
                out[row] = attend_row(heads, kv, layer, table, int(rows.positions[row]), w)
        return out.reshape(len(q), -1)

    def attention_block(self, x: np.ndarray, w: Attention, rows: Rows, kv: PagedKV, layer: int) -> np.ndarray:
        """Normed rows (rows, hidden) -> projections, norms, rope, cache write, attention, output (rows, hidden)."""
        count, q_size, kv_size = len(x), w.num_heads * w.head_dim, w.num_kv_heads * w.head_dim
        qkv = self.linear(x, w.qkv)
        q = qkv[:, :q_size].reshape(count, w.num_heads, w.head_dim)
        k = qkv[:, q_size : q_size + kv_size].reshape(count, w.num_kv_heads, w.head_dim)
        v = qkv[:, q_size + kv_size :].reshape(count, w.num_kv_heads, w.head_dim)
        if w.q_norm is not None:
            q = self.norm(q, w.q_norm)
        if w.k_norm is not None:
            k = self.norm(k, w.k_norm)
        if w.rotary_dim:
            q, k = self.rotate(q, rows, w.rotary_dim), self.rotate(k, rows, w.rotary_dim)
        self.write(kv, layer, k, v, rows)
        if rows.stamps is not None:
            self.stamp(np.concatenate([each.reshape(count, -1) for each in (q, k, v)], axis=1), rows, layer, PROJECT)
        mixed = self.attend(q, kv, layer, rows, w)
        self.stamp(mixed, rows, layer, ATTEND)
        return self.linear(mixed, w.out)

    def mlp_block(self, x: np.ndarray, w: Mlp) -> np.ndarray:
        """Normed rows (rows, hidden) -> the feed-forward network (rows, hidden)."""
        up = self.linear(x, w.up)
        if not w.gated:
            return self.linear(self.act(up, w.activation), w.down)
        size = up.shape[1] // 2
        return self.linear(self.act(up[:, :size], w.activation) * up[:, size:], w.down)

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
        """x (rows, hidden) through norm, attention, add; norm, feed-forward, add; in place. Returns x."""
        x = self.add(x, self.attention_block(self.norm(x, attention_norm), attention, rows, kv, layer))
        self.stamp(x, rows, layer, OUTPUT)
        x = self.add(x, self.mlp_block(self.norm(x, mlp_norm), mlp))
        self.stamp(x, rows, layer, FEED_FORWARD)
        return x

    def stamp(self, x: np.ndarray, rows: Rows, layer: int, op: str) -> None:
        """Note what an operation gave, x (rows, size), for the rows of the step that are stamped (core/stamp.py)."""
        if rows.stamps is not None:
            hashes = self.hash_rows(np.ascontiguousarray(x[rows.stamps.rows]))
            rows.stamps.points[:, point(layer, op)] = hashes.astype(np.uint32)  # the lower half

    def copy_blocks(self, kv: PagedKV, sources: Sequence[int], targets: Sequence[int]) -> None:
        """Copy whole blocks, all layers, one pair after the other in the order given."""
        for source, target in zip(sources, targets, strict=True):
            kv.keys[:, target] = kv.keys[:, source]
            kv.values[:, target] = kv.values[:, source]

    # -- the head ------------------------------------------------------------------------------------------------

    def logits(
        self, x: np.ndarray, head: Linear, softcap: float | None = None, out: np.ndarray | None = None
    ) -> np.ndarray:
        """Final-normed rows (rows, hidden) -> (rows, vocab), softly capped when asked; in ``out`` if it is given."""
        found = self.linear(x, head)
        if softcap is not None:
            found = np.float32(softcap) * np.tanh(found / np.float32(softcap))
        if out is None:
            return found
        out[...] = found
        return out

    def best(
        self, x: np.ndarray, head: Linear, softcap: float | None = None, hashes: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """argmax and is_finite of the logits of x (rows, hidden) -> ids (rows,) int64, finite (rows,) bool.

        Into ``hashes`` (rows,) uint64, if it is given, hash_rows of those logits. A backend need not keep the logits
        anywhere: over a large vocabulary they are most of what a step writes.
        """
        logits = self.logits(x, head, softcap)
        if hashes is not None:
            hashes[...] = self.hash_rows(logits)
        return self.argmax(logits), self.is_finite(logits)

    def hash_rows(self, x: np.ndarray) -> np.ndarray:
        """The checksum of the bytes of every row of x (rows, size), each for itself -> (rows,) uint64."""
        return np.array([checksum(row) for row in x], np.uint64)

    def logsumexp(self, logits: np.ndarray) -> np.ndarray:
        """log sum exp of every row of (rows, vocab) -> (rows,) float64, summed in float64."""
        out = np.empty(len(logits))
        for row, values in enumerate(logits):
            high = float(values.max())
            out[row] = high + np.log(np.exp(values.astype(np.float64) - high).sum())
        return out

    def argmax(self, logits: np.ndarray) -> np.ndarray:
        """Index of the highest entry of every row (rows,) int64; ties go to the lowest index."""
        return np.asarray(logits.argmax(axis=-1))

    def top_k(self, logits: np.ndarray, k: int) -> np.ndarray:
        """Indices of the k highest entries of one row (vocab,), best first, ties to the lowest index -> (k,) int64."""
        k = min(k, len(logits))
        if k == 0:
            return np.empty(0, np.int64)
        edge = np.partition(logits, len(logits) - k)[len(logits) - k]
        above = np.flatnonzero(logits > edge)
        level = np.flatnonzero(logits == edge)[: k - len(above)]
        chosen = np.concatenate([above, level])
        return chosen[np.lexsort((chosen, -logits[chosen]))]

    def rank(self, logits: np.ndarray, token: int) -> int:
        """Place of ``token`` in the order of top_k over one row (vocab,); the best is 1."""
        own = logits[token]
        return 1 + int(np.count_nonzero(logits > own)) + int(np.count_nonzero(logits[:token] == own))

    def choose(
        self, logits: np.ndarray, temperature: float, top_k: int, top_p: float, min_p: float, noise: float
    ) -> int:
        """Draw a token id from one row (vocab,) of finite logits; noise in [0, 1) is where on the line the draw falls.

        Weights are exp((logit - highest) / temperature) in float64, temperature > 0. Kept are those of at least min_p
        times the highest (0: all), of these the first top_k in the order of top_k, of these the shortest start of that
        order whose mass reaches top_p of theirs (1: all). Laid end to end in ascending id, the first whose end exceeds
        noise times the total is the answer.
        """
        weights = np.exp((logits.astype(np.float64) - float(logits.max())) / temperature)
        weights[weights < min_p] = 0
        order = np.lexsort((np.arange(len(logits)), -logits))[:top_k]
        if top_p < 1:
            goal = top_p * np.add.accumulate(weights[np.sort(order)])[-1]
            order = order[: np.searchsorted(np.add.accumulate(weights[order]), goal) + 1]
        kept = np.sort(order)
        kept = kept[weights[kept] > 0]
        ends = np.add.accumulate(weights[kept])
        return int(kept[min(np.searchsorted(ends, noise * ends[-1], side="right"), len(kept) - 1)])

    def is_finite(self, logits: np.ndarray) -> np.ndarray:
        """Which rows of (rows, vocab) hold no NaN and no +inf -> (rows,) bool."""
        return np.asarray(np.isfinite(logits.max(axis=-1)))
