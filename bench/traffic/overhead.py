"""Overhead: what HTTP and another process cost, beside the same sequences through LLM.generate in one process.

Both are alive all along and work in turn: in process, served, in process, served. The share is that of the throughput,
prompts included, which the server loses, and the median of the turns. Processor time is told, too, because it hardly
depends on what else the machine does: that of the server's processes but the busiest one, and that of the client.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from dataclasses import dataclass
from typing import Any

from engines import turns
from engines.table import Test
from traffic import prompts
from traffic.answer import understand
from traffic.client import Address, replay
from traffic.prompts import Wording
from traffic.servers import processor_s
from traffic.trace import Arrival


@dataclass(frozen=True)
class How:
    """The work of each turn, and how long it may take; before each there is a pause."""

    test: Test
    turns: int = 3
    limit_s: float = 300.0
    pause_s: float = 0.0


def measure(address: Address, pid: int | None, wording: Wording, worker: turns.Worker, how: How) -> dict[str, Any]:
    """Both, in turn. Raises EngineStopped when the one in process ends."""
    test, found = how.test, []
    num_tokens = test.streams * test.tokens
    for turn in range(how.turns):
        time.sleep(how.pause_s)
        inside = worker.ask(test, 1000 + turn, wording.vocabulary, how.limit_s)
        time.sleep(how.pause_s)
        before = processor_s(pid) if pid else {}
        served_s, client_s, failures = _served(address, wording, test, turn, how.limit_s)
        if failures:
            return {"left_out": f"requests failed: {', '.join(sorted(failures))}"}
        after = processor_s(pid) if pid else {}
        spent = sorted(after[pid] - before.get(pid, 0.0) for pid in after)
        found.append((inside["all_s"], served_s, sum(spent[:-1]), client_s))
    return {
        "streams": test.streams,
        "prompt": test.prompt,
        "tokens": test.tokens,
        "turns": len(found),
        "in_process_tok_s": statistics.median(num_tokens / inside for inside, *_ in found),
        "served_tok_s": statistics.median(num_tokens / served for _, served, *_ in found),
        "lost": statistics.median(1 - inside / served for inside, served, *_ in found),
        "lost_by_turn": [1 - inside / served for inside, served, *_ in found],
        "beside_engine_s": statistics.median(beside / num_tokens for *_, beside, _ in found) if pid else None,
        "client_s": statistics.median(client / num_tokens for *_, client in found),
    }


def _served(address: Address, wording: Wording, test: Test, turn: int, limit_s: float) -> tuple[float, float, set[str]]:
    arrivals = [Arrival(0.0, test.prompt, test.tokens)] * test.streams
    drawn = [prompts.draw(wording, f"overhead {turn} {at}", test.prompt) for at in range(test.streams)]
    bodies = [prompts.body(ids, test.tokens, wording) for ids in drawn]
    began_s = time.process_time()
    exchanges = asyncio.run(replay(address, wording.route, arrivals, bodies, limit_s))
    client_s = time.process_time() - began_s
    answers = [understand(each) for each in exchanges]
    took_s = max(each.ended_s for each in answers) - min(each.due_s for each in answers)
    return took_s, client_s, {each.failure for each in answers if each.failure}
