"""What recording costs: the same streams with and without a flight recorder, in turn, in one engine.

    python bench/record.py [--model M] [--streams 32] [--tokens 64] [--prompt 64] [--pairs 9] [--dtype D] [--private]
                           [--layers N] [--stamps]

Each pair is one run with recording (hashes of rows and stamps included) and one without, in either order; a run is all
streams from prompt to end. With --stamps both are recorded, and one of them without stamps. Printed are the tokens a
second of each, the median of the pairs' ratios with its 95 % interval by resampling, the processor time that the
recorder itself took, which a busy machine does not bend as much, and what was written.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from typing import Any

from openwork import LLM, SamplingParams
from openwork.run.stamping import Stamping
from openwork.trace.entry import Ran
from openwork.trace.recording import Recording


class Timed:
    """Another recorder, and the processor time that it took."""

    def __init__(self, recorder: Any) -> None:
        self.recorder = recorder
        self.seconds = 0.0
        self.num_steps = 0

    def __getattr__(self, name: str) -> Callable[..., None]:
        call = getattr(self.recorder, name)

        def timed(*told: Any) -> None:
            began = time.thread_time()
            call(*told)
            self.seconds += time.thread_time() - began
            self.num_steps += name == "ran"

        return timed


class Bench:
    def __init__(self, asked: argparse.Namespace, directory: str) -> None:
        self._asked = asked
        self._draw = random.Random(0)
        self.llm = LLM(
            asked.model,
            dtype=asked.dtype,
            record=directory,
            record_prompts=not asked.private,
            record_layers=asked.layers,
            threads=asked.threads,
        )
        self._loop = self.llm._engine._loop
        self.recorder = Timed(self._loop._recorder)
        self._stamping = self._loop._runner._stamping
        self.warm: list[float] = []
        self.seconds: dict[bool, list[float]] = {True: [], False: []}

    def run(self, is_recorded: bool) -> float:
        """Seconds for all streams."""
        asked = self._asked
        self._loop._recorder = self.recorder if is_recorded or asked.stamps else None
        self._loop._runner._hashes = (is_recorded or asked.stamps) and not asked.private
        self._loop._runner._stamping = self._stamping if is_recorded else Stamping(0, self.llm.spec.num_layers)
        vocab = self.llm.spec.vocab_size
        prompts = [[self._draw.randrange(vocab) for _ in range(asked.prompt)] for _ in range(asked.streams)]
        params = SamplingParams(temperature=asked.temperature, max_tokens=asked.tokens, ignore_eos=True)
        began = time.perf_counter()
        self.llm.generate(prompts, params)
        self.llm._engine.drain()
        return time.perf_counter() - began

    def measure(self) -> list[float]:
        """Ratios of seconds with recording to seconds without, one a pair."""
        self.warm = [self.run(is_recorded) for is_recorded in (True, False)][:1]
        ratios = []
        for pair in range(self._asked.pairs):
            took = {is_recorded: self.run(is_recorded) for is_recorded in ((True, False), (False, True))[pair % 2]}
            for is_recorded, seconds in took.items():
                self.seconds[is_recorded].append(seconds)
            ratios.append(took[True] / took[False])
        return ratios


def interval(ratios: list[float]) -> tuple[float, float]:
    """Of the median, by resampling."""
    draw = random.Random(1)
    medians = sorted(statistics.median(draw.choices(ratios, k=len(ratios))) for _ in range(4000))
    return medians[100], medians[3899]


def written(directory: str, num_prompt: int, num_bytes: int) -> dict[str, float]:
    """Bytes, and what they were for."""
    recording = Recording.open(directory)
    assert not recording.damage
    steps = sum(isinstance(entry, Ran) for entry in recording.entries())
    stories = recording.requests()
    tokens = sum(len(line.tokens) for story in stories for line in story.lines.values())
    allowed = 16 * (tokens + num_prompt * len(stories)) + 200 * steps
    return {
        "bytes": num_bytes,
        "steps": steps,
        "generated_tokens": tokens,
        "prompt_tokens": num_prompt * len(stories),
        "bytes_per_step": num_bytes / steps,
        "bytes_per_token": num_bytes / (tokens + num_prompt * len(stories)),
        "share_of_allowed": num_bytes / allowed,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=None, help="a checkpoint; default: the embedded model")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--streams", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--prompt", type=int, default=64)
    parser.add_argument("--pairs", type=int, default=9)
    parser.add_argument("--temperature", type=float, default=0.0)
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--private", action="store_true", help="record without prompts")
    parser.add_argument("--layers", type=int, default=None, help="stamp one row of so many")
    parser.add_argument("--stamps", action="store_true", help="what stamps alone cost")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        bench = Bench(asked, directory)
        ratios = bench.measure()
        recorder = bench.recorder
        state = recorder.recorder.state
        bench.llm.close()
        low, high = interval(ratios)
        rows = asked.streams * asked.tokens
        recorded_s = sum(bench.seconds[True] + bench.warm + (bench.seconds[False] if asked.stamps else []))
        found = {
            "model": bench.llm.info.model,
            "contract": bench.llm.info.contract_id,
            "streams": asked.streams,
            "pairs": asked.pairs,
            "tok_s_without": rows / statistics.median(bench.seconds[False]),
            "tok_s_with": rows / statistics.median(bench.seconds[True]),
            "ratio": statistics.median(ratios),
            "ratio_low": low,
            "ratio_high": high,
            "recorder_us_per_step": recorder.seconds / recorder.num_steps * 1e6,
            "recorder_share": recorder.seconds / recorded_s,
        }
        print(json.dumps(found | written(directory, asked.prompt, state.num_bytes), indent=1))


if __name__ == "__main__":
    main()
