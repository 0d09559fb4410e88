"""Draft: a step while it is being filled: rows left, works so far, who was left out and why.

It guarantees that no step has more rows than it may, that with "decode" first every running sequence that needs just
one row finds it kept, and that a Work says all its runner needs. It knows neither blocks nor whose turn it is.
"""

from __future__ import annotations

from collections.abc import Sequence as Line
from dataclasses import replace

from openwork.core.event import Event
from openwork.core.sequence import Sequence
from openwork.core.step import Copy, Score, Step, Why, Work
from openwork.schedule.roster import Entry


class Draft:
    """``number`` is the step's; ``now`` when it is planned."""

    def __init__(
        self, number: int, now: float, rows: int, due: Line[Sequence], keeps_rows: bool, most_tried: int
    ) -> None:
        self.number = number
        self.now = now
        self.rows = rows
        self.works: list[Work] = []
        self.copies: list[Copy] = []
        self.events: list[Event] = []
        self.planned: set[int] = set()  # ids of sequences
        self.left_out: list[tuple[int, str]] = []
        self._most_tried = most_tried
        self._closed: set[str] = set()  # tenants none of whose waiting sequences can begin in this step
        self._is_open = True
        # Rows are kept for those that need just one and have not had their turn.
        self._kept = {sequence.id for sequence in due if sequence.due == 1} if keeps_rows else set()

    def pass_turn(self, sequence: Sequence) -> None:
        """A sequence has its turn now: the row that was kept for it is given out or lost."""
        self._kept.discard(sequence.id)

    def grant(self, due: int) -> int:
        """Rows for somebody who has ``due`` of them and whose turn it is; just one is always had from those kept."""
        return max(0, min(due, self.rows if due == 1 else self.rows - len(self._kept)))

    def may_begin(self, tenant: str) -> bool:
        return self._is_open and tenant not in self._closed

    def close(self, tenant: str | None) -> None:
        """Nobody of a tenant, or nobody at all, can begin in this step."""
        if tenant is None:
            self._is_open = False
        else:
            self._closed.add(tenant)
            self._is_open = len(self._closed) < self._most_tried

    def leave_out(self, sequence: Sequence, cause: str) -> None:
        self.left_out.append((sequence.id, cause))
        if not sequence.stall:
            sequence.stall, sequence.stalled_at = cause, self.now

    def add(self, sequence: Sequence, count: int, entry: Entry, copies: tuple[Copy, ...], num_blocks: int) -> None:
        """The next ``count`` due positions of a sequence, which count as computed from here on."""
        start = sequence.computed
        end = start + count
        tokens = tuple(sequence.tokens[start:end])
        asks = end == sequence.known + sequence.pending and sequence.request.max_tokens > 0
        work = Work(
            sequence=sequence.id,
            start=start,
            tokens=tokens,
            is_pending=len(tokens) < count,
            blocks=tuple(sequence.blocks[:num_blocks]),
            draws=sequence.strategy.draws(sequence) if asks else (),
            score=_score(sequence, start, end, entry),
            expand=sequence.strategy.expand if asks else None,
        )
        self.works.append(work)
        self.copies += copies
        self.rows -= count
        self.planned.add(sequence.id)
        sequence.computed = end
        sequence.pending += work.asks
        if sequence.stall:
            entry.note_stall(sequence, self.now)
        entry.tally.rows += count
        entry.tally.chunks += start < sequence.prompt_len

    def extend(
        self, place: int, sequence: Sequence, drafts: tuple[int, ...], copies: tuple[Copy, ...], num_blocks: int
    ) -> None:
        """Let a work go on with guesses of the tokens that follow. They do not count as computed."""
        self.works[place] = replace(self.works[place], drafts=drafts, blocks=tuple(sequence.blocks[:num_blocks]))
        self.copies += copies
        self.rows -= len(drafts)
        sequence.drafted = len(drafts)

    def finish(self, why: Why) -> Step:
        return Step(self.number, tuple(self.works), tuple(self.copies), why)


def _score(sequence: Sequence, start: int, end: int, entry: Entry) -> Score | None:
    """Row at position p scores the token at p + 1: of the prompt, or of a run that a search wants scored."""
    if sequence.to_score is not None:
        first, last = max(start, sequence.to_score), min(end, sequence.known - 1)
        return Score(tuple(sequence.tokens[first + 1 : last + 1]), 0, first - start) if first < last else None
    top = sequence.request.params.prompt_logprobs
    if top is None or sequence.index != entry.scorer or start + 1 >= sequence.prompt_len or entry.is_scored:
        return None
    return Score(sequence.request.prompt[start + 1 : end + 1], top)
