"""One engine in a process of its own: it answers what the benchmark asks, one JSON object a line.

    asked     {"streams": 8, "prompt": 128, "tokens": 32, "seed": 5, "vocabulary": 100000}
    answered  {"first_s": until every stream has its first token, "all_s": until all have all, "peak_bytes": so far}

It runs in whatever interpreter an engine needs, and imports only the standard library. What a library prints goes to
standard error, so that the answers stay clean.
"""

from __future__ import annotations

import json
import os
import random
import sys
from collections.abc import Callable
from typing import Protocol


class Engine(Protocol):
    """What each engine's file makes of its library."""

    def run(self, prompts: list[list[int]], tokens: int) -> tuple[float, float]:
        """Continue every prompt by ``tokens`` tokens, greedily and past any end token, all at the same time.

        Returns the seconds until every prompt has its first token, and until all have all of theirs.
        """


def serve(make: Callable[[str, int, dict[str, str]], Engine]) -> None:
    """Make the engine that the command line describes, MODEL THREADS NAME=VALUE ..., and answer until the end."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    options = dict(option.split("=", 1) for option in sys.argv[3:])
    engine = make(sys.argv[1], int(sys.argv[2]), options)
    for line in sys.stdin:
        asked = json.loads(line)
        draw = random.Random(asked["seed"])
        prompts = [
            [draw.randrange(asked["vocabulary"]) for _ in range(asked["prompt"])] for _ in range(asked["streams"])
        ]
        first, total = engine.run(prompts, asked["tokens"])
        answer = {"first_s": first, "all_s": total, "peak_bytes": peak_bytes(), **getattr(engine, "costs", {})}
        answers.write(json.dumps(answer) + "\n")
    os._exit(0)  # some libraries take seconds to end, or never do


def peak_bytes() -> int | None:
    """The most memory that this process has held. Linux tells it."""
    try:
        with open("/proc/self/status", encoding="ascii", errors="replace") as file:
            return next((int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM:")), None)
    except OSError:
        return None
