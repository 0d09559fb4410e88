"""Searching: the searches of a picture: what each has seen, and what it waits for.

A line of tokens is said once, as the line it goes on from and one word more (pseudonym.py): the places of a search are
the prefixes of one another. What follows from the request, its options and objective, is made again.
"""

from __future__ import annotations

from array import array
from typing import Any

from openwork.core.errors import TraceError
from openwork.core.output import Found
from openwork.core.request import Request
from openwork.core.step import Candidates
from openwork.decode.beam import BeamSearch, _Line
from openwork.decode.best_first import BestFirstSearch, _Child, _Node
from openwork.decode.choose import Choosing, _Seen
from openwork.decode.frontier import Frontier
from openwork.decode.search import strategy_of
from openwork.decode.strategy import Answer, SearchStrategy
from openwork.decode.trie import TrieNode
from openwork.schedule.roster import Group
from openwork.trace.coding.plain import Reader
from openwork.trace.coding.pseudonym import Place
from openwork.trace.coding.pseudonym import Reader as WordReader
from openwork.trace.coding.pseudonym import Writer as WordWriter
from openwork.trace.coding.state import fields_of, set_fields

Tokens = tuple[int, ...]


def num_places(strategy: SearchStrategy) -> int:
    """How much there is to say of a search."""
    if isinstance(strategy, BestFirstSearch):
        return len(strategy._nodes)
    return len(strategy._seen) if isinstance(strategy, Choosing) else 0


class SearchWriter:
    """Says one search. ``place`` is where the prompt ends; ``lines`` is to be written before what was said."""

    def __init__(self, words: WordWriter, place: Place, ends: frozenset[int]) -> None:
        self.lines: list[tuple[int, bytes, bytes]] = []  # (the line it goes on from, words, a word that may be an end)
        self._words = words
        self._ends = ends
        self._places: dict[Tokens, tuple[int, Place]] = {(): (-1, place)}

    def say(self, group: Group) -> list[Any]:
        strategy = group.strategy
        answers = [self._answer(strategy, node, answer) for node, answer in group.answers.items()]
        about = self._strategy(strategy)
        return [self.lines, fields_of(strategy), about, answers, sorted(group.awaited), fields_of(group)]

    def _strategy(self, strategy: SearchStrategy) -> list[Any]:
        if isinstance(strategy, BeamSearch):
            return [
                [
                    [self._running(line) for line in group.running],
                    [self._finished(each) for each in group.finished],
                    group.is_done,
                ]
                for group in strategy._groups
            ]
        if isinstance(strategy, BestFirstSearch):
            nodes = [[n.parent, self._line(n.line), n.logprobs, n.logprob, n.listed] for n in strategy._nodes]
            found = [[score, self._found(each), node] for score, _, each, node in strategy._found]
            children = {
                node: [[(bound, self._child(strategy, each)) for bound, each in children], place]
                for node, (children, place) in strategy._frontier._children.items()
            }
            return [nodes, sorted(strategy._looked), self._heap(strategy._frontier), children, found]
        assert isinstance(strategy, Choosing)
        trie = [
            [node.parent, node.first, node.last, node.depth, node.children is not None] for node in strategy._trie.nodes
        ]
        seen = {node: (each.first, each.tokens) for node, each in strategy._seen.items()}
        children = {node: list(each) for node, each in strategy._frontier._children.items()}
        return [trie, strategy._trie._order, seen, self._heap(strategy._frontier), children, strategy._exact]

    def _heap(self, frontier: Frontier[Any]) -> list[Any]:
        return [frontier._heap, frontier._count]

    def _running(self, line: _Line) -> list[Any]:
        return [line.node, line.parent, self._line(line.tokens), line.logprobs, line.logprob, line.value]

    def _finished(self, each: tuple[bool, float, int, Found]) -> list[Any]:
        return [*each[:3], self._found(each[3])]

    def _found(self, found: Found) -> list[Any]:
        is_ended = found.stop_id is not None
        line = self._line(found.token_ids)
        return [line, found.logprob, found.score, found.token_logprobs, found.finish_reason, is_ended]

    def _child(self, strategy: BestFirstSearch, child: _Child) -> list[Any]:
        if child.token is None:
            return [child.node, None, child.logprob]
        return [child.node, self._after(strategy._nodes[child.node].line, (child.token,)), child.logprob]

    def _answer(self, strategy: SearchStrategy, node: int, answer: Answer) -> list[Any]:
        leaf, found = strategy.leaf(node), answer.candidates
        top = self._after(leaf.line, tuple(token for token, _ in found.top))
        among = self._after(leaf.line, leaf.expand.among)
        return [node, answer.scores, self._line(leaf.line), top, [own for _, own in found.top], among, found.among]

    def _after(self, line: Tokens, tokens: Tokens) -> bytes:
        self._line(line)
        return self._words.next(self._places[line][1], tokens, self._ends).tobytes()

    def _line(self, line: Tokens) -> int:
        """The number of a line."""
        if line not in self._places:
            before = line[:-1]
            if before not in self._places:
                words, place = self._words.walk(self._places[()][1], before)
                self._add(before, -1, words, b"", place)
            number, place = self._places[before]
            last = self._words.next(place, line[-1:], self._ends).tobytes()
            self._add(line, number, b"", last, self._words.walk(place, line[-1:])[1])
        return self._places[line][0]

    def _add(self, line: Tokens, before: int, words: bytes, last: bytes, place: Place) -> None:
        self._places[line] = len(self.lines), place
        self.lines.append((before, words, last))


class SearchReader:
    """Makes one search again. ``place`` is where the prompt ends."""

    def __init__(self, request: Request, words: WordReader, place: Place, records: Reader) -> None:
        self._request = request
        self._words = words
        self._records = records
        self._lines: dict[int, tuple[Tokens, Place]] = {-1: ((), place)}

    def read(self, said: list[Any]) -> Group:
        lines, fields, about, answers, awaited, own = said
        for number, (before, words, last) in enumerate(lines):
            line, place = self._lines[before]
            tokens, place = self._words.walk(place, array("I", words))
            if last:
                tokens.append(self._words.next(place, *array("I", last)))
                place = self._words.after(place, tokens[-1])
            self._lines[number] = (*line, *tokens), place
        strategy = strategy_of(self._request)
        set_fields(strategy, fields, self._records)
        if isinstance(strategy, BeamSearch):
            self._beam(strategy, about)
        elif isinstance(strategy, BestFirstSearch):
            self._best_first(strategy, *about)
        else:
            assert isinstance(strategy, Choosing)
            self._choosing(strategy, *about)
        group = Group(strategy, awaited=set(awaited))
        set_fields(group, own, self._records)
        group.answers = {node: self._answer(*each) for node, *each in answers}
        return group

    def _beam(self, strategy: BeamSearch, about: list[Any]) -> None:
        for group, (running, finished, is_done) in zip(strategy._groups, about, strict=True):
            group.running = [
                _Line(node, parent, self._lines[line][0], tuple(logprobs), logprob, value)
                for node, parent, line, logprobs, logprob, value in running
            ]
            group.finished = [(is_cut, score, order, self._found(*each)) for is_cut, score, order, each in finished]
            group.is_done = bool(is_done)

    def _best_first(
        self, strategy: BestFirstSearch, nodes: Any, looked: Any, heap: Any, children: Any, found: Any
    ) -> None:
        strategy._nodes = [
            _Node(parent, self._lines[line][0], tuple(logprobs), logprob, listed)
            for parent, line, logprobs, logprob, listed in nodes
        ]
        strategy._looked = set(looked)
        numbers = [line for _, line, *_ in nodes]
        left = {
            node: ([(bound, self._child(numbers, *each)) for bound, each in some], place)
            for node, (some, place) in children.items()
        }
        self._fill(strategy._frontier, heap, left)
        for score, each, node in found:
            one = self._found(*each)
            strategy._found.append((score, one.token_ids, one, node))

    def _choosing(
        self, strategy: Choosing, trie: Any, order: Any, seen: Any, heap: Any, children: Any, exact: Any
    ) -> None:
        own = strategy._trie
        if own._order != order:
            raise TraceError("which options share their beginnings is not seen from a recording without prompts here")
        own.nodes = []
        for parent, first, last, depth, has_children in trie:
            line, begin = own._line(first), 0 if parent is None else own.nodes[parent].depth
            option = order[first] if len(line) == depth else None
            number = len(own.nodes)
            own.nodes.append(
                TrieNode(parent, line[begin:depth], first, last, depth, option, {} if has_children else None)
            )
            above = None if parent is None else own.nodes[parent].children
            if above is not None:
                above[line[begin]] = number
        strategy._seen = {node: _Seen(first, tuple(tokens)) for node, (first, tokens) in seen.items()}
        left = {node: ([(bound, child) for bound, child in some], place) for node, (some, place) in children.items()}
        self._fill(strategy._frontier, heap, left)
        strategy._exact = {option: (node, logprob, end) for option, (node, logprob, end) in exact.items()}

    def _fill(self, frontier: Frontier[Any], heap: Any, children: dict[int, Any]) -> None:
        entries, frontier._count = heap
        frontier._heap = [(bound, when, node, place) for bound, when, node, place in entries]
        frontier._children = children

    def _found(
        self, line: int, logprob: float, score: float, logprobs: list[float], reason: Any, is_ended: bool
    ) -> Found:
        tokens = self._lines[line][0]
        return Found(tokens, logprob, score, tuple(logprobs), reason, tokens[-1] if is_ended else None)

    def _child(self, lines: list[int], node: int, word: bytes | None, logprob: float) -> _Child:
        if word is None:
            return _Child(node, None, logprob)
        return _Child(node, self._words.next(self._lines[lines[node]][1], *array("I", word)), logprob)

    def _answer(
        self, scores: list[float], line: int, top: bytes, logprobs: list[float], among: bytes, found: list[float]
    ) -> Answer:
        place = self._lines[line][1]
        tokens = [self._words.next(place, word) for word in array("I", top)]
        words = array("I", among)
        order = self._words.order(words, [self._words.next(place, word) for word in words])
        listed = tuple(zip(tokens, logprobs, strict=True))
        return Answer(tuple(scores), Candidates(listed, tuple(found[at] for at in order) if found else ()))
