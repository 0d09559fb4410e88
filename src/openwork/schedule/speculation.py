"""Speculation: how many tokens to guess in a step, and whether the next step should wait for what this one brings.

Guessed rows are verified in the step that computes them, so what they cost is a little of its time, and one thing more:
how many tokens come back is not known before, so the step after it cannot be planned while it runs. Both are measured.
A step gets as many guesses, the likeliest first, as bring the most tokens in a second; often that is none, and then
everything is as without speculation. What was lost to guesses in vain is counted too: while it is more than a small
part of the time, only what promises much is tried.

It guarantees that a guess takes no row, block or place that anybody else could use now, and evicts or preempts nobody
who runs. It decides what is tried and never what is chosen: tokens are the same whatever it does.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping

from openwork.core.sequence import Sequence
from openwork.core.settings import SpeculationSettings
from openwork.core.step import Copy, Result, Step, Work
from openwork.decode.ngram import Ngram, Proposer
from openwork.kv.cache import KVCache
from openwork.schedule.budget import StepBudget
from openwork.schedule.draft import Draft
from openwork.schedule.pace import Pace
from openwork.schedule.roster import Roster

_LEAST_GAIN = 1.02  # times as many tokens a second: less is within what measuring is wrong by
_SURE_GAIN = 1.3  # the same while more was lost than may be

_RISKED = 0.01  # of the time of all steps that may be lost to guesses
_CREDIT = 4  # steps' worth of what was won or lost that is remembered

MakeProposer = Callable[[Sequence], Proposer]
_Candidate = tuple[float, int, float]  # a guess: its odds, the place of its work, and the seconds that it takes


class Speculation:
    """``make_proposer`` is called once for each sequence that may be guessed for; None: as the settings say."""

    def __init__(
        self,
        settings: SpeculationSettings,
        cache: KVCache,
        roster: Roster,
        budget: StepBudget,
        make_proposer: MakeProposer | None = None,
    ) -> None:
        self._most = settings.max_draft
        self._is_computed = settings.draft_model is not None  # guesses are: only while no step is under way
        self._cache = cache
        self._roster = roster
        self._budget = budget
        self._make_proposer = make_proposer or (lambda sequence: Ngram(sequence.prompt_len))
        self._pace = Pace()
        self._has_waited = False
        self._after_wait: int | None = None  # the number of a step that was planned with none in flight
        self._committed_at = 0.0
        self._credit_s = 0.0  # won less lost, and what may be risked
        self._guessing_s = 0.0  # what the guesses of the step that waited took, by what they usually take

    # -- what steps take -----------------------------------------------------------------------------------------

    def learn(self, step: Step, result: Result, now: float) -> None:
        """A step has come back."""
        is_alone = all(work.num_sure == 1 for work in step.works)
        if is_alone:
            self._pace.learn(step.num_rows, result.elapsed_s)
        has_waited = step.number == self._after_wait
        if has_waited and result.elapsed_s > 0:
            self._pace.learn_gap(now - self._committed_at - result.elapsed_s - self._guessing_s)
        self._committed_at = now
        if is_alone and self._pace.is_known:
            self._settle(step, result, has_waited)

    def _settle(self, step: Step, result: Result, has_waited: bool) -> None:
        """Count what a step has won or lost against one without guesses, by what such steps usually take."""
        num_sure = len(step.works)
        plain_s = self._pace.seconds(num_sure, num_sure)[0]
        won = _RISKED * plain_s - (self._pace.gap_s + self._guessing_s if has_waited else 0.0)
        if step.num_rows > num_sure:
            right = sum(max(0, len(each.choices) - 1) for each in result.outcomes)
            won += (1 + right / num_sure) * plain_s - self._pace.seconds(step.num_rows, step.num_rows)[0]
        self._credit_s = max(-_CREDIT * plain_s, min(_CREDIT * plain_s, self._credit_s + won))

    # -- before a step -------------------------------------------------------------------------------------------

    def waits(self) -> bool:
        """Whether to plan nothing until the step in flight has come back.

        Either it holds guesses, or what it brings lets a guess be made that is worth waiting for.
        """
        running = self._roster.running
        waits = any(sequence.drafted for sequence in running)
        if not waits:
            found = [each for sequence in running if sequence.pending for each in self._after_pending(sequence)]
            found.sort(reverse=True)
            seconds = self._pace.seconds(len(running), len(running) + len(found)) if found else []
            waits = bool(found) and self._best(len(running), found, seconds) > 0
        self._has_waited = self._has_waited or waits
        return waits

    def _after_pending(self, sequence: Sequence) -> list[_Candidate]:
        """The guesses that could be made once the pending token is there, if it is the one that is expected."""
        most = min(self._most, self._useful(sequence) - 1)
        if most < 1 or sequence.strategy.may_fork:
            return []
        proposer = self._proposer(sequence)
        return [(odd, 0, proposer.guess_s) for odd in proposer.odds(most + 1)[1:]]

    # -- while it is filled --------------------------------------------------------------------------------------

    def fill(self, draft: Draft) -> None:
        """Add guesses to the works of a step that is full otherwise."""
        self._after_wait = draft.number if self._has_waited else None
        self._has_waited, self._guessing_s = False, 0.0
        is_free = not self._is_computed or self._after_wait is not None
        candidates: list[_Candidate] = []
        num_tokens = num_rows = 0
        for place, work in enumerate(draft.works):
            sequence = self._roster.sequences[work.sequence]
            num_tokens += work.asks
            num_rows += work.num_sure
            if sequence.strategy.expand is None and sequence.request.max_tokens > 1:
                proposer = self._proposer(sequence)  # it learns a long prompt while that is computed
                if is_free and work.draws and not work.is_pending and not sequence.strategy.may_fork:
                    most = min(self._most, self._useful(sequence), self._room(sequence))
                    candidates += [(odd, place, proposer.guess_s) for odd in proposer.odds(most)]
        if not candidates or draft.rows < 1:
            return
        candidates.sort(key=lambda each: -each[0])
        candidates = candidates[: draft.rows]
        seconds = self._seconds(draft.works, num_rows, num_rows + len(candidates))
        best = self._best(num_tokens, candidates, seconds)
        self._extend(draft, Counter(place for _, place, _ in candidates[:best]))

    def _extend(self, draft: Draft, place_to_count: Mapping[int, int]) -> None:
        """Give works so many guesses. All proposers hear of it before the first is asked."""
        grown: list[tuple[int, Sequence, int, tuple[Copy, ...]]] = []
        for place, wanted in place_to_count.items():
            sequence = self._roster.sequences[draft.works[place].sequence]
            count = min(wanted, self._room(sequence))  # others may have taken some of it
            if count:
                copies: tuple[Copy, ...] | None = self._cache.grow(sequence, sequence.computed + count)
                assert copies is not None, "there was room for it"
                sequence.proposer.prepare(count)
                grown.append((place, sequence, count, copies))
        for place, sequence, count, copies in grown:
            drafts = sequence.proposer.propose(count)
            self._guessing_s += len(drafts) * sequence.proposer.guess_s
            draft.extend(place, sequence, drafts, copies, self._cache.blocks_for(sequence.computed + count))

    def _seconds(self, works: list[Work], first: int, last: int) -> list[float]:
        if all(work.num_sure == 1 for work in works):
            return self._pace.seconds(first, last)
        base, slope = self._budget.line()
        if not slope:
            return self._pace.seconds(first, last)
        return [base + slope * rows for rows in range(first, last + 1)]

    def _best(self, num_tokens: int, candidates: list[_Candidate], seconds: list[float]) -> int:
        """How many guesses bring the most tokens a second. Odds fall; ``seconds`` are of steps with 0, 1 .. of them."""
        best, tokens, guessing_s = 0, float(num_tokens), self._pace.gap_s
        most = (_LEAST_GAIN if self._credit_s >= 0 else _SURE_GAIN) * num_tokens / seconds[0]
        for count, ((odd, _, guess_s), step_s) in enumerate(zip(candidates, seconds[1:], strict=True), start=1):
            tokens += odd
            guessing_s += guess_s
            rate = tokens / (step_s + guessing_s)
            if rate > most:
                best, most = count, rate
        return best

    # -- a sequence ----------------------------------------------------------------------------------------------

    def _proposer(self, sequence: Sequence) -> Proposer:
        if sequence.proposer is None:
            sequence.proposer = self._make_proposer(sequence)
        proposer: Proposer = sequence.proposer
        proposer.follow(sequence.tokens, min(sequence.known, sequence.computed))
        return proposer

    @staticmethod
    def _useful(sequence: Sequence) -> int:
        """Guesses behind which there is still a token to choose."""
        return max(0, sequence.request.max_tokens - sequence.generated - sequence.pending)

    def _room(self, sequence: Sequence) -> int:
        """Positions behind those computed for which there are blocks, one for each running sequence left alone."""
        own = len(sequence.blocks) * self._cache.block_size - sequence.computed
        spare = self._cache.room(sequence.tenant) - len(self._roster.running)
        return own + max(0, spare) * self._cache.block_size
