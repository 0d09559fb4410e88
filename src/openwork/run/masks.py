"""Masks: which tokens a constraint allows next, computed beside the forward pass that will choose among them.

    begin(step, chosen)     at the start of a step: everything that the masks depend on is known now
    forward pass            |  a thread of ours: one mask after another
    mask = future.result()  when the row is there

A sequence's state is a function of its constraint and of the tokens it has generated, which every Draw and Expand
carries: what is kept here from step to step only saves time. So a sequence that was preempted, forked or taken over
from another engine has the masks it would have had, and so has a line of a search. States of sequences that are in no
step any more go after KEPT_STEPS. It does not know what a grammar is, nor text: that is behind Guide.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from openwork.core.constraint import Constraint
from openwork.core.errors import RequestError
from openwork.core.step import Draw, Step, Work

KEPT_STEPS = 16


class DeadEnd(Exception):
    """The constraint leaves no token to choose; the text says why, for people."""


class Matcher(Protocol):
    """Where one text stands under a constraint."""

    def take(self, tokens: Sequence[int]) -> bool:
        """Go on by these tokens; False when the constraint does not allow them."""
        ...

    def mask(self) -> bytes | None:
        """A bit for each token, lowest bit first: whether it may come next. None: none may, not even an end."""
        ...

    @property
    def gave_up(self) -> bool:
        """Whether it cannot say what is allowed: a bound of its own was reached."""
        ...

    def fork(self, undone: int) -> Matcher:
        """Another that stands where this one stood ``undone`` tokens ago."""
        ...


class Guide(Protocol):
    """Compiles constraints."""

    @property
    def end_ids(self) -> frozenset[int]:
        """The tokens that may come where a text is complete, and only there."""
        ...

    def begin(self, constraint: Constraint) -> Matcher:
        """The beginning of a text. Raises RequestError when the constraint cannot be used."""
        ...


@dataclass(frozen=True, slots=True)
class _Asked:
    """One mask: for the token behind ``tokens``, which a draw chooses, or a search when there is none."""

    sequence: int
    constraint: Constraint
    tokens: tuple[int, ...]
    draw: Draw | None


_Job = tuple[_Asked, list[Future[np.ndarray]], tuple[int, ...]]  # the mask, and those behind each of the guesses


@dataclass(slots=True, eq=False)
class _Line:
    """What is kept of one sequence."""

    constraint: Constraint
    matcher: Matcher
    tokens: tuple[int, ...]
    step: int


class Masks:
    """``guide`` None: there is no vocabulary to follow a constraint with, and every constrained sequence fails."""

    def __init__(self, guide: Guide | None, vocab_size: int) -> None:
        self._guide = guide
        self._vocab_size = vocab_size
        self._lines: dict[int, _Line] = {}  # by sequence; touched by the thread alone
        self._thread: ThreadPoolExecutor | None = None

    def begin(self, step: Step, chosen: Mapping[int, int]) -> dict[int, list[Future[np.ndarray]]]:
        """Start on the masks of a step; ``chosen`` maps a sequence to its pending token.

        For each work that asks for something under a constraint, by its place in the step: (vocab,) bool, or DeadEnd;
        one, and one more behind each guess.
        """
        promised: dict[int, list[Future[np.ndarray]]] = {}
        jobs = []
        for place, work in enumerate(step.works):
            asked = _asked(work, chosen)
            if asked is not None:
                promised[place] = [Future() for _ in range(1 + len(work.drafts))]
                jobs.append((asked, promised[place], work.drafts))
        if jobs:
            if self._thread is None:
                self._thread = ThreadPoolExecutor(1, "openwork-masks")
            self._thread.submit(self._run, step.number, jobs)
        return promised

    def close(self) -> None:
        if self._thread is not None:
            self._thread.shutdown(wait=False)

    # -- in the thread -------------------------------------------------------------------------------------------

    def _run(self, step: int, jobs: list[_Job]) -> None:
        for asked, futures, drafts in jobs:
            try:
                self._follow(step, asked, futures, drafts)
            except BaseException as error:  # handed to whoever waits; the jobs after this one must not hang
                if not futures[0].done():
                    self._lines.pop(asked.sequence, None)
                for future in futures:
                    if not future.done():
                        future.set_exception(error)
        for sequence in [key for key, line in self._lines.items() if line.step + KEPT_STEPS < step]:
            del self._lines[sequence]

    def _follow(self, step: int, asked: _Asked, futures: list[Future[np.ndarray]], drafts: tuple[int, ...]) -> None:
        allowed = self._allowed(step, asked)
        futures[0].set_result(allowed)
        for draft, future in zip(drafts, futures[1:], strict=True):
            if not allowed[draft]:
                raise DeadEnd("the guess before is not allowed")  # nor will it be chosen: nobody asks what follows
            assert asked.draw is not None, "a search guesses nothing"
            asked = replace(asked, tokens=(*asked.tokens, draft), draw=asked.draw.after((draft,)))
            allowed = self._allowed(step, asked)
            future.set_result(allowed)

    def _allowed(self, step: int, asked: _Asked) -> np.ndarray:
        line = self._line(asked.sequence, asked.constraint, asked.tokens)
        if not line.matcher.take(asked.tokens[len(line.tokens) :]):
            raise DeadEnd("the tokens so far do not satisfy the constraint")
        line.tokens, line.step = asked.tokens, step
        self._lines[asked.sequence] = line
        allowed = np.zeros(self._vocab_size, np.bool_)
        mask = line.matcher.mask()
        if mask is None:
            if asked.draw is None and not line.matcher.gave_up:
                return allowed  # a search goes on elsewhere
            raise DeadEnd("the constraint leaves no token to go on with")
        bits = np.frombuffer(mask, np.uint8)
        found = np.unpackbits(bits, bitorder="little", count=min(self._vocab_size, 8 * len(bits)))
        allowed[: len(found)] = found
        return allowed if asked.draw is None else self._going_on(allowed, asked.draw)

    def _line(self, sequence: int, constraint: Constraint, tokens: tuple[int, ...]) -> _Line:
        """This sequence's own state if it fits, else that of a relative from which it forked, else the beginning."""
        own = self._lines.get(sequence)
        if own is not None and own.constraint == constraint and own.tokens == tokens[: len(own.tokens)]:
            return own
        if self._guide is None:
            raise DeadEnd("this model has no tokenizer, so no constraint can be followed")
        relatives = [line for line in self._lines.values() if line.constraint == constraint]
        shared = [_num_common(line.tokens, tokens) for line in relatives]
        common = max(shared, default=0)
        if common:
            relative = relatives[shared.index(common)]
            return _Line(constraint, relative.matcher.fork(len(relative.tokens) - common), tokens[:common], 0)
        try:
            return _Line(constraint, self._guide.begin(constraint), (), 0)
        except RequestError as error:
            raise DeadEnd(error.message) from error

    def _going_on(self, allowed: np.ndarray, draw: Draw) -> np.ndarray:
        """Without the tokens that would end the text too early, unless nothing else is allowed."""
        assert self._guide is not None
        early: frozenset[int] = self._guide.end_ids if draw.params.ignore_eos else frozenset()
        if draw.generated < draw.params.min_tokens:
            early = self._guide.end_ids | draw.stop_ids
        if not early:
            return allowed
        others = allowed.copy()
        others[list(early)] = False
        return others if others.any() else allowed


def _asked(work: Work, chosen: Mapping[int, int]) -> _Asked | None:
    """The mask that a work needs, if it needs one."""
    if work.expand is not None and work.expand.constraint is not None:
        return _Asked(work.sequence, work.expand.constraint, work.expand.output, None)
    draw = work.draws[0] if work.draws else None  # the others differ in their noise alone
    if draw is None or draw.params.constraint is None:
        return None
    tokens = (*draw.output, chosen[work.sequence]) if work.is_pending else draw.output
    return _Asked(work.sequence, draw.params.constraint, tokens, draw)


def _num_common(one: tuple[int, ...], other: tuple[int, ...]) -> int:
    """How many tokens two lines begin with together."""
    if one == other[: len(one)]:  # the usual case, in one comparison
        return len(one)
    return next(i for i, (a, b) in enumerate(zip((*one, None), (*other, None), strict=False)) if a != b)
