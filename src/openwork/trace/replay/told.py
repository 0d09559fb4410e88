"""Told: what a replay is told to decide, where a recording without tokens does not say what that follows from.

Stand-ins are the same where whole lines were, and nowhere else. What looks at tokens in different places is told:

    guesses      how many each step had; a step that was not planned because a guess was worth waiting for is waited for
    loops        that a token ended its line by repetition, from the events of the result
    searches     what those do next that compare tokens, from lines of their own; of all, what they found, from events

All else is decided again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from collections.abc import Sequence as Line
from dataclasses import dataclass, field

from openwork.core.event import Ended, Event, Finished, Token
from openwork.core.output import FinishReason, Found, SearchReport
from openwork.core.request import Request
from openwork.core.sequence import Sequence
from openwork.core.step import Choice, Step
from openwork.decode.sampling import Sampling
from openwork.decode.search import Strategies, strategy_of
from openwork.decode.strategy import Answer, Continue, Generation, Leaf, SearchStrategy, Spent, Stop, Strategy
from openwork.trace.entry import Decided

SURE = 1e9  # odds that no cost outweighs


@dataclass(slots=True)
class _End:
    """Of one sequence that a search gives out."""

    tokens: list[int] = field(default_factory=list)
    reason: FinishReason = "length"
    stop_id: int | None = None


class Told:
    """What the next call of ``plan`` or ``commit`` is to come to."""

    def __init__(self) -> None:
        self.drafts: dict[int, tuple[int, ...]] = {}  # by id of a sequence
        self.is_waiting = False
        self.loops: set[tuple[int, int, int]] = set()  # (request, index, position) of the tokens that end by repetition
        self.decided: dict[int, Decided] = {}  # by request
        self.found: dict[int, dict[int, _End]] = {}  # of searches that conclude: what is given out now, by index
        self.so_far: dict[int, tuple[int, ...]] = {}  # of searches that another engine had begun: what it gave out

    def submit(self, number: int, so_far: Mapping[int, tuple[int, ...]] | None) -> None:
        if so_far:
            self.so_far[number] = so_far.get(0, ())

    def plan(self, step: Step) -> None:
        """A step with these guesses."""
        self.drafts = {work.sequence: work.drafts for work in step.works if work.drafts}
        self.is_waiting = False

    def wait(self, for_guess: bool) -> None:
        """None, for now."""
        self.drafts, self.is_waiting = {}, for_guess

    def decide(self, decided: Decided) -> None:
        """A search will do so when the next result has come."""
        self.decided[decided.number] = decided

    def land(self, events: Iterable[Event]) -> None:
        """A result that led to these."""
        self.loops, self.found = set(), {}
        said: dict[int, dict[int, _End]] = {}
        last: dict[tuple[int, int], int] = {}
        for event in events:
            match event:
                case Token(request=number, index=index):
                    last[number, index] = event.position
                    said.setdefault(number, {}).setdefault(index, _End()).tokens.append(event.choice.token)
                case Finished(request=number, index=index):
                    if event.reason == "repetition":
                        self.loops.add((number, index, last[number, index]))
                    end = said.setdefault(number, {}).setdefault(index, _End())
                    end.reason, end.stop_id = event.reason, event.stop_id
                case Ended(request=number):
                    self.found[number] = said.get(number, {})

    def proposer(self, sequence: Sequence) -> _Proposer:
        return _Proposer(sequence.id, self)


class _Proposer:
    guess_s = 0.0

    def __init__(self, sequence_id: int, told: Told) -> None:
        self._id = sequence_id
        self._told = told

    def follow(self, tokens: Line[int], known: int) -> None:
        """There is nothing to learn from tokens."""

    def odds(self, most: int) -> list[float]:
        count = most if self._told.is_waiting else len(self._told.drafts.get(self._id, ()))
        return [SURE] * min(most, count)

    def prepare(self, num: int) -> None:
        pass

    def propose(self, num: int) -> tuple[int, ...]:
        return self._told.drafts[self._id][:num]


class ToldStrategies(Strategies):
    def __init__(self, told: Told) -> None:
        self._told = told

    def drawing(self, fan: int) -> Strategy:
        return _Drawing(self._told, fan)

    def searching(self, number: int, request: Request) -> SearchStrategy:
        return _Searching(self._told, number, strategy_of(request))

    def going_on(
        self, number: int, request: Request, search: SearchStrategy, given: Line[int], num_agreed: int
    ) -> SearchStrategy:
        assert request.search is not None
        return _Searching(self._told, number, search).going_on(given, num_agreed, request.search.compares_tokens)


class _Drawing(Sampling):
    def __init__(self, told: Told, fan: int = 1) -> None:
        super().__init__(fan)
        self._told = told

    def alone(self) -> Sampling:
        return _Drawing(self._told)

    def judge(self, sequence: Sequence, index: int, choice: Choice) -> Continue | Stop:
        if (sequence.request_id, index, sequence.known) in self._told.loops:
            return Stop(choice, "repetition")
        return super().judge(sequence, index, choice)


class _Searching:
    """Does what it is told, and else what its search does."""

    def __init__(self, told: Told, number: int, search: SearchStrategy) -> None:
        self._told = told
        self._number = number
        self._search = search
        self._worths: dict[int, int] | None = None  # by node; None: nobody said
        self._given = list(told.so_far.pop(number, ()))  # tokens that were given out before or by an engine before
        self._num_agreed = 0
        self._is_told = False  # what it does: then it is what was said, or its end

    def going_on(self, given: Line[int], num_agreed: int, is_told: bool) -> _Searching:
        """It is under way."""
        self._given, self._num_agreed, self._is_told = list(given), num_agreed, is_told
        return self

    def leaf(self, node: int) -> Leaf:
        return self._search.leaf(node)

    def begin(self) -> Generation:
        return self._search.begin()

    def decide(self, answers: Mapping[int, Answer], spent: Spent) -> Generation | SearchReport:
        told = self._told.decided.pop(self._number, None)
        if told is not None:
            self._worths, self._is_told = dict(told.worths), True
            return self._agreed(told.generation)
        if not self._is_told:
            decision = self._search.decide(answers, spent)
            if isinstance(decision, Generation):
                return self._agreed(decision)
        return self._report()

    def worth(self, node: int) -> float | None:
        return self._search.worth(node) if self._worths is None else self._worths.get(node)

    def _agreed(self, generation: Generation) -> Generation:
        """Note what it will have given out then."""
        self._num_agreed += len(generation.agreed)
        self._given += generation.agreed[len(generation.agreed) - max(0, self._num_agreed - len(self._given)) :]
        return generation

    def _report(self) -> SearchReport:
        """What it found, as far as a scheduler looks at it."""
        ends = self._told.found.get(self._number, {})
        found: list[Found] = []
        for index, end in sorted(ends.items()):
            tokens = (*(self._given if not index else ()), *end.tokens)
            if tokens:
                found.append(Found(tokens, 0.0, 0.0, (), end.reason, end.stop_id))
        return SearchReport(tuple(found), False, None, None, 0, 0, "complete")
