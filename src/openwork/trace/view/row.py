"""What was inside one row of one request: documents made from a row that was computed again with everything kept.

    row     the distribution, what sampling and a constraint cut away from it, and what every layer would have said
    strip   of a whole answer: how likely each token was, and whether its row is the one that was served
    heads   of all layers: how much attention each head gave to each source, and over how many positions
    layer   of one layer: q, k and v of each head before and after rope, and the attention weights of every head

By the numeric contract a row computed again is the row that was served; ``served`` says whether the hashes agree.
Arrays are float32, little-endian, in base64, so that the page draws the very bits. It knows no text and no models.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from openwork.core.request import Request
from openwork.run.row import Lens, Row
from openwork.trace.view.search import TextOf

TOP = 24  # tokens that are listed of a distribution
LENS = 3  # tokens that are listed of a layer

Source = dict[str, Any]


def array(values: np.ndarray) -> dict[str, Any]:
    """An array as JSON: its shape, and its bits."""
    data = np.ascontiguousarray(values, "<f4")
    return {"shape": list(data.shape), "float32": base64.b64encode(data.tobytes()).decode("ascii")}


def row_document(
    row: Row,
    request: Request,
    next_token: int | None,
    index: int,
    served: str | None,
    text_of: TextOf,
    allowed: np.ndarray | None = None,
    history: Sequence[int] = (),
) -> dict[str, Any]:
    """The document of a row. ``history`` are the tokens up to and with the row's own; ``served`` the recorded hash."""
    logits = row.logits.row.astype(np.float64)
    logprobs = logits - row.logits.logsumexp
    probabilities = np.exp(logprobs)
    generated = row.position + 1 - len(request.prompt)
    is_chosen = generated >= 0
    cuts = _cuts(logits, request, generated, history, allowed) if is_chosen else None
    order = np.lexsort((np.arange(len(logits)), -logits))[:TOP]
    listed = [int(token) for token in order]
    if next_token is not None and next_token not in listed:
        listed.append(next_token)
    top = []
    for token in listed:
        entry: dict[str, Any] = {
            "id": token,
            "text": text_of(token),
            "logit": float(logits[token]),
            "logprob": float(logprobs[token]),
            "rank": _rank(logits, token),
        }
        if cuts is not None:
            entry |= {"share": float(cuts.shares[token]), "cut": _REASONS.get(int(cuts.reason[token]))}
        top.append(entry)
    hashed = f"{row.logits.row_hash:016x}"
    return {
        "position": row.position,
        "index": index,
        "token": row.token,
        "text": text_of(row.token),
        "next": next_token,
        "next_is": "chosen" if is_chosen else "prompt",
        "top": top,
        "rest": float(max(0.0, 1 - probabilities[listed].sum())),
        "entropy": row.logits.entropy,
        "margin": row.logits.margin,
        "logsumexp": row.logits.logsumexp,
        "cut": None if cuts is None else cuts.masses(probabilities),
        "hash": hashed,
        "hash_served": served,
        "served": None if served is None else served == hashed,
        "lens": None if row.lens is None else _lens(row.lens, text_of),
        "residual_norms": [float(x) for x in np.sqrt(np.square(row.residual.astype(np.float64)).mean(axis=1))],
        "marks": {"top": "measured", "entropy": "derived", "cut": "derived", "lens": "derived"},
    }


def layer_document(row: Row, layer: int, sources: Sequence[Source], block_size: int) -> dict[str, Any]:
    """The document of one layer of a row, which was opened with that layer among others."""
    place = row.layers.index(layer)
    weights = row.attention[place].astype(np.float64)
    starts = np.arange(0, weights.shape[1], block_size)
    return {
        "position": row.position,
        "layer": layer,
        "q_before": array(row.q_before[place]),
        "q": array(row.q[place]),
        "k_before": array(row.k_before[place]),
        "k": array(row.k[place]),
        "v": array(row.v[place]),
        "mixed": array(row.mixed[place]),
        "weights": array(row.attention[place]),
        "sources": array(_by_source(weights, sources)),
        "blocks": array(np.add.reduceat(weights, starts, axis=1)),
        "marks": {"q": "measured", "weights": "derived", "sources": "derived", "blocks": "derived"},
    }


_REASONS = {1: "minimum length", 2: "constraint", 3: "temperature 0", 4: "min_p", 5: "top_k", 6: "top_p"}


def strip_document(
    rows: Iterable[tuple[int, np.ndarray, int]], ids: Sequence[int], hashes: Sequence[str | None], first: int
) -> dict[str, Any]:
    """How sure the model was of each token of an answer, from rows that were computed again, ``first`` on."""
    found: dict[str, list[Any]] = {"logprob": [], "rank": [], "entropy": [], "margin": [], "served": []}
    for position, row, row_hash in rows:
        place = position - first
        if not 0 <= place < len(ids):
            continue
        logits = row.astype(np.float64)
        high = float(logits.max())
        mass = high + float(np.log(np.exp(logits - high).sum()))
        logprobs = logits - mass
        best = np.partition(logits, len(logits) - 2)[-2:] if len(logits) > 1 else logits
        token = ids[place]
        found["logprob"].append(float(logprobs[token]))
        found["rank"].append(_rank(logits, token))
        found["entropy"].append(float(-(np.exp(logprobs) * logprobs).sum()))
        found["margin"].append(float(best[-1] - best[0]))
        served = hashes[place]
        found["served"].append(None if served is None else served == f"{row_hash:016x}")
    marks = {"logprob": "measured", "rank": "measured", "entropy": "derived", "margin": "derived", "served": "measured"}
    return {"first": first, **found, "sum": sum(found["logprob"]), "marks": marks}


def _rank(logits: np.ndarray, token: int) -> int:
    """1 is the likeliest; of equals the lowest id comes first."""
    return int((logits > logits[token]).sum() + (logits[:token] == logits[token]).sum()) + 1


class _Cuts:
    """What was left of a distribution for the draw. ``reason`` is 0 for a token that could be drawn."""

    def __init__(self, size: int) -> None:
        self.reason = np.zeros(size, np.int8)
        self.shares = np.zeros(size)

    def cut(self, gone: np.ndarray, reason: int) -> None:
        self.reason[gone & (self.reason == 0)] = reason

    def masses(self, probabilities: np.ndarray) -> list[dict[str, Any]]:
        """What each cut took away, of the model's own distribution."""
        found = []
        for number, name in _REASONS.items():
            gone = self.reason == number
            if gone.any():
                found.append({"by": name, "tokens": int(gone.sum()), "mass": float(probabilities[gone].sum())})
        return found


def _cuts(
    logits: np.ndarray, request: Request, generated: int, history: Sequence[int], allowed: np.ndarray | None
) -> _Cuts:
    """The order of work is that of SamplingParams; each token is told by the first that took it away."""
    params, cuts = request.params, _Cuts(len(logits))
    row = logits.copy()
    for token, bias in params.logit_bias.items():
        row[token] += bias
    if params.has_penalties:
        tokens = np.array(history, np.int64)
        seen = np.unique(tokens)
        row[seen] = np.where(
            row[seen] > 0, row[seen] / params.repetition_penalty, row[seen] * params.repetition_penalty
        )
        said, counts = np.unique(tokens[len(request.prompt) :], return_counts=True)
        row[said] -= params.frequency_penalty * counts + params.presence_penalty
    if generated < params.min_tokens and request.stop_ids:
        ends = np.zeros(len(row), bool)
        ends[sorted(request.stop_ids)] = True
        cuts.cut(ends, 1)
    if allowed is not None:
        cuts.cut(~allowed, 2)
    row[cuts.reason > 0] = -np.inf
    if params.is_greedy:
        best = int(row.argmax())
        cuts.cut(np.arange(len(row)) != best, 3)
        cuts.shares[best] = 1.0
        return cuts
    weights = np.exp((row - row.max()) / params.temperature)
    if params.min_p:
        cuts.cut(weights < params.min_p, 4)
        weights[weights < params.min_p] = 0
    order = np.lexsort((np.arange(len(row)), -row))
    if params.top_k:
        cuts.cut(_outside(len(row), order[: params.top_k]), 5)
        order = order[: params.top_k]
    if params.top_p < 1:
        reached = np.add.accumulate(weights[order])
        order = order[: int(np.searchsorted(reached, params.top_p * reached[-1])) + 1]
        cuts.cut(_outside(len(row), order), 6)
    cuts.shares[order] = weights[order] / weights[order].sum()
    return cuts


def _outside(size: int, kept: np.ndarray) -> np.ndarray:
    gone = np.ones(size, bool)
    gone[kept] = False
    return gone


def _lens(lens: Lens, text_of: TextOf) -> list[list[dict[str, Any]]]:
    logprobs = lens.logits.astype(np.float64) - lens.logsumexp[:, None]
    return [
        [{"id": int(t), "text": text_of(int(t)), "logprob": float(p)} for t, p in zip(ids, values, strict=True)]
        for ids, values in zip(lens.ids, logprobs, strict=True)
    ]


def heads_document(row: Row, sources: Sequence[Source]) -> dict[str, Any]:
    """Of every layer and head of a row: the mass of each source, and the entropy over positions in nats."""
    masses, spreads = [], []
    for each in row.attention:
        weights = each.astype(np.float64)
        masses.append(_by_source(weights, sources))
        logs = np.log(np.where(weights > 0, weights, 1))
        spreads.append(-(weights * logs).sum(axis=1))
    return {
        "position": row.position,
        "sources": array(np.array(masses)),
        "entropy": array(np.array(spreads)),
        "marks": {"sources": "derived", "entropy": "derived"},
    }


def _by_source(weights: np.ndarray, sources: Sequence[Source]) -> np.ndarray:
    """weights (heads, positions) -> (heads, sources)."""
    return np.array([weights[:, each["first"] : each["end"]].sum(axis=1) for each in sources]).T.reshape(
        len(weights), len(sources)
    )
