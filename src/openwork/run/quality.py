"""Quality: how far a model with smaller numbers is from the same model in float32, on a text.

Both models read the same tokens; at every position their distributions over the next token are compared:

    KL            sum p log(p / q), p of float32 and q of the other, in nats: 0 when they agree
    perplexity    exp of the mean surprise at the token that really follows, of each model
    same top      how often the likeliest token is the same

A long text is cut into windows, at its tokens that open a text and where a window is full, and each is read from an
empty cache: memory depends on the window and the vocabulary, never on the text. Sums are float64. Where text and
models come from is not known here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from openwork.models.decoder import Decoder
from openwork.ops.paged import KVDType, PagedKV, Rows

BLOCK = 16
WINDOW = 512
_ROWS_BYTES = 2**26  # of float64 temporaries while some rows are compared
_BYTES_AN_ENTRY = 48  # two rows of logits, their logarithms and exponentials

Progress = Callable[[int, int], None]  # (tokens compared, tokens in all)


@dataclass(frozen=True, slots=True)
class Quality:
    """What the comparison found. ``reference`` is the float32 model."""

    tokens: int  # positions compared
    perplexity_reference: float
    perplexity: float
    kl_mean: float  # nats
    kl_p99: float
    kl_max: float
    same_top: float  # 0 .. 1


class Reader:
    """Reads windows of tokens with one model and one cache."""

    def __init__(self, model: Decoder, kv_dtype: KVDType, window: int) -> None:
        spec, blocks = model.spec, -(-window // BLOCK)
        kv = PagedKV.empty(spec.num_layers, blocks, spec.num_kv_heads, spec.head_dim, BLOCK, kv_dtype)
        self.model = model
        self._kv = model.ops.bind(kv)
        self._table = np.arange(blocks, dtype=np.int32)[None]  # (1, blocks)

    def read(self, ids: np.ndarray) -> np.ndarray:
        """A window (tokens,) int32 -> (tokens, hidden_size)."""
        positions = np.arange(len(ids), dtype=np.int32)
        cos, sin = self.model.cos_sin(positions)
        rows = Rows(positions, np.array([0, len(ids)], np.int32), self._table, cos, sin)
        return self.model.forward(ids, self.model.ops.bind_rows(rows), self._kv)


def compare(
    reference: Decoder,
    model: Decoder,
    ids: Sequence[int],
    kv_dtype: KVDType,
    bos: int | None = None,
    window: int = WINDOW,
    progress: Progress | None = None,
) -> Quality:
    """Compare ``model`` with ``reference`` on at least two tokens besides ``bos``, which comes before every window.

    ``kv_dtype`` is what the model keeps keys and values in; the reference keeps them in float32.
    """
    window = min(window, reference.spec.max_positions)
    readers = Reader(reference, "float32", window), Reader(model, kv_dtype, window)
    found: list[np.ndarray] = []  # each (4, positions): KL, surprise of the reference, of the model, same top
    done = 0
    for part in windows(ids, bos, window):
        tokens = np.array(part, np.int32)
        hidden = [reader.read(tokens[:-1]) for reader in readers]
        found.append(_positions(reference, model, hidden[0], hidden[1], tokens[1:]))
        done += len(part) - (bos is not None)
        if progress is not None:
            progress(done, len(ids))
    if progress is not None:
        progress(len(ids), len(ids))  # where tokens were left out, the count above falls short
    kl, expected, got, same = np.concatenate(found, axis=1)
    return Quality(
        tokens=len(kl),
        perplexity_reference=float(np.exp(expected.mean())),
        perplexity=float(np.exp(got.mean())),
        kl_mean=float(kl.mean()),
        kl_p99=float(np.quantile(kl, 0.99)),
        kl_max=float(kl.max()),
        same_top=float(same.mean()),
    )


def windows(ids: Sequence[int], bos: int | None, window: int) -> Iterator[list[int]]:
    """Parts of at least two and at most ``window`` tokens, each opened by ``bos``; a ``bos`` in the text opens one."""
    opening = [] if bos is None else [bos]
    part = list(opening)
    for token in ids:
        if len(part) == window or token == bos:
            if len(part) > 1:
                yield part
            part = list(opening)
        if token != bos:
            part.append(token)
    if len(part) > 1:
        yield part


def _positions(reference: Decoder, model: Decoder, x: np.ndarray, y: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Hidden rows (positions, hidden_size) of both -> (4, positions) float64, a few rows of logits at a time."""
    at_once = max(1, _ROWS_BYTES // (_BYTES_AN_ENTRY * reference.spec.vocab_size))
    out = np.empty((4, len(targets)))
    for first in range(0, len(targets), at_once):
        rows = slice(first, first + at_once)
        p, q = _log_softmax(reference.logits(x[rows])), _log_softmax(model.logits(y[rows]))
        at = np.arange(len(p)), targets[rows]
        out[0, rows] = (np.exp(p) * (p - q)).sum(axis=1)
        out[1, rows], out[2, rows] = -p[at], -q[at]
        out[3, rows] = p.argmax(axis=1) == q.argmax(axis=1)
    return out


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    """(rows, vocab) float32 -> float64."""
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))
