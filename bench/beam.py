"""What a beam costs: its step beside a greedy one, and beside as many greedy ones; and how it moves beside others.

    python bench/beam.py --model M [--width 8] [--rounds 12]

Runs of some steps take turns, so that a slow moment of the machine falls on all of them; a figure is the median over
the rounds. The wall time of a step counts, so what is decided between two steps is in it. The last line says of how
many steps a search used, while a greedy sequence ran beside it: all, or every second.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

from openwork import LLM, Beam, SamplingParams

STEPS = 16
PROMPT = list(range(100, 164))


def per_step(run: Callable[[], object]) -> float:
    """Milliseconds."""
    began = time.perf_counter()
    run()
    return (time.perf_counter() - began) / STEPS * 1e3


def share_of_steps(llm: LLM, width: int) -> float:
    """Of the steps from the first of a search to its last, those that it had a part in."""
    runner = llm._engine._loop._runner
    run, seen = runner.run, []

    def watched(step):
        seen.append(any(work.expand is not None for work in step.works))
        return run(step)

    runner.run = watched
    try:
        beside = iter(llm.stream(PROMPT, SamplingParams(temperature=0, max_tokens=4 * STEPS, ignore_eos=True)))
        next(beside)
        seen.clear()
        llm.search(PROMPT, Beam(width=width), SamplingParams(max_tokens=STEPS, ignore_eos=True))
        beside.close()
    finally:
        runner.run = run
    used = seen[seen.index(True) : len(seen) - seen[::-1].index(True)]
    return sum(used) / len(used)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=None)
    parser.add_argument("--width", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--threads", type=int, default=None)
    asked = parser.parse_args()
    greedy = SamplingParams(temperature=0, max_tokens=STEPS, ignore_eos=True)
    beams = SamplingParams(max_tokens=STEPS, ignore_eos=True)
    with LLM(asked.model, threads=asked.threads) as llm:
        runs: dict[str, Callable[[], object]] = {
            "greedy": lambda: llm.generate([PROMPT], greedy),
            f"beam of {asked.width}": lambda: llm.search(PROMPT, Beam(width=asked.width), beams),
            f"{asked.width} greedy": lambda: llm.generate([PROMPT] * asked.width, greedy),
        }
        for run in runs.values():
            run()  # the prompt is in the cache for all
        times: dict[str, list[float]] = {name: [] for name in runs}
        for _ in range(asked.rounds):
            for name, run in runs.items():
                times[name].append(per_step(run))
        base = times["greedy"]
        print(f"{llm.info.model}, {llm.info.contract_id}, {llm.info.threads} threads, {asked.rounds} rounds")
        for name, found in times.items():
            ratio = statistics.median(one / other for one, other in zip(found, base, strict=True))
            print(f"{name:12} {statistics.median(found):8.2f} ms a step   {ratio:.2f} x greedy")
        print(f"beside a greedy sequence a search is in {share_of_steps(llm, asked.width):.0%} of the steps")


if __name__ == "__main__":
    main()
