"""Sampling: one token a step for each of n sequences, greedy when the temperature is 0.

The n sequences of a request share one prefill: the last prompt row is drawn from n times, with the index of each
sequence in its noise counter, and the sequence forks into n that share its blocks. So sequence i of a request is the
same whether it is generated with its siblings or after a preemption, alone.
"""

from __future__ import annotations

from dataclasses import replace

from openwork.core.sequence import Sequence
from openwork.core.step import Choice, Draw, Expand
from openwork.decode.stop import judge
from openwork.decode.strategy import Branch, Continue, Decision, Fork, Stop


class Sampling:
    """Strategy of one sequence; ``fan`` is how many it becomes at its first token."""

    expand: Expand | None = None

    def __init__(self, fan: int = 1) -> None:
        self._fan = fan

    @property
    def may_fork(self) -> bool:
        return self._fan > 1

    def draws(self, sequence: Sequence) -> tuple[Draw, ...]:
        request = sequence.request
        params = request.params
        position = sequence.known + sequence.pending
        draw = Draw(
            params=params,
            index=sequence.index,
            position=position,
            generated=position - sequence.prompt_len,
            stop_ids=request.stop_ids,
            history=tuple(sequence.tokens) if params.has_penalties else (),
            prompt_len=sequence.prompt_len,
            output=() if params.constraint is None else tuple(sequence.tokens[sequence.prompt_len :]),
        )
        return (draw,) if self._fan == 1 else tuple(replace(draw, index=index) for index in range(self._fan))

    def feed(self, sequence: Sequence, choices: tuple[Choice, ...]) -> Decision:
        if self._fan == 1:
            return self.judge(sequence, sequence.index, choices[0])
        firsts = [self.judge(sequence, index, choice) for index, choice in enumerate(choices)]
        return Fork(tuple(Branch(index, self.alone(), first) for index, first in enumerate(firsts)))

    def alone(self) -> Sampling:
        """Strategy of one of those that it becomes."""
        return Sampling()

    def judge(self, sequence: Sequence, index: int, choice: Choice) -> Continue | Stop:
        """Of the sequence ``index`` that goes on from this one, or is it: whether the token ends it."""
        return judge(sequence.request, sequence.tokens, choice)
