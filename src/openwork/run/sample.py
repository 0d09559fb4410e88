"""From a row of logits to a token: biases, penalties, filters, the draw, and log-probabilities.

A choice is a function of the row, the request's parameters and seed, the sequence's index and the absolute position:
never of the other rows, so a request gives the same tokens alone and in any batch. Log-probabilities are those of the
row as the model gave it. Sums run in fixed order and ties go to the lowest id (docs/numeric-contract.md, rule 7). An id
that a kernel gives is looked at before it is used: one that is no token is an error of that row alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from openwork.core.noise import uniform
from openwork.core.output import Logprob
from openwork.core.request import SamplingParams
from openwork.core.step import Candidates, Choice, Draw, Expand
from openwork.ops.reference import Reference
from openwork.run.masks import DeadEnd


class NoToken(Exception):
    """What a kernel chose is not an id of the vocabulary: its row is not to be trusted, and nobody may see the id."""


def sound(token: int, vocab_size: int) -> int:
    """``token``, which a kernel gave. Raises NoToken when it is not in the vocabulary, counted from 0."""
    if not 0 <= token < vocab_size:
        raise NoToken(f"a kernel chose {token}, which is no token id: the vocabulary has {vocab_size}")
    return token


def choose(
    ops: Reference, row: np.ndarray, draw: Draw, pending: int | None = None, allowed: np.ndarray | None = None
) -> Choice:
    """Choose the token that follows ``row`` (vocab,) float32. ``pending`` is the newest token of the history.

    ``allowed`` (vocab,) bool is what a constraint leaves, minimum length heeded. Raises DeadEnd when that is nothing,
    NoToken as sound does.
    """
    params = draw.params
    adjusted = _adjust(row, draw, pending, withholds=allowed is None and _withholds(draw))
    if allowed is not None:
        adjusted = np.where(allowed, adjusted, np.float32(-np.inf))
        if adjusted.max() == -np.inf:
            raise DeadEnd("the constraint leaves no token that the model can choose")
    if params.is_greedy:
        token = int(ops.argmax(adjusted[None, :])[0])
    else:
        noise = uniform(params.seed, draw.index, draw.position)
        top_k = params.top_k or len(row)  # 0 keeps all
        token = ops.choose(adjusted, params.temperature, top_k, params.top_p, params.min_p, noise)
    token = sound(token, len(row))
    top = params.top_logprobs
    return Choice(token, None if top is None else logprobs(ops, row[None, :], [token], top)[0])


def candidates(ops: Reference, row: np.ndarray, expand: Expand, allowed: np.ndarray | None = None) -> Candidates:
    """The tokens that may follow ``row`` (vocab,) float32, by the model's own distribution.

    ``allowed`` (vocab,) bool is what a constraint leaves. What it takes out keeps its part of the mass: the numbers
    are those that the tokens would have had without it. Raises NoToken as sound does.
    """
    mass = float(ops.logsumexp(row[None, :])[0])
    among = row[np.array(expand.among, np.int64)].astype(np.float64) - mass
    best = np.empty(0, np.int64)
    if expand.top:
        # As many more as may have to be left out: only numbers that are given out leave the array.
        wanted = expand.top + len(expand.without)
        # What is legal is in ascending order, so that equals come in the same order as without a constraint.
        legal = None if allowed is None else np.flatnonzero(allowed)
        among_whom = row if legal is None else row[legal]
        best = np.array([sound(i, len(among_whom)) for i in ops.top_k(among_whom, wanted).tolist()], np.int64)
        best = best if legal is None else legal[best]
    if allowed is not None:
        among[~allowed[list(expand.among)]] = -np.inf
    kept = [token for token in best.tolist() if token not in expand.without][: expand.top]
    return Candidates(tuple((token, float(row[token]) - mass) for token in kept), tuple(among.tolist()))


def is_plainly_greedy(draw: Draw) -> bool:
    """Whether ``choose`` would return the highest logit of the row as it is, and nothing else."""
    params = draw.params
    is_free = params.constraint is None and not _adjusts(params) and not _withholds(draw)
    return params.is_greedy and params.top_logprobs is None and is_free


def logprobs(ops: Reference, rows: np.ndarray, tokens: Sequence[int], top: int) -> list[Logprob]:
    """The log-probability of one token in each of ``rows`` (rows, vocab), and the ``top`` most likely beside it.

    Raises NoToken as sound does.
    """
    masses = ops.logsumexp(rows)  # (rows,) float64
    found = []
    for row, mass, token in zip(rows, masses, tokens, strict=True):
        best = [sound(i, len(row)) for i in ops.top_k(row, top).tolist()] if top else []
        likely = tuple((i, float(row[i] - mass)) for i in best)
        found.append(Logprob(token, float(row[token] - mass), ops.rank(row, token), likely))
    return found


def _adjust(row: np.ndarray, draw: Draw, pending: int | None, withholds: bool) -> np.ndarray:
    """The row with bias, penalties and minimum length applied: a copy if anything changes."""
    if not withholds and not _adjusts(draw.params):
        return row
    params, row = draw.params, row.copy()
    for token, bias in params.logit_bias.items():
        row[token] += np.float32(bias)
    if params.has_penalties:
        history = draw.history if pending is None else (*draw.history, pending)
        _penalise(row, history, draw.prompt_len, params)
    if withholds:
        row[sorted(draw.stop_ids)] = -np.inf
    return row


def _withholds(draw: Draw) -> bool:
    return draw.generated < draw.params.min_tokens and bool(draw.stop_ids)


def _adjusts(params: SamplingParams) -> bool:
    return bool(params.logit_bias) or params.has_penalties


def _penalise(row: np.ndarray, history: tuple[int, ...], prompt_len: int, params: SamplingParams) -> None:
    """In place. Repetition: Keskar et al. 2019 (CTRL), prompt and output; presence and frequency: output only.

    A token that occurs several times is read, changed and written as often, from the same number to the same number:
    that is cheaper than to find out which occur. Only how often they do has to be counted.
    """
    tokens = np.array(history, np.int64)
    if params.repetition_penalty != 1:
        penalty, seen = np.float32(params.repetition_penalty), row[tokens]
        row[tokens] = np.where(seen > 0, seen / penalty, seen * penalty)
    if params.frequency_penalty:
        generated, counts = np.unique(tokens[prompt_len:], return_counts=True)
        row[generated] -= np.float32(params.frequency_penalty) * counts.astype(np.float32)
    if params.presence_penalty:
        generated = tokens[prompt_len:]
        row[generated] = row[generated] - np.float32(params.presence_penalty)
