"""Hugging Face transformers: its own generate(), with its dynamic cache."""

from __future__ import annotations

import time

import torch
import transformers
import worker


class _Clock(transformers.LogitsProcessor):
    """Notes when logits are there for the first time."""

    def __init__(self) -> None:
        self.first = 0.0

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        del input_ids
        self.first = self.first or time.perf_counter()
        return scores


class Transformers:
    def __init__(self, model: str, threads: int, options: dict[str, str]) -> None:
        del options
        torch.set_num_threads(threads)
        self._model = transformers.AutoModelForCausalLM.from_pretrained(model, dtype=torch.bfloat16).eval()
        self._model.generation_config.eos_token_id = None
        self._model.generation_config.pad_token_id = None

    def run(self, prompts: list[list[int]], tokens: int) -> tuple[float, float]:
        ids, clock = torch.tensor(prompts), _Clock()
        wishes = {"max_new_tokens": tokens, "do_sample": False, "logits_processor": [clock]}
        began = time.perf_counter()
        with torch.inference_mode():
            found = self._model.generate(ids, attention_mask=torch.ones_like(ids), **wishes)
        total = time.perf_counter() - began
        if found.shape[1] != ids.shape[1] + tokens:
            raise SystemExit(f"{found.shape[1] - ids.shape[1]} tokens came where {tokens} were asked for")
        return clock.first - began, total


if __name__ == "__main__":
    worker.serve(Transformers)
