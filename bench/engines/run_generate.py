"""Ours in process, as a user of the library has it: LLM.generate with all prompts at once, text included."""

from __future__ import annotations

import time

import worker

from openwork import LLM, SamplingParams


class Generate:
    def __init__(self, model: str, threads: int, options: dict[str, str]) -> None:
        self._llm = LLM(model, threads=threads, backend="cpu", **options)

    def run(self, prompts: list[list[int]], tokens: int) -> tuple[float, float]:
        params = SamplingParams(temperature=0, max_tokens=tokens, ignore_eos=True)
        num_tokens, first = sum(map(len, prompts)), 0.0

        def watch(stage: str, done: int, total: int) -> None:
            nonlocal first
            if stage == "prefill" and done >= num_tokens and not first:
                first = time.perf_counter() - began

        began = time.perf_counter()
        outputs = self._llm.generate(prompts, params, progress=watch)
        total = time.perf_counter() - began
        made = sum(len(output.completions[0].token_ids) for output in outputs)
        if made != tokens * len(prompts):
            raise SystemExit(f"{made} tokens came where {tokens} x {len(prompts)} were asked for")
        return first, total


if __name__ == "__main__":
    worker.serve(Generate)
