"""Best-first: the likeliest sequences that end, with a proof, or the best so far and how far off they may be.

The score of a line never rises as it grows. So when n finished ones score at least as high as the best bound among all
that is unfinished, they are the n best of all. A node lists its likeliest children only; the last of them bounds the
rest, which is asked for when its turn comes. Until something has finished, one line dives: it takes the best child
each time, so that there is an answer however early it has to be given. Of equals the lower token ids come first.

Under a constraint only complete texts are answers, so each node is asked for the end tokens beside its children, and
what the constraint takes out keeps its part of the mass: the answer is the mode of Pr(y | y is legal), since dividing
by Pr(legal) changes no order, and the bounds hold for Pr(y) as they always do.
"""

from __future__ import annotations

import math
from bisect import insort
from collections.abc import Mapping
from dataclasses import dataclass

from openwork.core.output import Found, SearchReport, Traced
from openwork.core.request import Request
from openwork.core.step import Expand
from openwork.decode.frontier import Frontier
from openwork.decode.objective import Objective
from openwork.decode.strategy import Answer, Generation, Leaf, Spent

LISTED = 16  # children that are asked for at first
_MORE = 4  # times as many each time that the rest has its turn


@dataclass(frozen=True, slots=True)
class _Node:
    """A line, as far as it goes, and how many of its children an earlier node has given."""

    parent: int | None
    line: tuple[int, ...] = ()
    logprobs: tuple[float, ...] = ()
    logprob: float = 0.0
    listed: int = 0


@dataclass(frozen=True, slots=True)
class _Child:
    """What follows a node: a token, or with None the rest of them."""

    node: int
    token: int | None
    logprob: float  # its own


class BestFirstSearch:
    """SearchStrategy of sequences that end with a stop id or with max_tokens."""

    def __init__(self, request: Request) -> None:
        search = request.search
        assert search is not None and search.best_first is not None
        self._request = request
        self._how = search.best_first
        self._most_traced = search.trace
        self._reranks = search.penalty is not None and search.penalty.rerank
        self._ends = tuple(sorted(request.end_ids))
        self._is_bound = request.params.constraint is not None
        self._final = Objective(search.penalty, request.max_tokens)
        self._objective = Objective(None if self._reranks else search.penalty, request.max_tokens)
        self._nodes: list[_Node] = [_Node(None)]
        self._looked: set[int] = set()
        self._frontier: Frontier[_Child] = Frontier()
        self._found: list[tuple[float, tuple[int, ...], Found, int]] = []  # (-score, tokens, itself, node), the n best
        self._dive: int | None = 0
        self._generations = self._num_finished = 0

    # -- deciding ------------------------------------------------------------------------------------------------

    def begin(self) -> Generation:
        return Generation((self.leaf(0),))

    def decide(self, answers: Mapping[int, Answer], spent: Spent) -> Generation | SearchReport:
        self._generations += 1
        for node in sorted(answers):  # the order in which they came must not matter
            self._look(node, answers[node])
        if not self._is_open():
            return self._report("proved")
        used_up = self._how.budget.used_up(len(self._looked), self._num_finished, spent.tokens, spent.seconds)
        if used_up is not None:
            return self._report(used_up)
        most = self._how.at_once
        left = math.inf if self._how.budget.nodes is None else self._how.budget.nodes - len(self._looked)
        leaves: list[Leaf] = []
        if (diving := self._next_dive()) is not None:
            leaves.append(diving)
            left -= self._request.max_tokens - len(diving.line)  # what it needs to arrive is not for others
        most = int(min(most, max(left, len(leaves))))
        while len(leaves) < most and self._is_open():
            leaves.append(self._born(self._frontier.pop()))
        return Generation(tuple(leaves))

    def worth(self, node: int) -> float | None:
        bound = self._frontier.next_of(node)
        return bound if bound is not None and self._is_wanted(bound) else None

    def _is_open(self) -> bool:
        bound = self._frontier.best
        return bound is not None and self._is_wanted(bound)

    def _is_wanted(self, bound: float) -> bool:
        """Whether a line with this bound may be among the n best; an equal one may, by its tokens."""
        return len(self._found) < self._request.params.n or bound >= -self._found[-1][0]

    def _next_dive(self) -> Leaf | None:
        if self._dive is None or self._found:
            self._dive = None
            return None
        is_over = self._frontier.next_of(self._dive) is None  # and came to nothing: another begins where most is hoped
        leaf = self._born(self._frontier.pop() if is_over else self._frontier.take(self._dive))
        self._dive = leaf.node
        return leaf

    def _born(self, child: _Child) -> Leaf:
        parent = self._nodes[child.node]
        if child.token is None:  # the same line once more, and more of its children
            listed = max(LISTED, parent.listed * _MORE)
            node = _Node(parent.parent, parent.line, parent.logprobs, parent.logprob, listed)
        else:
            node = _Node(
                child.node,
                (*parent.line, child.token),
                (*parent.logprobs, child.logprob),
                parent.logprob + child.logprob,
            )
        self._nodes.append(node)
        return self.leaf(len(self._nodes) - 1)

    def leaf(self, node: int) -> Leaf:
        it, params = self._nodes[node], self._request.params
        may_end = len(it.line) >= params.min_tokens
        top = max(LISTED, it.listed * _MORE)
        if self._is_bound:
            top = 0 if len(it.line) + 1 >= self._request.max_tokens else top  # nothing but an end completes it there
            among = self._ends if may_end and not it.listed else ()
            expand = Expand(top, among, self._request.end_ids, params.constraint, it.line)
        else:
            expand = Expand(top=top, without=frozenset() if may_end else self._request.end_ids)
        if it.listed or it.parent is None:
            return Leaf(node, it.line, expand, fresh=0)
        return Leaf(node, it.line, expand, fresh=1, parent=it.parent)

    def _look(self, node: int, answer: Answer) -> None:
        """Take in the children of a node: some are finished, others are to be looked at, the rest is bounded."""
        self._looked.add(node)
        it, top = self._nodes[node], answer.candidates.top
        is_last = len(it.line) + 1 >= self._request.max_tokens
        children: list[tuple[float, _Child]] = []
        for token, own in zip(self._ends, answer.candidates.among, strict=False):
            if own > -math.inf:
                self._finish(node, token, (*it.line, token), it.logprob + own, own)
        for token, own in top[it.listed :]:
            if own == -math.inf:
                break
            line, logprob = (*it.line, token), it.logprob + own
            if token in self._request.end_ids or is_last:
                self._finish(node, token, line, logprob, own)
            else:
                children.append((self._objective.bound(logprob, line), _Child(node, token, own)))
        if len(top) == max(LISTED, it.listed * _MORE) and top[-1][1] > -math.inf:
            bound = self._objective.bound(it.logprob + top[-1][1], it.line)
            children.append((bound, _Child(node, None, top[-1][1])))
        children.sort(key=lambda each: -each[0])
        self._frontier.add(node, children)

    def _finish(self, node: int, token: int, line: tuple[int, ...], logprob: float, own: float) -> None:
        self._num_finished += 1
        score = self._objective.score(logprob, line)
        if not self._is_wanted(score):
            return
        is_stop = token in self._request.end_ids
        logprobs = (*self._nodes[node].logprobs, own)
        found = Found(line, logprob, score, logprobs, "stop" if is_stop else "length", token if is_stop else None)
        insort(self._found, (-score, line, found, node), key=lambda each: each[:2])
        del self._found[self._request.params.n :]

    # -- what is certain -----------------------------------------------------------------------------------------

    def _report(self, ended_by: str) -> SearchReport:
        open_bound = self._frontier.best
        found = [each for _, _, each, _ in self._found]
        proved = ended_by == "proved"
        best = found[0].score if found else None
        upper = max([bound for bound in (best, open_bound) if bound is not None], default=None)
        if proved and best is not None:
            upper = best
        if self._reranks:
            found, upper, proved = self._reranked(found, open_bound, proved)
            best = found[0].score if found else None
        return SearchReport(
            found=tuple(found),
            proved=proved,
            upper_bound=upper,
            gap=None if best is None or upper is None else upper - best,
            nodes=len(self._looked),
            generations=self._generations,
            ended_by="complete" if ended_by == "proved" and not proved else ended_by,  # type: ignore[arg-type]
            trace=self._trace(),
        )

    def _reranked(
        self, found: list[Found], open_bound: float | None, proved: bool
    ) -> tuple[list[Found], float | None, bool]:
        """The likeliest, ordered by the penalised objective. What is not among them is bounded by its likelihood."""
        again = [
            Found(
                each.token_ids,
                each.logprob,
                self._final.score(each.logprob, each.token_ids),
                each.token_logprobs,
                each.finish_reason,
                each.stop_id,
            )
            for each in found
        ]
        again.sort(key=lambda each: (-each.score, each.token_ids))
        # Finished ones that were not among the n likeliest are no likelier than the last of these.
        others = [open_bound] if open_bound is not None else []
        if len(found) == self._request.params.n:
            others.append(found[-1].logprob)
        upper = max((self._final.bound(each) for each in others), default=None)
        if not again:
            return again, upper, proved
        best, last = again[0].score, again[-1].score
        return again, best if upper is None else max(best, upper), proved and (upper is None or last >= upper)

    def _trace(self) -> tuple[Traced, ...]:
        """The nodes in the order they were looked at, each with its next child; and what was found."""
        traced: list[Traced] = []
        places: dict[int, int] = {}
        for node in sorted(self._looked)[: self._most_traced]:
            it = self._nodes[node]
            parent = None if it.parent is None else places[it.parent]
            places[node] = len(traced)
            bound = self._objective.bound(it.logprob, it.line)
            traced.append(Traced(parent, it.line[-1:], it.logprob, bound, "expanded"))
        for bound, child in self._frontier:
            if len(traced) < 2 * self._most_traced and child.node in places:
                logprob = self._nodes[child.node].logprob + child.logprob
                tokens = () if child.token is None else (child.token,)
                state = "rest" if child.token is None else "open"
                traced.append(Traced(places[child.node], tokens, logprob, bound, state))  # type: ignore[arg-type]
        for _, line, found, node in self._found if self._most_traced else ():
            if node in places:
                traced.append(Traced(places[node], line[-1:], found.logprob, found.score, "found"))
        return tuple(traced)
