"""What a decode step costs outside the kernels: scheduling, batching, choosing, text; for 1 sequence and for many.

    python bench/overhead.py [--model M] [--sequences 1,4,16,64] [--temperature T] [--threads N] [--json]

The native core adds up the time spent in its operations; the rest of a step's wall time is ours to keep small. The aim
is 0.3 ms + 0.03 ms a sequence. Every figure is the median of several runs, a run being some hundred steps.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time

from openwork import LLM, SamplingParams

RUNS, STEPS = 7, 120


def measure(llm: LLM, sequences: int, temperature: float) -> dict[str, float]:
    """Milliseconds per decode step, in all and outside the kernels."""
    params = SamplingParams(temperature=temperature, max_tokens=STEPS, ignore_eos=True)
    prompts = [[1, 2 + i] for i in range(sequences)]
    ops = llm._engine._loop._runner._ops
    wall, outside = [], []
    for _ in range(RUNS):
        busy, began = ops.busy_s, time.perf_counter()
        llm.generate(prompts, params)
        wall.append((time.perf_counter() - began) / STEPS * 1e3)
        outside.append(wall[-1] - (ops.busy_s - busy) / STEPS * 1e3)
    aim = 0.3 + 0.03 * sequences
    step, rest = statistics.median(wall), statistics.median(outside)
    return {"sequences": sequences, "step_ms": step, "outside_ms": rest, "aim_ms": aim, "share_of_aim": rest / aim}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=None, help="a checkpoint; default: the embedded model")
    parser.add_argument("--sequences", default="1,4,16,64", help="how many at a time, comma separated")
    parser.add_argument("--temperature", type=float, default=0.0)
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    asked = parser.parse_args()
    with LLM(asked.model, threads=asked.threads, backend="cpu") as llm:
        if not asked.json:
            print(
                f"{llm.info.model}, {llm.info.contract_id}, {llm.info.threads} threads, temperature {asked.temperature}"
            )
        for sequences in map(int, asked.sequences.split(",")):
            found = measure(llm, sequences, asked.temperature)
            if asked.json:
                print(json.dumps(found))
                continue
            print(
                f"{sequences:4d} sequences   step {found['step_ms']:.3f} ms   outside the kernels"
                f" {found['outside_ms']:.3f} ms   {found['share_of_aim']:.0%} of {found['aim_ms']:.2f} ms"
            )


if __name__ == "__main__":
    main()
