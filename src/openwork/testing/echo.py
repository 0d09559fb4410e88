"""EchoRunner: a runner with no model. It answers each draw by a rule, and checks that the step is possible.

The rule is a function of the tokens at and before the drawn position, so whatever the schedule (chunks, preemption,
other requests), the answer must be the same: a test that finds it different has found a fault in the schedule. It
keeps a shadow of the cache, one token a slot, and reads its input back from it, so a wrong block table, a missing copy
or a slot read before it was written is an error and not a lucky guess. A work that is told to go bad, and a step that
is told to fail, leave poison in the slots they should have written; whoever reads poison fails. VirtualClock is time
that passes when told to.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Sequence
from zlib import crc32

from openwork.core.output import Logprob
from openwork.core.settings import CacheSettings
from openwork.core.step import Candidates, Choice, Expand, Outcome, Result, Step, Work

Rule = Callable[[Sequence[int], int], int]  # (tokens so far, sequence index) -> next token
Likelihood = Callable[[Sequence[int]], Sequence[float]]  # tokens so far -> the log-probability of each next token
POISON = -2  # in a slot: what was written there is not a number


def successor(vocab_size: int) -> Rule:
    """The next token is a hash of all before it: any slip shows."""

    def rule(tokens: Sequence[int], index: int) -> int:
        return crc32(array("q", tokens).tobytes(), index + 1) % vocab_size

    return rule


def hashed(vocab_size: int, seed: int = 0, spread: float = 4.0) -> Likelihood:
    """A distribution that is a hash of all tokens before it, with logits from 0 to ``spread``."""

    def likelihood(tokens: Sequence[int]) -> Sequence[float]:
        state = crc32(array("q", tokens).tobytes(), seed)
        logits = [crc32(bytes((token & 255, token >> 8)), state) / 2**32 * spread for token in range(vocab_size)]
        mass = math.log(math.fsum(math.exp(each) for each in logits))
        return [each - mass for each in logits]

    return likelihood


def candidates(logprobs: Sequence[float], expand: Expand) -> Candidates:
    """What a distribution answers."""
    order = sorted(range(len(logprobs)), key=lambda token: (-logprobs[token], token)) if expand.top else []
    top = [(token, logprobs[token]) for token in order if token not in expand.without]
    return Candidates(tuple(top[: expand.top]), tuple(logprobs[token] for token in expand.among))


class VirtualClock:
    """Seconds that pass only when somebody waits, or ``advance`` is called."""

    def __init__(self) -> None:
        self._now = 0.0

    def now(self) -> float:
        return self._now

    def wait(self, until: float) -> None:
        self._now = max(self._now, until)

    def advance(self, seconds: float) -> None:
        self._now += seconds


class EchoRunner:
    """Runs a step when it is collected.

    step_s      seconds that pass on ``clock`` for each step, or a function that says how many
    fails       makes chosen steps fail as a whole
    poisons     makes the numbers of chosen works go bad: that work fails, the others of its step do not
    is_late     bad numbers are noticed only where something is drawn or scored
    likelihood  answers searches, and scores, as the rule answers draws
    """

    def __init__(
        self,
        cache: CacheSettings,
        rule: Rule,
        clock: VirtualClock | None = None,
        step_s: float | Callable[[Step], float] = 0.001,
        fails: Callable[[Step], bool] = lambda step: False,
        poisons: Callable[[Step, Work], bool] = lambda step, work: False,
        is_late: bool = False,
        likelihood: Likelihood | None = None,
    ) -> None:
        self.steps: list[Step] = []
        self.in_flight = 0
        self._rule = rule
        self._likelihood = likelihood
        self._clock = clock
        self._step_s = step_s
        self._fails = fails
        self._poisons = poisons
        self._is_late = is_late
        self._block_size = cache.block_size
        self._slots: list[int | None] = [None] * cache.capacity
        self._chosen: dict[int, int] = {}

    def submit(self, step: Step) -> Step:
        self.steps.append(step)
        self.in_flight += 1
        assert self.in_flight <= 2, "more than one step in flight behind the one being collected"
        return step

    def collect(self, ticket: Step) -> Result:
        self.in_flight -= 1
        elapsed = self._step_s(ticket) if callable(self._step_s) else self._step_s
        if self._clock is not None:
            self._clock.advance(elapsed)
        if self._fails(ticket):
            self._fail(ticket)
        for copy in ticket.copies:
            source, target = copy.source * self._block_size, copy.target * self._block_size
            self._slots[target : target + self._block_size] = self._slots[source : source + self._block_size]
        outcomes = tuple(self._outcome(ticket, work) for work in ticket.works)
        self._chosen = {
            work.sequence: outcome.choices[0].token
            for work, outcome in zip(ticket.works, outcomes, strict=True)
            if outcome.choices and not work.drafts
        }
        return Result(ticket.number, outcomes, elapsed)

    def _fail(self, step: Step) -> None:
        for copy in step.copies:
            first = copy.target * self._block_size
            self._slots[first : first + self._block_size] = [POISON] * self._block_size
        for work in step.works:
            for position in range(work.start, work.start + work.count):
                self._slots[self._slot(work, position)] = POISON
        self._chosen = {}
        raise RuntimeError("this step was told to fail")

    def close(self, wait: bool = True) -> None:
        assert self.in_flight == 0, "closed with a step in flight"

    def _outcome(self, step: Step, work: Work) -> Outcome:
        inputs: list[int] = list(work.tokens)
        if work.is_pending:  # nothing was chosen when the step before failed
            inputs.append(self._chosen.get(work.sequence, POISON))
        inputs += work.drafts
        if self._poisons(step, work):
            inputs = [POISON] * len(inputs)
        for position, token in enumerate(inputs, start=work.start):
            self._slots[self._slot(work, position)] = token
        read = self._read(work)
        assert None not in read, "a slot was read before it was written"
        guessed = [token for token in read if token is not None]
        tokens = guessed[: work.start + work.num_sure]
        if POISON in tokens:
            for position in range(work.start, work.start + work.count):
                self._slots[self._slot(work, position)] = POISON
            is_seen = work.asks or work.score is not None or not self._is_late
            return Outcome(failure="the numbers went bad") if is_seen else Outcome()
        for draw in work.draws:
            if draw.params.constraint is not None:  # whose masks are a function of these tokens
                output = (*draw.output, tokens[-1]) if work.is_pending else draw.output
                assert output == tuple(tokens[draw.prompt_len :]), "the tokens of a constrained draw are not its own"
        if work.expand is not None and work.expand.constraint is not None:
            assert tokens[len(tokens) - len(work.expand.output) :] == [*work.expand.output], "not the line's own tokens"
        choices = tuple(Choice(self._rule(tokens, draw.index)) for draw in work.draws)
        if work.drafts:
            assert len(work.draws) == 1 and not work.is_pending, "nothing is guessed for a line that may split"
            choices = self._verified(work, guessed)
        if self._likelihood is None:
            scored = () if work.score is None else work.score.targets
            return Outcome(choices, tuple(Logprob(target, -float(target), 1) for target in scored))
        found = None if work.expand is None else candidates(self._likelihood(tokens), work.expand)
        return Outcome(choices, self._scores(work, tokens, self._likelihood), candidates=found)

    def _verified(self, work: Work, tokens: list[int]) -> tuple[Choice, ...]:
        """A choice from the last sure row, and from each row of a guess as long as the guesses are right."""
        choices: list[Choice] = []
        for end in range(work.start + work.num_sure, len(tokens) + 1):
            if choices and choices[-1].token != tokens[end - 1]:
                break
            choices.append(Choice(self._rule(tokens[:end], work.draws[0].index)))
        return tuple(choices)

    @staticmethod
    def _scores(work: Work, tokens: list[int], likelihood: Likelihood) -> tuple[Logprob, ...]:
        if work.score is None:
            return ()
        first = work.start + work.score.first + 1
        targets = enumerate(work.score.targets, start=first)
        return tuple(Logprob(target, likelihood(tokens[:place])[target], 1) for place, target in targets)

    def _read(self, work: Work) -> list[int | None]:
        """The slots of every position up to the work's last."""
        size, read = self._block_size, list[int | None]()
        for block in work.blocks:
            read += self._slots[block * size : (block + 1) * size]
        return read[: work.start + work.count]

    def _slot(self, work: Work, position: int) -> int:
        return work.blocks[position // self._block_size] * self._block_size + position % self._block_size
