"""Decoder: one model, ready to run. The flow that every architecture shares.

    ids -> embedding (+ learned positions) -> layers, each reading and extending the cache -> hidden rows
    hidden rows -> final norm -> head -> soft cap -> logits

A row of the result depends on the weights and on that row's own prefix in the cache, on nothing else in the step. The
decoder owns no cache and keeps no state between steps; which rows make a step is somebody else's business.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from dataclasses import replace

import numpy as np

from openwork.core.spec import ModelSpec
from openwork.core.stamp import EMBED
from openwork.models.parts import Layer, Model, Weights
from openwork.models.trig import RotaryTable
from openwork.ops.paged import PagedKV, Rows
from openwork.ops.reference import Reference

See = Callable[[int, np.ndarray], None]  # (layers passed, rows (rows, hidden_size): copy them to keep them)


class Decoder:
    """Spec, ops, weights and wiring of one model."""

    def __init__(self, spec: ModelSpec, ops: Reference, weights: Weights, model: Model) -> None:
        self.spec = spec
        self.ops = ops
        self._wire = model.layer
        self._table = None if spec.rope is None else RotaryTable(spec.rope.frequencies, spec.rope.scale)
        self.weights = bind(ops, weights)

    def cos_sin(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray] | tuple[None, None]:
        """Rotary tables for the Rows of a step: positions (rows,) int32 -> two (rows, dim / 2) float32, or two None."""
        return (None, None) if self._table is None else self._table.rows(positions)

    def through(self, ops: Reference) -> Decoder:
        """The same weights, computed with by other operations that take what these have bound."""
        other = copy(self)
        other.ops = ops
        return other

    def forward(self, ids: np.ndarray, rows: Rows, kv: PagedKV, see: See | None = None) -> np.ndarray:
        """Token ids (rows,) int32 through all layers -> (rows, hidden_size) float32, before the final norm.

        Their keys and values are written to ``kv``; it and ``rows`` are bound to the same ops. ``see`` is shown the
        residual stream as it enters the first layer and as it leaves each.
        """
        ops, weights = self.ops, self.weights
        x = ops.embed(weights.embedding, ids, self.spec.embedding_scale)  # (rows, hidden_size)
        if weights.positions is not None:
            x = ops.add(x, ops.embed(weights.positions, rows.positions))
        ops.stamp(x, rows, 0, EMBED)
        if see is not None:
            see(0, x)
        for index, layer in enumerate(weights.layers):
            x = self._wire(ops, layer, x, rows, kv, index)
            if see is not None:
                see(index + 1, x)
        return x

    def logits(self, hidden: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """Rows that forward returned, any selection of them (rows, hidden_size) -> (rows, vocab_size) float32."""
        normed = self.ops.norm(hidden, self.weights.norm)
        return self.ops.logits(normed, self.weights.head, self.spec.logit_softcap, out)

    def best(self, hidden: np.ndarray, hashes: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """The id of the highest logit of each row, ties to the lowest, and whether the row is finite: two (rows,).

        Into ``hashes`` (rows,) uint64, if it is given, the hashes of the rows of logits.
        """
        normed = self.ops.norm(hidden, self.weights.norm)
        return self.ops.best(normed, self.weights.head, self.spec.logit_softcap, hashes)


def bind(ops: Reference, weights: Weights) -> Weights:
    """Prepare every record for a backend, once. A tied head stays the same object as the embedding."""

    def one(layer: Layer) -> Layer:
        return replace(
            layer,
            attention_norm=ops.bind(layer.attention_norm),
            attention=ops.bind(layer.attention),
            mlp_norm=ops.bind(layer.mlp_norm),
            mlp=ops.bind(layer.mlp),
            after_attention=None if layer.after_attention is None else ops.bind(layer.after_attention),
            after_mlp=None if layer.after_mlp is None else ops.bind(layer.after_mlp),
        )

    embedding = ops.bind(weights.embedding)
    return Weights(
        embedding=embedding,
        layers=tuple(one(layer) for layer in weights.layers),
        norm=ops.bind(weights.norm),
        head=embedding if weights.head is weights.embedding else ops.bind(weights.head),
        positions=None if weights.positions is None else ops.bind(weights.positions),
    )
