"""Overhead: what HTTP and another process cost, beside the same sequences through LLM.generate in one process.

Both are alive all along and work in turn: in process, served, in process, served. The share is that of the throughput,
prompts included, which the server loses, and the median of the turns.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from typing import Any

from engines import turns
from engines.table import Test
from traffic import prompts
from traffic.answer import understand
from traffic.client import Address, replay
from traffic.prompts import Wording
from traffic.trace import Arrival


def measure(
    address: Address, wording: Wording, worker: turns.Worker, test: Test, num_turns: int, limit_s: float, pause_s: float
) -> dict[str, Any]:
    """Both, in turn. Raises EngineStopped when the one in process ends."""
    found = []
    for turn in range(num_turns):
        time.sleep(pause_s)
        inside = worker.ask(test, 1000 + turn, wording.vocabulary, limit_s)
        time.sleep(pause_s)
        served_s, failures = _served(address, wording, test, turn, limit_s)
        if failures:
            return {"left_out": f"requests failed: {', '.join(sorted(failures))}"}
        found.append((inside["all_s"], served_s))
    num_tokens = test.streams * test.tokens
    return {
        "streams": test.streams,
        "prompt": test.prompt,
        "tokens": test.tokens,
        "turns": len(found),
        "in_process_tok_s": statistics.median(num_tokens / inside for inside, _ in found),
        "served_tok_s": statistics.median(num_tokens / served for _, served in found),
        "lost": statistics.median(1 - inside / served for inside, served in found),
        "lost_by_turn": [1 - inside / served for inside, served in found],
    }


def _served(address: Address, wording: Wording, test: Test, turn: int, limit_s: float) -> tuple[float, set[str]]:
    arrivals = [Arrival(0.0, test.prompt, test.tokens)] * test.streams
    drawn = [prompts.draw(wording, f"overhead {turn} {at}", test.prompt) for at in range(test.streams)]
    bodies = [prompts.body(ids, test.tokens, wording) for ids in drawn]
    answers = [understand(each) for each in asyncio.run(replay(address, wording.route, arrivals, bodies, limit_s))]
    took_s = max(each.ended_s for each in answers) - min(each.due_s for each in answers)
    return took_s, {each.failure for each in answers if each.failure}
