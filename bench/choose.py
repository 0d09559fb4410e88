"""Choosing among phrases: how often the right one is found, what it costs, and what token-by-token greedy does instead.

    python bench/choose.py [--prompts 200] [--options 10,100,1000,10000]

The task: the model tells stories (drawn at temperature 1); one is cut after some words, and the options are the three
words that follow and three words from elsewhere. Three ways to answer, over the same model and the same tree of tokens:
greedy takes the likeliest allowed token each time, "by length" the highest log-probability a token, exact the likeliest
option. Right means the words that really follow.
"""

from __future__ import annotations

import argparse
import statistics
import time
from itertools import pairwise
from random import Random

import openwork.schedule.searches as searches
from openwork import LLM, SamplingParams
from openwork.core.output import Chosen
from openwork.decode.choose import Choosing
from openwork.decode.search import strategy_of
from openwork.decode.strategy import Generation

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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--prompts", type=int, default=200)
    parser.add_argument("--options", default="10,100,1000,10000")
    parser.add_argument("--at-once", type=int, default=4)
    parser.add_argument("--model")
    asked = parser.parse_args()
    with LLM(asked.model) as llm:
        told = stories(llm, TOLD)
        for size in map(int, asked.options.split(",")):
            print(
                run(llm, told, asked.prompts if size < 10_000 else asked.prompts // 4, size, asked.at_once), flush=True
            )


if __name__ == "__main__":
    main()
