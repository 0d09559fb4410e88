"""vLLM's build for CPUs, its engine in this process and turned by hand."""

from __future__ import annotations

import os
import time

os.environ |= {
    "VLLM_CPU_KVCACHE_SPACE": "4",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_OFFLINE": "1",
}

import vllm
import worker


class Vllm:
    def __init__(self, model: str, threads: int, options: dict[str, str]) -> None:
        del options
        os.environ["VLLM_CPU_OMP_THREADS_BIND"] = f"0-{threads - 1}" if threads > 1 else "0"
        self._engine = vllm.LLM(
            model,
            dtype="bfloat16",
            max_model_len=4352,
            max_num_seqs=32,
            max_num_batched_tokens=4352,
            skip_tokenizer_init=True,
        ).llm_engine
        self._requests = 0

    def run(self, prompts: list[list[int]], tokens: int) -> tuple[float, float]:
        wishes = vllm.SamplingParams(temperature=0.0, max_tokens=tokens, ignore_eos=True, detokenize=False)
        began = time.perf_counter()
        waiting, first, made = set(), 0.0, 0
        for prompt in prompts:
            name = str(self._requests)
            self._requests += 1
            self._engine.add_request(name, {"prompt_token_ids": prompt}, wishes)
            waiting.add(name)
        while self._engine.has_unfinished_requests():
            for output in self._engine.step():
                waiting.discard(output.request_id.split("-")[0])
                made += len(output.outputs[0].token_ids) if output.finished else 0
            if not waiting and not first:
                first = time.perf_counter() - began
        total = time.perf_counter() - began
        if made != tokens * len(prompts):
            raise SystemExit(f"{made} tokens came where {tokens} x {len(prompts)} were asked for")
        return first, total


if __name__ == "__main__":
    worker.serve(Vllm)
