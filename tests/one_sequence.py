"""One sequence through a Decoder, in chunks, over a block table that is out of order: the runner of model tests."""

from __future__ import annotations

import numpy as np

from openwork.models.decoder import Decoder
from openwork.ops.paged import PagedKV, Rows

BLOCK = 16


class OneSequence:
    """Feeds tokens to a model and keeps their cache."""

    def __init__(self, model: Decoder, capacity: int = 256, dtype: str = "float32") -> None:
        spec = model.spec
        self.model = model
        self.known = 0
        blocks = -(-capacity // BLOCK) + 3
        kv = PagedKV.empty(spec.num_layers, blocks, spec.num_kv_heads, spec.head_dim, BLOCK, dtype)
        self.kv = model.ops.bind(kv)
        self.table = np.random.default_rng(1).permutation(blocks).astype(np.int32)

    def feed(self, ids: list[int]) -> np.ndarray:
        """Tokens at the next positions -> their logits (tokens, vocab_size)."""
        positions = np.arange(self.known, self.known + len(ids), dtype=np.int32)
        cos, sin = self.model.cos_sin(positions)
        rows = Rows(positions, np.array([0, len(ids)], np.int32), self.table[None], cos, sin)
        self.known += len(ids)
        hidden = self.model.forward(np.array(ids, np.int32), self.model.ops.bind_rows(rows), self.kv)
        return self.model.logits(hidden)

    def greedy(self, ids: list[int], count: int) -> list[int]:
        """The next ``count`` greedy tokens after a prompt."""
        out: list[int] = []
        logits = self.feed(ids)
        for _ in range(count):
            out.append(int(logits[-1].argmax()))
            logits = self.feed(out[-1:])
        return out
