"""Choosing among phrases: how often the right one is found, what it costs, and what token-by-token greedy does instead.

    python bench/choose.py [--prompts 200] [--options 10,100,1000,10000] [--made-up 2000]

Two tasks. The first: the model tells stories (drawn at temperature 1); one is cut after some words, and the options are
the three words that follow and three words from elsewhere. Right means the words that really follow. The second is made
up, and known to mislead whoever goes token by token: labels of one to four tokens, the first shared by up to eight of
them, so that a likely first token may stand before many unlikely labels. The right one follows the very distribution
that is asked, so an answer is right with its own probability, and nobody can do better than the likeliest label.

Three ways to answer, over the same tree of tokens: greedy takes the likeliest allowed token each time, "by length" the
highest log-probability a token, exact the likeliest option.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from itertools import pairwise
from random import Random

import openwork.schedule.searches as searches
from openwork import LLM, SamplingParams
from openwork.core.output import Chosen
from openwork.core.request import Limits, Request
from openwork.core.search import Choose, Search
from openwork.core.step import Candidates
from openwork.decode.choose import Choosing
from openwork.decode.search import strategy_of
from openwork.decode.strategy import Answer, Generation, Spent

TOLD = 400  # stories that questions are made of


class Greedy(Choosing):
    """One line through the tree: the likeliest child each time."""

    _last = 0

    def decide(self, answers, spent):
        for node in answers:
            self._look(node, answers[node])
        if self._frontier.next_of(self._last) is None or (self._best is not None and self._is_end_best()):
            return self._report("complete")
        self._last = self._frontier.take(self._last)
        return Generation((self._leaf(self._last),))

    def _is_end_best(self) -> bool:
        """Whether stopping here is likelier than every token that is allowed to follow."""
        return max(logprob for _, logprob, _ in self._exact.values()) >= (self._frontier.next_of(self._last) or 0)


def stories(llm: LLM, count: int) -> list[list[str]]:
    """What the model tells, in words."""
    params = [SamplingParams(max_tokens=150, seed=seed) for seed in range(count)]
    outputs = llm.generate(["once upon a time"] * count, params)
    return [f"once upon a time{output.text}".split() for output in outputs]


def questions(told: list[list[str]], count: int, num_options: int, draw: Random) -> list[tuple[str, list[str]]]:
    """(prompt, options), the right one first."""
    told = [words for words in told if len(words) > 30]
    phrases = sorted({" ".join(words[i : i + 3]) for words in told for i in range(4, len(words) - 4)})
    found = []
    while len(found) < count:
        words = draw.choice(told)
        cut = draw.randrange(12, len(words) - 4)
        right = " ".join(words[cut : cut + 3])
        others = draw.sample(phrases, min(len(phrases), num_options + 1))
        options = [right, *(other for other in others if other != right)][:num_options]
        found.append((" ".join(words[:cut]) + " ", _without_beginnings(options)))
    return found


def _without_beginnings(options: list[str]) -> list[str]:
    """Options of which none begins another: "a cat" goes where there is "a cats"."""
    ordered = sorted(options)
    gone = {one for one, two in pairwise(ordered) if two.startswith(one)} - {options[0]}
    return [
        option
        for option in options
        if option not in gone and (option == options[0] or not options[0].startswith(option))
    ]


def by_length(chosen: Chosen) -> int:
    means = [(option.logprob or 0.0) / len(option.token_ids) for option in chosen.options]
    return max(range(len(means)), key=means.__getitem__)


def timed(llm: LLM, prompt: str, options: list[str], **how) -> tuple[Chosen, float]:
    began = time.perf_counter()
    chosen = llm.choose(prompt, options, **how)
    return chosen, time.perf_counter() - began


def greedily(llm: LLM, prompt: str, options: list[str]) -> tuple[Chosen, float]:
    searches.strategy_of = Greedy
    try:
        return timed(llm, prompt, options, at_once=1)
    finally:
        searches.strategy_of = strategy_of


def run(llm: LLM, told: list[list[str]], count: int, num_options: int, at_once: int) -> str:
    right = {"greedy": 0, "by length": 0, "exact": 0}
    same, proved, nodes, ratios, times = 0, 0, [], [], []
    for prompt, options in questions(told, count, num_options, Random(num_options)):
        llm.choose(prompt, options[:2])  # the prompt is in the cache for all
        greedy, greedy_s = greedily(llm, prompt, options)
        exact, exact_s = timed(llm, prompt, options, at_once=at_once)
        every, _ = timed(llm, prompt, options, score_all=True)
        assert every.index == exact.index or not exact.proved
        right["greedy"] += greedy.index == 0
        right["by length"] += by_length(every) == 0
        right["exact"] += exact.index == 0
        same += greedy.index == exact.index
        proved += exact.proved
        nodes.append((exact.report.nodes, greedy.report.nodes, every.report.num_nodes))
        ratios.append(exact_s / greedy_s)
        times.append(exact_s)
    middle = [statistics.median(each) for each in zip(*nodes, strict=True)]
    shares = "  ".join(f"{name} {100 * value / count:.1f} %" for name, value in right.items())
    return (
        f"{num_options:6d} options: right: {shares}  greedy finds the likeliest {100 * same / count:.1f} %  "
        f"proved {100 * proved / count:.1f} %  nodes exact/greedy/all {middle[0]:.0f}/{middle[1]:.0f}/{middle[2]:.0f}  "
        f"time x{statistics.median(ratios):.2f} of greedy, {1e3 * statistics.median(times):.1f} ms"
    )


# -- labels that are made up ------------------------------------------------------------------------------------------

Line = tuple[int, ...]


def labels(draw: Random) -> dict[Line, list[float]]:
    """Labels as tokens, with the log-probability of each token. None begins another: their second tokens differ."""
    families = draw.randint(3, 6)
    heads = _shares(draw, families)
    made: dict[Line, list[float]] = {}
    for head, mass in enumerate(heads):
        size = draw.choice([1, 1, 2, 4, 8])
        for second, share in enumerate(_shares(draw, size)):
            rest = draw.randint(0, 2)  # tokens that follow almost surely, as the end of a word does
            made[head, 10 + second, *range(20, 20 + rest)] = [math.log(mass), math.log(share), *[math.log(0.97)] * rest]
    return made


def _shares(draw: Random, count: int) -> list[float]:
    weights = [draw.gammavariate(2, 1) for _ in range(count)]
    return [weight / sum(weights) for weight in weights]


def answered(search: Choosing, made: dict[Line, list[float]]) -> int:
    """Which option a search comes to, its questions answered by the labels themselves."""
    at = {line[:end]: logprobs[:end] for line, logprobs in made.items() for end in range(len(line) + 1)}
    generation = search.begin()
    while isinstance(generation, Generation):
        answers = {}
        for leaf in generation.leaves:
            scores = at[leaf.line][len(leaf.line) - leaf.fresh + 1 :] if leaf.fresh > 1 else []
            among = tuple(at[*leaf.line, token][-1] for token in leaf.expand.among)
            answers[leaf.node] = Answer(tuple(scores), Candidates(among=among))
        generation = search.decide(answers, Spent(0, 0.0))
    assert generation.winner is not None
    return generation.winner


def made_up(count: int) -> str:
    draw = Random(count)
    right = {"greedy": 0.0, "by length": 0.0, "exact": 0.0}
    same = 0
    for _ in range(count):
        made = labels(draw)
        options = tuple(made)
        request = Request((1,), SamplingParams(), Limits(100, 100), search=Search(choose=Choose(options=options)))
        means = [sum(made[line]) / len(line) for line in options]
        found = {
            "greedy": answered(Greedy(request), made),
            "by length": max(range(len(means)), key=means.__getitem__),
            "exact": answered(Choosing(request), made),
        }
        for name, option in found.items():
            right[name] += math.exp(sum(made[options[option]]))
        same += found["greedy"] == found["exact"]
    shares = "  ".join(f"{name} {100 * value / count:.1f} %" for name, value in right.items())
    return f"made-up labels: right: {shares}  greedy finds the likeliest {100 * same / count:.1f} %"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--prompts", type=int, default=200)
    parser.add_argument("--options", default="10,100,1000,10000")
    parser.add_argument("--at-once", type=int, default=4)
    parser.add_argument("--made-up", type=int, default=2000)
    parser.add_argument("--model")
    asked = parser.parse_args()
    print(made_up(asked.made_up), flush=True)
    with LLM(asked.model) as llm:
        told = stories(llm, TOLD)
        for size in map(int, asked.options.split(",")):
            print(
                run(llm, told, asked.prompts if size < 10_000 else asked.prompts // 4, size, asked.at_once), flush=True
            )


if __name__ == "__main__":
    main()
