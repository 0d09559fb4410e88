"""TensorRunner: carries out steps on a model, one after the other, in a thread of its own.

``submit`` returns at once; the step runs while the caller plans the next. It guarantees that steps run in the order
they were submitted, that copies come before the forward pass, that a pending token is the one it chose in the step
before, that a row that went wrong fails its own sequence alone, and that logits never take more than LOGITS_BYTES at a
time, whatever the vocabulary. Apart from the cache and those last choices it keeps nothing: a Step says the rest. It
does not know requests, text, or why it is asked.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import replace

import numpy as np

from openwork.core.output import Failure, Logprob
from openwork.core.step import Candidates, Choice, Outcome, Result, Step, Work
from openwork.models.decoder import Decoder
from openwork.ops.paged import PagedKV
from openwork.ops.reference import Reference
from openwork.run.batch import Batch, assemble
from openwork.run.masks import DeadEnd, Guide, Masks
from openwork.run.sample import NoToken, candidates, choose, is_plainly_greedy, logprobs, sound
from openwork.run.stamping import Stamping, stamped

LOGITS_BYTES = 32 << 20
Tap = Callable[[int, int, np.ndarray], None]  # (sequence, position, logits row: copy it to keep it)

_NOT_FINITE = (
    "the logits are not finite (NaN or infinity). "
    "The weights are damaged, or overflow in this number format: try dtype float32."
)
_NO_TOKEN = "the step before gave no token to go on with"


class _Ticket:
    """A step on its way: a result, or what went wrong."""

    def __init__(self, step: Step) -> None:
        self.step = step
        self.result: Result | None = None
        self.error: BaseException | None = None
        self.done = threading.Event()


class TensorRunner:
    """``tap`` sees every row of logits that is computed, before anything is chosen from it.

    ``guide`` says what a constraint allows; None: there is no vocabulary, and constrained sequences fail. ``hashes``:
    each choice carries the hash of the row it was made from, as the model gave it (docs/numeric-contract.md), and so
    does what is scored or expanded. One row of ``stamp_every`` is stamped too (run/stamping.py); 0: none.
    """

    def __init__(
        self,
        ops: Reference,
        model: Decoder,
        kv: PagedKV,
        tap: Tap | None = None,
        guide: Guide | None = None,
        hashes: bool = False,
        stamp_every: int = 0,
    ) -> None:
        self._ops = ops
        self._model = model
        self._kv = kv
        self._tap = tap
        self._hashes = hashes
        self._stamping = Stamping(stamp_every, model.spec.num_layers)
        self._masks = Masks(guide, model.spec.vocab_size)
        self._chosen: dict[int, int] = {}  # sequence -> token chosen in the step before
        self._rows_at_once = max(1, LOGITS_BYTES // (4 * model.spec.vocab_size))
        self._logits_kept = np.empty((0, model.spec.vocab_size), np.float32)
        self._inbox: queue.SimpleQueue[_Ticket | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._serve, name="openwork-runner", daemon=True)
        self._thread.start()

    def submit(self, step: Step) -> _Ticket:
        ticket = _Ticket(step)
        self._inbox.put(ticket)
        return ticket

    def collect(self, ticket: _Ticket) -> Result:
        ticket.done.wait()
        if ticket.error is not None:
            raise ticket.error
        assert ticket.result is not None
        return ticket.result

    def close(self, wait: bool = True) -> None:
        self._inbox.put(None)
        if wait:
            self._thread.join()

    def _serve(self) -> None:
        while (ticket := self._inbox.get()) is not None:
            try:
                ticket.result = self.run(ticket.step)
            except BaseException as error:  # handed to whoever collects; this thread must outlive a bad step
                ticket.error = error
            ticket.done.set()
        self._masks.close()

    def run(self, step: Step) -> Result:
        """Carry out one step here and now: copies, forward pass, choices and scores."""
        began = time.perf_counter()
        if step.copies:
            self._ops.copy_blocks(self._kv, [c.source for c in step.copies], [c.target for c in step.copies])
        chosen, self._chosen = self._chosen, {}
        # A sequence whose row failed in the step before has no token to go on with: it fails alone.
        works = tuple(work for work in step.works if not work.is_pending or work.sequence in chosen)
        outcomes = iter(self._compute(replace(step, works=works), chosen) if works else [])
        going_on = {work.sequence for work in works}
        every = [next(outcomes) if work.sequence in going_on else Outcome(failure=_NO_TOKEN) for work in step.works]
        self._chosen = {
            work.sequence: outcome.choices[0].token
            for work, outcome in zip(step.works, every, strict=True)
            if outcome.choices and not work.drafts  # of which nobody knows before how many there will be
        }
        return Result(step.number, tuple(every), time.perf_counter() - began)

    def _compute(self, step: Step, chosen: dict[int, int]) -> list[Outcome]:
        masks = self._masks.begin(step, chosen)  # computed beside what follows
        batch = assemble(step, chosen, self._model.cos_sin)
        stamps = self._stamping.choose(step, batch)
        rows = batch.rows if stamps is None else replace(batch.rows, stamps=stamps)
        hidden = self._model.forward(batch.ids, self._ops.bind_rows(rows), self._kv)
        is_plain = self._tap is None and all(_is_plain(work) for work in step.works)
        outcomes = self._best(step, batch, hidden) if is_plain else self._outcomes(step, batch, hidden, masks)
        return outcomes if stamps is None else stamped(outcomes, step, batch, stamps)

    def _best(self, step: Step, batch: Batch, hidden: np.ndarray) -> list[Outcome]:
        """The usual step of a greedy batch: nothing but the highest logit is asked for, so no logits are kept."""
        wanted = _wanted(step, batch)
        if not wanted:
            return [Outcome() for _ in step.works]
        kept = np.empty(len(wanted), np.uint64) if self._hashes else None
        ids, finite = self._model.best(hidden[[row for _, row in wanted]], kept)
        hashes = [None] * len(wanted) if kept is None else kept.tolist()
        choices: list[list[Choice]] = [[] for _ in step.works]
        vocab_size = self._model.spec.vocab_size
        failed: dict[int, Outcome] = {}
        for (index, row), token, is_finite, row_hash in zip(wanted, ids.tolist(), finite.tolist(), hashes, strict=True):
            work = step.works[index]
            num_right = row - batch.starts[index] - work.num_sure + 1
            if not _is_reached(work, choices[index], num_right):
                continue
            try:
                if not is_finite:
                    raise NoToken(_NOT_FINITE)
                choices[index] += [Choice(sound(token, vocab_size), None, row_hash) for _ in work.draws]
            except NoToken as error:
                if not num_right:  # behind a right guess it will be met again, without guesses
                    failed[index] = Outcome(failure=str(error))
        return [failed[i] if i in failed else Outcome(tuple(choices[i])) for i in range(len(step.works))]

    def _outcomes(
        self, step: Step, batch: Batch, hidden: np.ndarray, masks: Mapping[int, list[Future[np.ndarray]]]
    ) -> list[Outcome]:
        """Logits are made for the rows that are drawn from or scored, a bounded number at a time."""
        choices: list[list[Choice]] = [[] for _ in step.works]
        scores: list[list[Logprob]] = [[] for _ in step.works]
        expanded: dict[int, Candidates] = {}
        read: list[list[int]] = [[] for _ in step.works]  # hashes of the rows that scored or were expanded
        failed: dict[int, Outcome] = {}
        for where, logits in self._logits(_wanted(step, batch), hidden):
            finite = self._ops.is_finite(logits)
            for place, (index, row) in enumerate(where):
                work = step.works[index]
                offset = row - batch.starts[index]
                num_right = offset - work.num_sure + 1  # guesses before this row, all of which must be right
                if num_right > 0 and not _is_reached(work, choices[index], num_right):
                    continue
                if self._tap is not None:
                    self._tap(work.sequence, work.start + offset, logits[place])
                if not finite[place]:
                    if num_right <= 0:
                        failed[index] = Outcome(failure=_NOT_FINITE)
                    continue
                row_logits = logits[place : place + 1]
                try:
                    if work.score is not None and 0 <= offset - work.score.first < len(work.score.targets):
                        target = work.score.targets[offset - work.score.first]
                        scores[index] += logprobs(self._ops, row_logits, [target], work.score.top)
                        read[index] += self._hashes_of(row_logits)
                    if num_right >= 0:
                        newest = int(batch.ids[row]) if work.is_pending else None
                        draws = [draw.after(work.drafts[:num_right]) if num_right else draw for draw in work.draws]
                        allowed = masks[index][num_right].result() if index in masks else None
                        found = [choose(self._ops, row_logits[0], d, newest, allowed) for d in draws]
                        choices[index] += self._hashed(row_logits, found)
                        if work.expand is not None:
                            expanded[index] = candidates(self._ops, row_logits[0], work.expand, allowed)
                            read[index] += self._hashes_of(row_logits)
                except (DeadEnd, NoToken) as error:
                    if num_right <= 0:
                        what: Failure = "grammar" if isinstance(error, DeadEnd) else "numbers"
                        failed[index] = Outcome(failure=str(error), failed=what)
        return [
            failed[i]
            if i in failed
            else Outcome(tuple(choices[i]), tuple(scores[i]), candidates=expanded.get(i), row_hashes=tuple(read[i]))
            for i in range(len(step.works))
        ]

    def _hashed(self, row: np.ndarray, choices: list[Choice]) -> list[Choice]:
        """The choices with the hash of the row (1, vocab) they were made from, if hashes are wanted."""
        if not choices or not (hashes := self._hashes_of(row)):
            return choices
        return [Choice(choice.token, choice.logprob, hashes[0]) for choice in choices]

    def _hashes_of(self, rows: np.ndarray) -> list[int]:
        """Of each of the rows (rows, vocab); nothing when none are wanted."""
        hashes: list[int] = self._ops.hash_rows(rows).tolist() if self._hashes else []
        return hashes

    def _logits(
        self, wanted: list[tuple[int, int]], hidden: np.ndarray
    ) -> Iterator[tuple[list[tuple[int, int]], np.ndarray]]:
        for first in range(0, len(wanted), self._rows_at_once):
            part = wanted[first : first + self._rows_at_once]
            if len(part) > len(
                self._logits_kept
            ):  # the same memory every time: fresh pages cost more than the head's sums
                self._logits_kept = np.empty((len(part), self._model.spec.vocab_size), np.float32)
            out = self._logits_kept[: len(part)]
            yield part, self._model.logits(hidden[[row for _, row in part]], out)  # (part, vocab)


def _wanted(step: Step, batch: Batch) -> list[tuple[int, int]]:
    """(work, row) for each row whose logits are needed, in order."""
    wanted: list[tuple[int, int]] = []
    for index, work in enumerate(step.works):
        first_drawn = batch.starts[index] + work.num_sure - 1
        end = batch.starts[index]
        if work.score is not None:
            first = end + work.score.first
            end = first + len(work.score.targets)
            wanted += [(index, row) for row in range(first, end)]
        if work.asks:
            wanted += [(index, row) for row in range(max(end, first_drawn), batch.starts[index + 1])]
    return wanted


def _is_reached(work: Work, choices: list[Choice], num_right: int) -> bool:
    """Whether the row after so many guesses counts: each of them is what was chosen."""
    return len(choices) == num_right and (not num_right or choices[-1].token == work.drafts[num_right - 1])


def _is_plain(work: Work) -> bool:
    """Whether the highest logit is all that is asked of this work."""
    return work.score is None and work.expand is None and all(is_plainly_greedy(draw) for draw in work.draws)
