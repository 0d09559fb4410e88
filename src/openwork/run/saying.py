"""Saying: what a row says of the next token, as logits with what is known of them, and what its layers would have said.

It guarantees the bits of the row that is served (its hash says so), and that no more than LOGITS_BYTES of logits are
held at a time, however many layers there are. It does not know where a row came from.
"""

from __future__ import annotations

import numpy as np

from openwork.models.decoder import Decoder
from openwork.run.row import Lens, Logits

LOGITS_BYTES = 32 << 20  # of logits at a time


def said(model: Decoder, hidden: np.ndarray, top: int) -> Logits:
    """hidden (1, hidden_size), behind the last layer and its norm -> its logits, and the ``top`` best of them."""
    ops = model.ops
    row = model.logits(hidden)  # (1, vocab)
    mass = float(ops.logsumexp(row)[0])
    ids = ops.top_k(row[0], max(top, 2))
    logprobs = row[0].astype(np.float64) - mass
    return Logits(
        row=row[0],
        row_hash=int(ops.hash_rows(row)[0]),
        logsumexp=mass,
        entropy=float(-(np.exp(logprobs) * logprobs).sum()),
        margin=float(row[0][ids[0]] - row[0][ids[-1 if len(ids) < 2 else 1]]),
        top_ids=ids[:top],
        top_logits=row[0][ids[:top]],
    )


def would_say(model: Decoder, residual: np.ndarray, top: int) -> Lens:
    """residual (layers + 1, hidden_size) -> what each layer would have said, some layers at a time."""
    ops, at_once = model.ops, max(1, LOGITS_BYTES // (4 * model.spec.vocab_size))
    top = min(top, model.spec.vocab_size)
    ids, best = np.empty((len(residual), top), np.int64), np.empty((len(residual), top), np.float32)
    masses = np.empty(len(residual))
    for first in range(0, len(residual), at_once):
        logits = model.logits(residual[first : first + at_once])
        masses[first : first + at_once] = ops.logsumexp(logits)
        for place, row in enumerate(logits, first):
            ids[place] = ops.top_k(row, top)
            best[place] = row[ids[place]]
    return Lens(ids, best, masses)
