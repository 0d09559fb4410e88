"""Choose: the likeliest of given options, and what is certain of each, by best-first search over their trie.

The events "the answer is this option" exclude one another, because each is followed by an end token, or because none is
the beginning of another (core/search.py). So the probability of reaching a place of the trie is at least that of all
options behind it together, which bounds the winner and every interval:

    Z  probability of the options that are known         U  of reaching the places that were not looked at
    known option p       p / (Z + U)  ..  p / Z
    behind a place m     0            ..  m / (m + Z)

They hold for the log-probabilities that the model gave, and are widened by more than float64 sums may be off. Of equal
options the first wins.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from openwork.core.output import Found, SearchReport, Share, Traced
from openwork.core.request import Request
from openwork.core.step import Expand
from openwork.decode.frontier import Frontier
from openwork.decode.strategy import Answer, Generation, Leaf, Spent
from openwork.decode.trie import Trie

_SLACK = 1e-9  # of a probability: far above what sums over 10^5 options lose, far below what anybody reads


@dataclass(frozen=True, slots=True)
class _Seen:
    """A node of the trie that was reached: the log-probability of the first token of its edge and all before it, and,
    token by token, of what is known of its edge."""

    first: float
    tokens: tuple[float, ...]


class Choosing:
    """SearchStrategy whose nodes are those of the trie."""

    def __init__(self, request: Request) -> None:
        assert request.search is not None and request.search.choose is not None
        self._how = request.search.choose
        self._most_traced = request.search.trace
        self._ends = tuple(sorted(request.stop_ids)) if self._how.end else ()
        self._trie = Trie(self._how.options)
        self._seen: dict[int, _Seen] = {0: _Seen(0.0, ())}
        self._frontier: Frontier[int] = Frontier()
        self._exact: dict[int, tuple[int, float, float]] = {}  # option -> (node, log-probability, that of its end)
        self._best: tuple[float, int] | None = None  # (log-probability, -option)
        self._nodes = self._generations = 0

    # -- deciding ------------------------------------------------------------------------------------------------

    def begin(self) -> Generation:
        return Generation((self.leaf(0),))

    def decide(self, answers: Mapping[int, Answer], spent: Spent) -> Generation | SearchReport:
        self._generations += 1
        for node in sorted(answers):  # the order in which they came must not matter
            self._look(node, answers[node])
        if not self._is_open():
            return self._report("proved")
        used_up = self._how.budget.used_up(self._nodes, len(self._exact), spent.tokens, spent.seconds)
        if used_up is not None:
            return self._report(used_up)
        leaves: list[Leaf] = []
        while len(leaves) < self._how.at_once and self._is_open():
            leaves.append(self.leaf(self._frontier.pop()))
        return Generation(tuple(leaves))

    def worth(self, node: int) -> float | None:
        bound = self._frontier.next_of(node)
        return bound if bound is not None and self._is_wanted(bound) else None

    def _is_open(self) -> bool:
        bound = self._frontier.best
        return bound is not None and self._is_wanted(bound)

    def _is_wanted(self, bound: float) -> bool:
        return self._how.score_all or self._best is None or bound >= self._best[0]

    def leaf(self, node: int) -> Leaf:
        it = self._trie.nodes[node]
        line = self._trie.line(node)
        if self._is_tip(node):  # its last token is what is asked for
            return Leaf(node, line[:-1], Expand(among=line[-1:]), len(it.edge) - 1, it.parent)
        among = (*self._trie.children(node), *(self._ends if it.option is not None else ()))
        return Leaf(node, line, Expand(among=among), len(it.edge), it.parent)

    def _is_tip(self, node: int) -> bool:
        """Whether an option is known with the last token of this edge."""
        return not self._ends and self._trie.nodes[node].option is not None  # which begins no other

    def _look(self, node: int, answer: Answer) -> None:
        """Take in the answer of a leaf: what its edge scores, and where it leads."""
        it, seen, among = self._trie.nodes[node], self._seen[node], answer.candidates.among
        self._nodes += max(1, len(it.edge) - self._is_tip(node))
        logprob = sum(answer.scores, start=seen.first)
        self._seen[node] = seen = _Seen(seen.first, seen.tokens + answer.scores)
        if self._is_tip(node):
            self._seen[node] = _Seen(seen.first, seen.tokens + among)
            self._finish(node, logprob + among[0], 0.0)
            return
        following = self._trie.children(node)
        if it.option is not None:
            end = _log_sum(among[len(following) :])
            self._finish(node, logprob + end, end)
        children: list[tuple[float, int]] = []
        for child, own in zip(following.values(), among, strict=False):
            self._seen[child] = _Seen(logprob + own, (own,))
            if self._is_tip(child) and len(self._trie.nodes[child].edge) == 1:
                self._finish(child, logprob + own, 0.0)
            else:
                children.append((logprob + own, child))
        children.sort(key=lambda each: -each[0])
        self._frontier.add(node, children)

    def _finish(self, node: int, logprob: float, end: float) -> None:
        option = self._trie.nodes[node].option
        assert option is not None
        self._exact[option] = node, logprob, end
        self._best = max(self._best or (-math.inf, -len(self._how.options)), (logprob, -option))

    # -- what is certain -----------------------------------------------------------------------------------------

    def _report(self, ended_by: str) -> SearchReport:
        bounds = [bound for bound, _ in self._frontier]
        upper = max([*bounds, *([self._best[0]] if self._best is not None else [])])
        winner = None if self._best is None else -self._best[1]
        return SearchReport(
            found=() if winner is None else (self._found(winner),),
            proved=ended_by == "proved",
            upper_bound=upper if ended_by != "proved" or self._best is None else self._best[0],
            gap=None if self._best is None else 0.0 if ended_by == "proved" else upper - self._best[0],
            nodes=self._nodes,
            generations=self._generations,
            ended_by=ended_by,  # type: ignore[arg-type]
            shares=self._shares(upper),
            winner=winner,
            num_nodes=1 + self._trie.num_tokens() - (0 if self._ends else len(self._how.options)),
            trace=self._trace(),
        )

    def _found(self, option: int) -> Found:
        node, logprob, end = self._exact[option]
        path, at = list[float](), node
        while (parent := self._trie.nodes[at].parent) is not None:
            path[:0] = self._seen[at].tokens
            at = parent
        return Found(self._how.options[option], logprob, logprob, (*path, *((end,) if self._ends else ())), "stop")

    def _shares(self, upper: float) -> tuple[Share, ...]:
        """An interval for each option. All probabilities are taken relative to the highest, so that none is lost."""
        top = upper if upper > -math.inf else 0.0
        known = {option: math.exp(logprob - top) for option, (_, logprob, _) in self._exact.items()}
        total = math.fsum(known.values())
        unknown = math.fsum(math.exp(bound - top) for bound, _ in self._frontier)
        slack = _SLACK if unknown else 0.0
        shares: dict[int, Share] = {}
        for option, mass in known.items():
            low = mass / (total + unknown) * (1 - slack) if mass else 0.0
            high = min(1.0, mass / total * (1 + slack)) if mass else 0.0
            logprob = self._exact[option][1]
            shares[option] = Share(logprob, logprob, low, high)
        for bound, child in self._frontier:
            mass = math.exp(bound - top)
            high = min(1.0, mass / (mass + total) * (1 + slack)) if mass else 0.0
            shares.update((option, Share(None, bound, 0.0, high)) for option in self._trie.behind(child))
        return tuple(shares[option] for option in range(len(self._how.options)))

    def _trace(self) -> tuple[Traced, ...]:
        """The tree as far as it was seen, parents first, the likeliest children first."""
        traced: list[Traced] = []
        opened = {child for _, child in self._frontier}
        jobs: list[tuple[int, int | None]] = [(0, None)]
        for node, parent in jobs:
            if len(traced) >= self._most_traced:
                break
            it, seen = self._trie.nodes[node], self._seen[node]
            place = len(traced)
            logprob = sum(seen.tokens[1:], start=seen.first)
            state = "open" if node in opened else "found" if self._is_tip(node) else "expanded"
            tokens = it.edge[:1] if node in opened else it.edge  # what is known of an open one
            traced.append(Traced(parent, tokens, logprob, logprob, state))  # type: ignore[arg-type]
            if it.option is not None and self._ends and state == "expanded":
                exact = self._exact[it.option][1]
                traced.append(Traced(place, (), exact, exact, "found"))
            if node not in opened:
                children = sorted(self._trie.children(node).values(), key=lambda child: -self._seen[child].first)
                jobs += [(child, place) for child in children]
        return tuple(traced)


def _log_sum(logprobs: tuple[float, ...]) -> float:
    high = max(logprobs)
    return high if high == -math.inf else high + math.log(math.fsum(math.exp(each - high) for each in logprobs))
