"""Step: the work of one forward pass, as data. Result: what came back.

A Step says everything a runner needs and orders nothing twice: which blocks to copy first, then for each sequence which
positions to compute, into which blocks, and what to choose or score from the last rows. Works come back as Outcomes in
the same order. Steps are frozen, so they can be recorded, priced and replayed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from openwork.core.constraint import Constraint
from openwork.core.output import Failure, Logprob
from openwork.core.request import SamplingParams
from openwork.core.stamp import Stamp


@dataclass(frozen=True, slots=True)
class Copy:
    """Copy a whole block, all layers, before anything is computed: the write of a copy-on-write."""

    source: int
    target: int


@dataclass(frozen=True, slots=True)
class Draw:
    """Choose one token from the last row of a Work.

    ``history`` holds the tokens that penalties look at (the prompt first, then what was generated), and is empty when
    there are none; ``output`` holds what was generated, and is empty when no constraint has to follow it. A pending
    token is in neither: the runner, which chose it, adds it.
    """

    params: SamplingParams
    index: int  # of the sequence within its request: part of the noise counter
    position: int  # absolute position of the token that is chosen
    generated: int  # tokens generated before it, a pending one included
    stop_ids: frozenset[int]  # withheld until params.min_tokens
    history: tuple[int, ...] = ()
    prompt_len: int = 0
    output: tuple[int, ...] = ()

    def after(self, drafts: tuple[int, ...]) -> Draw:
        """The draw that follows when these tokens have been chosen."""
        return replace(
            self,
            position=self.position + len(drafts),
            generated=self.generated + len(drafts),
            history=(*self.history, *drafts) if self.params.has_penalties else (),
            output=self.output if self.params.constraint is None else (*self.output, *drafts),
        )


@dataclass(frozen=True, slots=True)
class Expand:
    """Give candidates for the token after the last row of a Work, with their log-probabilities; choose none.

    ``top`` of the likeliest, those in ``without`` left out, and beside them each token of ``among``. With a
    ``constraint`` only tokens that it allows behind ``output``, what was generated so far; where it allows none, none.
    """

    top: int = 0
    among: tuple[int, ...] = ()
    without: frozenset[int] = frozenset()
    constraint: Constraint | None = None
    output: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Score:
    """Give the log-probability of each target: target i is what really follows row ``first`` + i of the Work."""

    targets: tuple[int, ...]
    top: int  # how many most likely tokens to give beside each
    first: int = 0


@dataclass(frozen=True, slots=True)
class Work:
    """One run of rows of one sequence: positions start .. start + count - 1.

        positions   | start . . . . . . . . . | . . . . .  . | start + count
        inputs      | tokens . . . , pending  | drafts . . . |

    The token that was chosen for this sequence in the step before stands behind ``tokens`` if one is pending.
    ``drafts`` are guesses of the tokens that follow, never beside a pending one: the draw is made from the row before
    the first and, as long as what is chosen is what was guessed, from each row after it too. ``blocks`` covers every
    position below start + count.
    """

    sequence: int
    start: int
    tokens: tuple[int, ...]
    is_pending: bool
    blocks: tuple[int, ...]
    draws: tuple[Draw, ...] = ()
    score: Score | None = None
    expand: Expand | None = None
    drafts: tuple[int, ...] = ()

    @property
    def num_sure(self) -> int:
        """Rows whose inputs are no guesses."""
        return len(self.tokens) + self.is_pending

    @property
    def count(self) -> int:
        return len(self.tokens) + self.is_pending + len(self.drafts)

    @property
    def asks(self) -> bool:
        """Whether something is to be made of its last row that its strategy waits for."""
        return bool(self.draws) or self.expand is not None


@dataclass(frozen=True, slots=True)
class Why:
    """Why a step is what it is: the order it was filled in, how many rows it might have had, and who was left out."""

    order: str  # for example "first-come", or "fair priority, prefill first"
    rows: int
    bound: Literal["tokens", "latency"]  # what set the rows: the settings, or the time between tokens that is wanted
    left_out: tuple[tuple[int, str], ...] = ()  # (sequence, cause): running ones, and the waiting ones that were tried


@dataclass(frozen=True, slots=True)
class Step:
    """The work of one forward pass. ``number`` counts the steps of one engine from 0."""

    number: int
    works: tuple[Work, ...]
    copies: tuple[Copy, ...] = ()
    why: Why | None = None

    @property
    def num_rows(self) -> int:
        return sum(work.count for work in self.works)


@dataclass(frozen=True, slots=True)
class Choice:
    """A chosen token, with its log-probability when the request asked for it.

    ``row_hash`` is a hash, of 64 bits, of the row of logits it was chosen from, and ``stamp`` says by what way that row
    came about (core/stamp.py); None where nobody records, stamps of most rows too.
    """

    token: int
    logprob: Logprob | None = None
    row_hash: int | None = None
    stamp: Stamp | None = None


@dataclass(frozen=True, slots=True)
class Candidates:
    """Tokens that may follow, by the model's own distribution.

    ``top`` is (token, log-probability), likeliest first and the lowest id among equals; ``among`` are the
    log-probabilities of the tokens that were asked for, in their order.
    """

    top: tuple[tuple[int, float], ...] = ()
    among: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one Work: a choice per draw, a log-probability per target, candidates if they were asked for, or why
    this sequence alone failed.

    With drafts there is one draw, and a choice for each row that it was made from: all but the last were guessed right.
    ``row_hashes`` are of the rows that scored, in order, and of the row of the candidates; () where nobody records.
    """

    choices: tuple[Choice, ...] = ()
    scores: tuple[Logprob, ...] = ()
    failure: str | None = None
    candidates: Candidates | None = None
    failed: Failure = "numbers"  # what it was, when there is a failure
    row_hashes: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Result:
    """Outcomes in the order of the step's works, and the seconds the runner spent on it."""

    step: int
    outcomes: tuple[Outcome, ...]
    elapsed_s: float = 0.0
