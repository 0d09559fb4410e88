"""OpenVINO GenAI: its pipeline for many streams, which for one stream is the faster one here, too."""

from __future__ import annotations

import time

import numpy as np
import openvino
import openvino_genai
import worker

CACHE_GB = 4  # 32 streams of the benchmark fit


class OpenVino:
    def __init__(self, model: str, threads: int, options: dict[str, str]) -> None:
        del options
        wishes = openvino_genai.SchedulerConfig()
        wishes.cache_size = CACHE_GB
        wishes.max_num_seqs = 32
        wishes.max_num_batched_tokens = 2048
        settings = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
        self._pipeline = openvino_genai.ContinuousBatchingPipeline(model, wishes, "CPU", settings)
        self._requests = 0

    def run(self, prompts: list[list[int]], tokens: int) -> tuple[float, float]:
        wishes = openvino_genai.GenerationConfig()
        wishes.max_new_tokens = wishes.min_new_tokens = tokens
        wishes.ignore_eos, wishes.do_sample = True, False
        began = time.perf_counter()
        handles = []
        for prompt in prompts:
            ids = openvino.Tensor(np.array([prompt], dtype=np.int64))
            handles.append(self._pipeline.add_request(self._requests, ids, wishes))
            self._requests += 1
        counts, first = [0] * len(handles), 0.0
        while self._pipeline.has_non_finished_requests():
            self._pipeline.step()
            for at, handle in enumerate(handles):
                while handle.can_read():
                    counts[at] += sum(len(output.generated_ids) for output in handle.read().values())
            if all(counts) and not first:
                first = time.perf_counter() - began
        total = time.perf_counter() - began
        if set(counts) != {tokens}:
            raise SystemExit(f"{counts} tokens came where {tokens} were asked for")
        return first, total


if __name__ == "__main__":
    worker.serve(OpenVino)
