"""How much faster text comes that repeats what stands before it, and what guessing costs where nothing repeats.

    python bench/speculate.py [--model M] [--dtype D] [--sequences 1] [--tokens 160] [--runs 5] [--max-draft 15]

Weights that are noise copy nothing. So each answer is scripted: the model computes all it would compute, and then the
script's token is put in the place of the one it chose. What is guessed, and how often that is right, are therefore
those of the text, and the times those of the model. The texts, a token a word or sign, are files of this project:

    edit      a source file, and as the answer the same with a name changed
    summary   a page of the documentation, and as the answer every third sentence of it, with words between
    noise     the answer is drawn from the whole vocabulary: nothing is ever foretold
    narrow    the answer is drawn from eight tokens: much is foretold, and wrong seven times of eight

Runs alternate: without guesses, with them ("ngram"), and with guesses made by somebody who knows the answer
("ceiling": what guessing could reach at most). A figure is the median over the runs, of decoded tokens a second.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from random import Random

from openwork import LLM, SamplingParams
from openwork.core.settings import ScheduleSettings, SpeculationSettings
from openwork.core.step import Choice

ROOT = Path(__file__).parent.parent
WAYS = ("plain", "ngram", "ceiling")
CONTEXT = 2048


class Script:
    """Puts an answer in the place of what a model chooses. ``lines`` maps a sequence to its prompt and answer."""

    def __init__(self, llm: LLM) -> None:
        self.lines: list[tuple[list[int], list[int]]] = []
        self._runner = llm._engine._loop._runner
        self._compute = self._runner._best
        self._runner._best = self._best

    def _best(self, step, batch, hidden):
        outcomes = self._compute(step, batch, hidden)
        return [
            replace(outcome, choices=self._said(work)) if work.draws else outcome
            for work, outcome in zip(step.works, outcomes, strict=True)
        ]

    def _said(self, work) -> tuple[Choice, ...]:
        prompt, answer = self.lines[work.sequence % len(self.lines)]
        said = answer[work.draws[0].position - len(prompt) :][: 1 + len(work.drafts)]
        right = next((i for i, draft in enumerate(work.drafts) if draft != said[i]), len(work.drafts))
        return tuple(Choice(token) for token in said[: right + 1])


class Knowing:
    """Guesses what the script will say."""

    guess_s = 0.0

    def __init__(self, prompt: Sequence[int], answer: Sequence[int]) -> None:
        self._line = [*prompt, *answer]
        self._known = 0

    def follow(self, tokens, known):
        self._known = known

    def odds(self, most):
        return [0.999**place for place in range(1, min(most, len(self._line) - self._known) + 1)]

    def prepare(self, num):
        pass

    def propose(self, num):
        return tuple(self._line[self._known : self._known + num])


# ---------------------------------------------------------------- the texts


def texts(vocab: int, tokens: int) -> dict[str, tuple[list[int], list[int]]]:
    """Name -> prompt and answer, as ids."""
    ids: dict[str, int] = {}

    def encode(text: str) -> list[int]:
        return [ids.setdefault(word, 10 + len(ids) % (vocab - 20)) for word in re.findall(r"\w+|\s+|[^\w\s]", text)]

    draw = Random(1)
    code = (ROOT / "src/openwork/kv/pool.py").read_text(encoding="utf-8")
    page = (ROOT / "docs/scheduling.md").read_text(encoding="utf-8")
    sentences = [each for each in re.split(r"(?<=[.:])\s+", page) if 5 < len(each.split()) < 60]
    summary = " And then ".join(sentences[::3])
    most = CONTEXT - tokens - 8
    renamed = re.sub(r"\b(owner|block)\b", r"own_\1", code)
    return {
        "edit": (encode(code + "\nChange the names:\n")[:most], encode(renamed)[:tokens]),
        "summary": (encode(page + "\nIn short: ")[-most:], encode(summary)[:tokens]),
        "noise": ([draw.randrange(vocab) for _ in range(200)], [draw.randrange(vocab) for _ in range(tokens)]),
        "narrow": ([draw.randrange(20, 28) for _ in range(200)], [draw.randrange(20, 28) for _ in range(tokens)]),
    }


# ---------------------------------------------------------------- measuring


class Engines:
    """Three over the same weights, which they map."""

    def __init__(self, model: str | None, dtype: str, max_draft: int) -> None:
        self.llms, self.scripts = {}, {}
        for way in WAYS:
            guessing = None if way == "plain" else SpeculationSettings(max_draft=max_draft)
            how = {"dtype": dtype, "context": CONTEXT, "schedule": ScheduleSettings(speculation=guessing)}
            llm = self.llms[way] = LLM(model, **({**how, "context": 512} if model is None else how))
            self.scripts[way] = Script(llm)
        knowing = self.llms["ceiling"]._engine._loop.scheduler._planner._speculation
        script = self.scripts["ceiling"]
        knowing._make_proposer = lambda sequence: Knowing(*script.lines[sequence.id % len(script.lines)])

    def measure(self, way: str, prompt: list[int], answer: list[int], sequences: int) -> tuple[float, float, float]:
        """Decoded tokens a second, tokens in a step of a sequence, and the part of the guesses that was right."""
        llm = self.llms[way]
        self.scripts[way].lines = [(prompt, answer)]
        params = SamplingParams(temperature=0, max_tokens=len(answer), ignore_eos=True)
        outputs = llm.generate([prompt] * sequences, params)
        assert all(list(output.token_ids) == answer for output in outputs), "the script was not followed"
        decode_s = max(output.timings.decode_s for output in outputs)
        drafted = sum(output.guessed.drafted for output in outputs)
        accepted = sum(output.guessed.accepted for output in outputs)
        decoded = sequences * (len(answer) - 1)
        return decoded / decode_s, decoded / (decoded - accepted), accepted / drafted if drafted else 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=None, help="a checkpoint; default: the embedded model")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--sequences", type=int, default=1)
    parser.add_argument("--tokens", type=int, default=160, help="of an answer")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--max-draft", type=int, default=15)
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    asked = parser.parse_args()
    engines = Engines(asked.model, asked.dtype, asked.max_draft)
    spec, info = engines.llms["plain"].spec, engines.llms["plain"].info
    if not asked.json:
        print(f"{info.model}, {info.dtype}, {info.contract_id}, {info.threads} threads, {asked.sequences} at a time")
    for name, (prompt, answer) in texts(spec.vocab_size, asked.tokens).items():
        prompt = prompt[-(info.context - len(answer) - 1) :]
        found: dict[str, list[tuple[float, float, float]]] = {way: [] for way in WAYS}
        for run in range(1 + asked.runs):
            for way in WAYS:
                figures = engines.measure(way, prompt, answer, asked.sequences)
                if run:  # the first warms up
                    found[way].append(figures)
        speed = {way: statistics.median(each[0] for each in runs) for way, runs in found.items()}
        ratio = statistics.median(b[0] / a[0] for a, b in zip(found["plain"], found["ngram"], strict=True))
        _, a_step, right = found["ngram"][-1]
        if asked.json:
            record = {f"{way}_tok_s": value for way, value in speed.items()}
            print(json.dumps({"text": name, **record, "ratio": ratio, "tokens_a_step": a_step, "right": right}))
            continue
        print(
            f"{name:8} plain {speed['plain']:7.1f} tok/s   ngram {speed['ngram']:7.1f}   {ratio:5.2f}x"
            f"   ceiling {speed['ceiling'] / speed['plain']:5.2f}x   {a_step:4.1f} tokens a step, {right:4.0%} right"
        )


if __name__ == "__main__":
    main()
