"""Ours, through the engine that every face of it stands on."""

from __future__ import annotations

import time

import worker

from openwork.bench import cost, work
from openwork.build import build
from openwork.core.event import Token
from openwork.core.request import Request, SamplingParams
from openwork.core.settings import LoadSettings, ScheduleSettings


class Openwork:
    def __init__(self, model: str, threads: int, options: dict[str, str]) -> None:
        settings = LoadSettings(threads=threads, backend="cpu", **options)
        self._built = build(model, settings, ScheduleSettings(max_step_tokens=544, max_running=32))
        self.costs: dict[str, dict[str, float]] = {}

    def run(self, prompts: list[list[int]], tokens: int) -> tuple[float, float]:
        engine = self._built.engine
        params = SamplingParams(temperature=0, max_tokens=tokens, ignore_eos=True)
        began = time.perf_counter()
        streams = [engine.submit(Request(tuple(prompt), params, self._built.limits)) for prompt in prompts]
        waiting, first = set(streams), 0.0
        while not engine.is_idle:
            engine.turn()
            waiting -= {stream for stream in waiting if any(isinstance(event, Token) for event in stream.take())}
            if not waiting and not first:
                first = time.perf_counter() - began
        total = time.perf_counter() - began
        self._count(len(prompts), len(prompts[0]), tokens)
        return first, total

    def _count(self, streams: int, prompt: int, tokens: int) -> None:
        """What a step, and the prompts, must cost at least: for the picture."""
        held = work.weights_of(self._built)
        step, prompts = cost.decode(held, [prompt + tokens / 2] * streams), cost.prefill(held, prompt)
        self.costs = {
            "decode_cost": {"num_bytes": step.num_bytes, "operations": step.operations},
            "prefill_cost": {"num_bytes": prompts.num_bytes, "operations": streams * prompts.operations},
        }


if __name__ == "__main__":
    worker.serve(Openwork)
