"""Examination: one sequence, computed again, with everything inside it to be looked at.

    Examiner --examine(tokens)--> Examination --prefill, once--> keys and values of all positions, in a cache of its own
                                              --row(i)--> that row again, as a decode step, watched

By the numeric contract the row that is computed again has the bits that were served, whatever the schedule was, and its
hash says whether it does. So any row can be opened in the time of one decode step, and memory is the cache and what was
asked for: never the attention of all positions to all. It does not know requests, text, or where the tokens came from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from openwork.core.errors import MemoryTooSmall, RequestError
from openwork.core.request import Limits
from openwork.core.spec import ModelSpec
from openwork.core.stamp import HEAD, Place, Stamp, first_difference, point
from openwork.models.decoder import Decoder
from openwork.ops.attention import FINE_STEPS
from openwork.ops.packed import bfloat16_round
from openwork.ops.paged import KVDType, PagedKV, Rows, to_codes
from openwork.ops.stamps import Stamps
from openwork.ops.weights import Attention
from openwork.run.masks import Guide
from openwork.run.memory import available_bytes
from openwork.run.row import Lens, Row
from openwork.run.saying import LOGITS_BYTES, said, would_say
from openwork.run.watch import Watched

BLOCK = 16
CHUNK = 512  # rows of the prefill at a time


@dataclass(frozen=True, slots=True, eq=False)
class Examiner:
    """A model to examine sequences with; it needs no engine."""

    model: Decoder
    kv_dtype: KVDType
    limits: Limits
    name: str
    dtype: str  # of the weights
    guide: Guide  # for tokens that were chosen under a constraint

    @property
    def contract_id(self) -> str:
        return self.model.ops.contract_id

    def fingerprint(self) -> int:
        """A name in 64 bits for weights, number formats and arithmetic: the hash of the logits behind token 0 alone."""
        return next(self.examine([0]).rows())[2]

    def num_bytes(self, num_tokens: int) -> int:
        """Memory that the keys and values of an examination take."""
        spec, blocks = self.model.spec, -(-num_tokens // BLOCK)
        return blocks * PagedKV.block_bytes(spec.num_layers, spec.num_kv_heads, spec.head_dim, BLOCK, self.kv_dtype)

    def examine(self, tokens: Sequence[int], max_bytes: int | None = None, room: int = 0) -> Examination:
        """Tokens in the order of their positions; nothing is computed yet. ``room`` is for others, later: turn_to.

        Raises RequestError for ids or lengths that the model does not have, MemoryTooSmall when keys and values need
        more than ``max_bytes``, or than is free.
        """
        vocab, context = self.limits.vocab_size, self.limits.context
        if not 1 <= len(tokens) <= context:
            raise RequestError(f"are {len(tokens)}; the model reads 1 to {context}", param="tokens")
        strange = next((token for token in tokens if not 0 <= token < vocab), None)
        if strange is not None:
            raise RequestError(f"hold {strange}; ids are 0 to {vocab - 1}", param="tokens")
        room = max(room, len(tokens))
        needed, free = self.num_bytes(room), available_bytes()
        allowed = free if max_bytes is None else min(max_bytes, free)
        if needed > allowed:
            raise MemoryTooSmall(
                f"to examine {room} tokens takes {needed:,} bytes for keys and values; {allowed:,} may be used",
                "Examine fewer tokens, or allow more.",
            )
        return Examination(self.model, self.kv_dtype, tokens, room)


class Examination:
    """One sequence. For one thread at a time."""

    def __init__(self, model: Decoder, kv_dtype: KVDType, tokens: Sequence[int], room: int) -> None:
        spec, blocks = model.spec, -(-room // BLOCK)
        self.spec: ModelSpec = spec
        self.tokens = np.array(tokens, np.int32)
        self._model = model
        kv = PagedKV.empty(spec.num_layers, blocks, spec.num_kv_heads, spec.head_dim, BLOCK, kv_dtype)
        self._kv = model.ops.bind(kv)
        self._table = np.arange(blocks, dtype=np.int32)
        self.told: Callable[[int, int], None] = lambda done, total: None  # positions computed in a pass, of how many
        self._computed = 0  # positions whose keys and values are in the cache
        self.stamps: dict[int, Stamp] = {}  # of the positions that rows was last asked to stamp

    def turn_to(self, tokens: Sequence[int]) -> None:
        """Examine another sequence, which needs no more room; what both begin with is not computed again."""
        other = np.array(tokens, np.int32)
        if len(other) > len(self._table) * BLOCK:
            raise RequestError(f"are {len(other)}; there is room for {len(self._table) * BLOCK}", param="tokens")
        shared = min(self._computed, len(other))
        differs = np.flatnonzero(self.tokens[:shared] != other[:shared])
        self._computed = int(differs[0]) if len(differs) else shared
        self.tokens = other

    # -- one pass ------------------------------------------------------------------------------------------------

    def prefill(self, last: int | None = None) -> None:
        """Compute those of all positions, or of the first ``last``, that were not yet. Does nothing the second time."""
        last = len(self.tokens) if last is None else last
        for first in range(self._computed, last, CHUNK):
            self._forward(self._model, first, min(first + CHUNK, last))
            self.told(min(first + CHUNK, last), last)

    def rows(self, first: int = 0, stamped: Sequence[int] = ()) -> Iterator[tuple[int, np.ndarray, int]]:
        """Compute in one pass -> (position, logits (vocab,), their hash) of each position from ``first`` on.

        Those of ``stamped`` are in ``stamps`` when they are yielded.
        """
        at_once = max(1, LOGITS_BYTES // (4 * self.spec.vocab_size))
        self.stamps.clear()
        for begin in range(min(first, self._computed), len(self.tokens), CHUNK):
            hidden = self._forward(self._model, begin, min(begin + CHUNK, len(self.tokens)), stamped=stamped)
            self.told(min(begin + CHUNK, len(self.tokens)), len(self.tokens))
            for at in range(max(0, first - begin), len(hidden), at_once):
                logits = self._model.logits(hidden[at : at + at_once])
                hashes = self._model.ops.hash_rows(logits).tolist()
                yield from zip(range(begin + at, begin + at + len(logits)), logits, hashes, strict=True)

    # -- one row -------------------------------------------------------------------------------------------------

    def row(
        self,
        position: int,
        *,
        layers: Sequence[int] | None = None,
        heads: Sequence[int] | None = None,
        lens: int = 0,
        top: int = 10,
    ) -> Row:
        """One position, computed again as a decode step and watched; those before it are computed first.

        ``layers`` and ``heads`` choose whose queries, keys, values and attention are wanted; None: all. ``lens`` is
        how many tokens to name behind every layer (0: no lens), ``top`` how many at the end. Raises RequestError for a
        position, layer or head that there is not.
        """
        spec = self.spec
        some = tuple(range(spec.num_layers) if layers is None else _check("layers", layers, spec.num_layers))
        which = tuple(range(spec.num_heads) if heads is None else _check("heads", heads, spec.num_heads))
        _check("position", [position], len(self.tokens))
        self.prefill(position)
        watched, stream = Watched(self._model.ops, some), list[np.ndarray]()
        hidden = self._forward(self._model.through(watched), position, position + 1, stream)

        def seen(name: str, count: int) -> np.ndarray:
            out = np.empty((len(some), count, spec.head_dim), np.float32)
            for place, layer in enumerate(some):
                out[place] = getattr(watched.seen[layer], name)[0]
            return out

        every = {name: seen(name, spec.num_heads)[:, which] for name in ("q_before", "q", "mixed")}
        every |= {name: seen(name, spec.num_kv_heads) for name in ("k_before", "k", "v")}
        attention = np.zeros((len(some), len(which), position + 1), np.float32)
        for place, layer in enumerate(some):
            self._attend(position, layer, which, every["q"][place], attention[place])
        residual = np.concatenate(stream)
        return Row(
            position=position,
            token=int(self.tokens[position]),
            layers=some,
            heads=which,
            attention=attention,
            residual=residual,
            logits=said(self._model, hidden, top),
            lens=would_say(self._model, residual, lens) if lens else None,
            **every,
        )

    def keys(self, layer: int, head: int) -> np.ndarray:
        """The keys that query head ``head`` of a layer meets, as the cache holds them -> (tokens, head_dim)."""
        table, kv_head = self._line(layer, head)
        return self._kv.key_line(layer, kv_head, table, len(self.tokens))

    def values(self, layer: int, head: int) -> np.ndarray:
        """The same of the values."""
        table, kv_head = self._line(layer, head)
        return self._kv.value_line(layer, kv_head, table, len(self.tokens))

    def lens(self, first: int, last: int, top: int) -> list[Lens]:
        """What every layer would have said at positions first .. last - 1, computed again in one chunk of rows."""
        _check("last", [last - 1], len(self.tokens))
        _check("first", [first], last)
        self.prefill(first)
        stream: list[np.ndarray] = []
        self._forward(self._model, first, last, stream)
        by_row = np.stack(stream, axis=1)  # (rows, layers + 1, hidden_size)
        return [would_say(self._model, residual, top) for residual in by_row]

    def disagreement(self, position: int) -> Place | None:
        """Where ways of computing one row part that must give the same bits; None: they do.

        Alone and in a chunk behind other rows, in whole layers and in single operations.
        """
        _check("position", [position], len(self.tokens))
        self.prefill(position)
        begin, num_layers = max(0, position - BLOCK + 1), self.spec.num_layers
        single = self._model.through(Watched(self._model.ops, range(num_layers)))
        stamps, rows = [], set()
        for model, first in ((self._model, position), (self._model, begin), (single, position), (single, begin)):
            hidden = self._forward(model, first, position + 1, stamped=[position])[-1:]
            stamps.append(self.stamps.pop(position))
            rows.add(self._model.logits(hidden).tobytes())
        parted = [place for stamp in stamps if (place := first_difference(stamps[0], stamp)) is not None]
        if parted:
            return min(parted, key=lambda place: point(place.layer, place.op))
        return Place(num_layers, HEAD) if len(rows) > 1 else None

    def stamp(self, position: int) -> tuple[Stamp, int]:
        """One position, computed again as a decode step -> what its row passed, and the hash of the row of logits."""
        _check("position", [position], len(self.tokens))
        self.prefill(position)
        hidden = self._forward(self._model, position, position + 1, stamped=[position])
        return self.stamps.pop(position), int(self._model.ops.hash_rows(self._model.logits(hidden))[0])

    # -- inside --------------------------------------------------------------------------------------------------

    def _forward(
        self,
        model: Decoder,
        first: int,
        last: int,
        stream: list[np.ndarray] | None = None,
        stamped: Sequence[int] = (),
    ) -> np.ndarray:
        """Positions first .. last - 1 through the layers -> (rows, hidden_size).

        ``stream`` gets the residual, ``stamps`` the stamps of those positions that are ``stamped``.
        """
        positions = np.arange(first, last, dtype=np.int32)
        starts = np.array([0, last - first], np.int32)
        which = [position - first for position in stamped if first <= position < last]
        stamps = Stamps.empty(which, self.spec.num_layers) if which else None
        rows = Rows(positions, starts, self._table[None], *model.cos_sin(positions))
        rows = replace(rows, stamps=stamps)
        see = None if stream is None else lambda _, x: stream.append(x.copy())
        hidden = model.forward(self.tokens[first:last], model.ops.bind_rows(rows), self._kv, see)
        self._computed = max(self._computed, last)
        if stamps is not None:
            self.stamps |= {first + row: stamp for row, stamp in stamps.by_row().items()}
        return hidden

    def _line(self, layer: int, head: int) -> tuple[np.ndarray, int]:
        _check("layer", [layer], self.spec.num_layers)
        _check("head", [head], self.spec.num_heads)
        self.prefill()
        return self._table, head // (self.spec.num_heads // self.spec.num_kv_heads)

    def _attend(self, position: int, layer: int, heads: Sequence[int], q: np.ndarray, out: np.ndarray) -> None:
        """The weights of some heads at one position: q (heads, head_dim) -> into out (heads, position + 1)."""
        w: Attention = self._model.weights.layers[layer].attention
        lowest = 0 if w.window is None else max(0, position - w.window + 1)
        group, table = self.spec.num_heads // self.spec.num_kv_heads, self._table[: position // BLOCK + 1]
        q = _as_cached(q, self._kv.dtype)
        for kv_head in sorted({head // group for head in heads}):
            k = self._kv.key_line(layer, kv_head, table, position + 1)[lowest:]
            for place in [place for place, head in enumerate(heads) if head // group == kv_head]:
                # Alone, so that its bits do not depend on the others; not by BLAS, whose threads wait for one another.
                scores = np.einsum("td,d->t", k, q[place]) * np.float32(w.scale)
                if w.softcap is not None:
                    scores = np.float32(w.softcap) * np.tanh(scores / np.float32(w.softcap))
                weights = np.exp(scores.astype(np.float64) - scores.max())
                out[place, lowest:] = weights / weights.sum()


def _as_cached(q: np.ndarray, dtype: KVDType) -> np.ndarray:
    """Queries rounded as those are that meet a cache of this kind (ops/attention.py)."""
    if dtype == "float32":
        return q
    if dtype == "bfloat16":
        return bfloat16_round(q)
    codes, scale = to_codes(q, FINE_STEPS)
    return np.asarray(codes * scale)


def _check(name: str, chosen: Sequence[int], count: int) -> Sequence[int]:
    for each in chosen:
        if isinstance(each, bool) or not isinstance(each, (int, np.integer)) or not 0 <= each < count:
            raise RequestError(f"has {each!r}; there are 0 to {count - 1}", param=name)
    return chosen
