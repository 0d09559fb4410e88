"""Beam search: in every step the best lines go on, until enough of them have finished. It proves nothing.

Scores and stopping are those of `transformers`: a finished line counts by log Pr(y) / |y| ** length_penalty, its end
token counted; only candidates among the best ``width`` of a step may finish; at max_tokens every line is finished.
Under a constraint a line that is cut there counts less than any that is complete. Diverse groups (Vijayakumar et al.
2018) choose in turn: what the groups before took in this step is worth less, for the choice of lines, not for the score
of what has finished.

The tokens that all lines agree on, those that go on and those that have finished, are certain and told at once.
"""

from __future__ import annotations

import math
from bisect import insort
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from openwork.core.output import Found, SearchReport
from openwork.core.request import Request
from openwork.core.step import Expand
from openwork.decode.strategy import Answer, Generation, Leaf, Spent


@dataclass(frozen=True, slots=True)
class _Line:
    """``value`` is what lines are chosen by: the log-probability less what was taken for want of diversity."""

    node: int
    parent: int | None
    tokens: tuple[int, ...] = ()
    logprobs: tuple[float, ...] = ()
    logprob: float = 0.0
    value: float = 0.0


class _Group:
    """Beams that compete with one another."""

    def __init__(self, root: _Line) -> None:
        self.running: list[_Line] = [root]
        # (whether it is cut short of being complete, -score, when it finished, itself), best first
        self.finished: list[tuple[bool, float, int, Found]] = []
        self.is_done = False


class BeamSearch:
    """SearchStrategy whose leaves are the running lines of all groups."""

    def __init__(self, request: Request) -> None:
        assert request.search is not None and request.search.beam is not None
        self._request = request
        self._how = request.search.beam
        self._size = self._how.width // self._how.groups
        self._enough = math.ceil(self._how.patience * self._size)
        # So many that a full group of lines goes on even if the likeliest continuations all end.
        self._ranked = max(2, 1 + len(request.stop_ids)) * self._size
        self._groups = [_Group(_Line(0, None)) for _ in range(self._how.groups)]
        self._num_nodes, self._num_finished, self._num_agreed = 1, 0, 0
        self._looked = self._generations = 0

    def begin(self) -> Generation:
        return Generation((self.leaf(0),))

    def decide(self, answers: Mapping[int, Answer], spent: Spent) -> Generation | SearchReport:
        self._generations += 1
        self._looked += len(answers)
        taken = Counter[int]()  # tokens of the groups before in this step
        for group in self._groups:
            if not group.is_done:
                taken.update(self._step(group, answers, taken))
        lines = [line for group in self._groups if not group.is_done for line in group.running]
        if not lines:
            return self._report("complete")
        used_up = self._how.budget.used_up(self._looked, self._num_finished, spent.tokens, spent.seconds)
        if used_up is not None:
            return self._report(used_up)
        return Generation(tuple(map(self._leaf, lines)), self._agreed(lines))

    def leaf(self, node: int) -> Leaf:
        return next(self._leaf(line) for group in self._groups for line in group.running if line.node == node)

    def worth(self, node: int) -> float | None:
        return None

    def _leaf(self, line: _Line) -> Leaf:
        fresh = 0 if line.parent is None else 1
        return Leaf(line.node, line.tokens, self._expand(line.tokens), fresh, line.parent)

    def _expand(self, line: tuple[int, ...]) -> Expand:
        without = self._request.end_ids if len(line) < self._request.params.min_tokens else frozenset[int]()
        # What other groups have taken may fall behind: there must be as many to take its place.
        spare = self._how.width if self._how.groups > 1 else 0
        form = self._request.params.constraint
        return Expand(self._ranked + spare, (), without, form, () if form is None else line)

    # -- one group, one step -------------------------------------------------------------------------------------

    def _step(self, group: _Group, answers: Mapping[int, Answer], taken: Counter[int]) -> list[int]:
        """Let a group's lines go on or finish; the tokens they took."""
        length = len(group.running[0].tokens) + 1
        running: list[_Line] = []
        last: list[int] = []
        for rank, (line, token, own, value) in enumerate(self._candidates(group, answers, taken)):
            tokens, logprobs, logprob = (*line.tokens, token), (*line.logprobs, own), line.logprob + own
            if token in self._request.end_ids or length >= self._request.max_tokens:
                if rank < self._size:
                    self._finish(group, token, tokens, logprobs, logprob)
                    last.append(token)
            elif len(running) < self._size:
                running.append(_Line(self._num_nodes, line.node, tokens, logprobs, logprob, value))
                self._num_nodes += 1
        group.running = running
        group.is_done = not running or self._is_over(group, length)
        return [*last, *(line.tokens[-1] for line in running)]

    def _candidates(
        self, group: _Group, answers: Mapping[int, Answer], taken: Counter[int]
    ) -> list[tuple[_Line, int, float, float]]:
        """The best continuations of all lines of a group: (line, token, its log-probability, value)."""
        found = [
            (line, token, own, line.value + own - self._how.diversity * taken[token])
            for line in group.running
            for token, own in answers[line.node].candidates.top
            if own > -math.inf
        ]
        found.sort(key=lambda each: -each[3])  # of equals the better line's, then the likelier token
        return found[: self._ranked]

    def _finish(
        self, group: _Group, token: int | None, tokens: tuple[int, ...], logprobs: tuple[float, ...], logprob: float
    ) -> None:
        """Count a line as finished by ``token``; None: by a budget."""
        score = self._score(logprob, len(tokens))
        is_stop = token in self._request.end_ids
        found = Found(tokens, logprob, score, logprobs, "stop" if is_stop else "length", token if is_stop else None)
        is_cut = token is None or (not is_stop and self._request.params.constraint is not None)
        insort(group.finished, (is_cut, -score, self._num_finished, found), key=lambda each: each[:3])
        self._num_finished += 1
        del group.finished[self._enough :]

    def _score(self, logprob: float, length: int) -> float:
        return logprob / float(length**self._how.length_penalty)

    def _is_over(self, group: _Group, length: int) -> bool:
        """Whether enough have finished, and no running line can be better by the rule that was asked for."""
        if len(group.finished) < self._enough:
            return False
        if self._how.early_stopping is True:
            return True
        is_never = self._how.early_stopping == "never" and self._how.length_penalty > 0
        best = max(line.logprob for line in group.running)
        return self._score(best, self._request.max_tokens if is_never else length) <= -group.finished[-1][1]

    # -- what is certain, and the end ----------------------------------------------------------------------------

    def _agreed(self, running: list[_Line]) -> tuple[int, ...]:
        """Tokens that all lines have at the same place, beyond those that were told before."""
        lines = [line.tokens for line in running]
        lines += [found.token_ids for group in self._groups for *_, found in group.finished]
        first, last = min(lines), max(lines)  # what these two share, all between them share
        end = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(len(first), len(last)))
        agreed = first[self._num_agreed : end]
        self._num_agreed += len(agreed)
        return agreed

    def _report(self, ended_by: str) -> SearchReport:
        """What has finished, and where a budget ended the search, behind it what was still running."""
        for group in self._groups:
            for line in group.running if not group.is_done else ():
                self._finish(group, None, line.tokens, line.logprobs, line.logprob)
        finished = sorted((each for group in self._groups for each in group.finished), key=lambda each: each[:3])
        return SearchReport(
            found=tuple(found for *_, found in finished[: self._request.params.n]),
            proved=False,
            upper_bound=None,
            gap=None,
            nodes=self._looked,
            generations=self._generations,
            ended_by=ended_by,  # type: ignore[arg-type]
        )
