"""Special measurements: what a long prompt does to those who are being served, and what the death of an engine does.

Both run a few long streams and disturb them once they are under way.
"""

from __future__ import annotations

import asyncio
import os
import signal
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from traffic import figures, prompts
from traffic.answer import Answer, understand
from traffic.client import Address, Exchange, send, undisturbed
from traffic.prompts import Wording
from traffic.servers import Server, children

START_PIECES = 16  # a stream is under way when so many pieces of it have come


@dataclass(frozen=True)
class Stall:
    """So many streams run; then prompts so long come, one after the other, each some seconds after the last."""

    streams: int = 4
    prompt: int = 128
    long_prompt: int = 4096
    rounds: int = 2
    quiet_s: float = 5.0
    limit_s: float = 300.0


class Streams:
    """Streams that run in the background, until they are let go."""

    def __init__(self, address: Address, wording: Wording, bodies: Sequence[bytes], limit_s: float) -> None:
        requests = [address.request("POST", wording.route, body) for body in bodies]
        self.exchanges = [Exchange(time.perf_counter()) for _ in requests]
        self._tasks = [
            asyncio.create_task(send(address, request, limit_s, exchange))
            for request, exchange in zip(requests, self.exchanges, strict=True)
        ]

    async def under_way(self) -> None:
        """Wait until each has brought some pieces, or ended."""
        while any(
            len(exchange.pieces) < START_PIECES and not task.done()
            for exchange, task in zip(self.exchanges, self._tasks, strict=True)
        ):
            await asyncio.sleep(0.02)

    async def over(self) -> list[Answer]:
        """Wait for the end of all."""
        await asyncio.gather(*self._tasks)
        return [understand(exchange) for exchange in self.exchanges]

    async def let_go(self) -> list[Answer]:
        """End those that still run; what they had brought."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        return [understand(exchange) for exchange in self.exchanges]


async def stall(address: Address, wording: Wording, how: Stall) -> dict[str, Any]:
    """The gaps of running streams while a long prompt is computed, beside those while none is."""
    drawn = [prompts.draw(wording, f"stream {at}", how.prompt) for at in range(how.streams)]
    length = how.long_prompt - how.prompt  # so that streams need no longer a context than the long prompt
    streams = Streams(address, wording, [prompts.body(ids, length, wording) for ids in drawn], how.limit_s)
    windows = []
    with undisturbed():
        await streams.under_way()
        quiet_from_s = time.perf_counter()
        for number in range(how.rounds):
            await asyncio.sleep(how.quiet_s)
            ids = prompts.draw(wording, f"long {number}", how.long_prompt)
            request = address.request("POST", wording.route, prompts.body(ids, 1, wording))
            answer = understand(await send(address, request, how.limit_s))
            windows.append((answer.sent_s, answer.ended_s, answer.failure))
        await asyncio.sleep(how.quiet_s)
        until_s = time.perf_counter()
        answers = await streams.let_go()
    idle, during = [], []
    for answer in answers:
        for before, after in zip(answer.text_times_s, answer.text_times_s[1:], strict=False):
            if any(before < ended and after > sent for sent, ended, _ in windows):
                during.append(after - before)
            elif quiet_from_s <= before and after <= until_s:
                idle.append(after - before)
    quiet, disturbed = figures.spread(idle), figures.spread(during)
    return {
        "idle_s": quiet,
        "during_s": disturbed,
        "num_during": len(during),
        "p50_ratio": disturbed["p50"] / quiet["p50"] if quiet and disturbed else None,
        "p99_ratio": disturbed["p99"] / quiet["p99"] if quiet and disturbed else None,
        "long_first_s": statistics.median(ended - sent for sent, ended, _ in windows),
        "failures": [failure for *_, failure in windows if failure],
        "streams_ended_early": sum(answer.ended_s < until_s for answer in answers),
    }


async def restart(server: Server, wording: Wording, streams: int = 8, limit_s: float = 120) -> dict[str, Any]:
    """Kill the largest process below the server's while streams run: who went on, equal to before, and after how long.

    The same requests run once undisturbed first.
    """
    drawn = [prompts.draw(wording, f"stream {at}", 128) for at in range(streams)]
    bodies = [prompts.body(ids, 128, wording) for ids in drawn]
    undisturbed_texts = [answer.text for answer in await Streams(server.address, wording, bodies, limit_s).over()]
    running = Streams(server.address, wording, bodies, limit_s)
    await running.under_way()
    below = children(server.pid)
    if not below:
        await running.let_go()
        return {"left_out": "the engine has no process of its own"}
    killed_s = time.perf_counter()
    os.kill(max(below, key=lambda pid: below[pid]), signal.SIGKILL)
    again = asyncio.create_task(serves_again(server, wording, killed_s, limit_s))
    answers = await running.over()
    whole = [answer for answer in answers if answer.is_whole]
    return {
        "streams": streams,
        "whole": len(whole),
        "equal": sum(answer.text == text for answer, text in zip(answers, undisturbed_texts, strict=True)),
        "failures": sorted({answer.failure for answer in answers if answer.failure}),
        "pause_s": figures.spread(max(answer.gaps_s) for answer in whole),
        "usual_gap_s": statistics.median([gap for answer in answers for gap in answer.gaps_s] or [0.0]),
        "serves_again_s": await again,
    }


async def serves_again(server: Server, wording: Wording, since_s: float, limit_s: float) -> float | None:
    """Seconds from ``since_s`` until a new request is answered whole, None when that does not happen in time."""
    request = server.address.request("POST", wording.route, prompts.body([prompts.LOWEST] * 8, 1, wording))
    while time.perf_counter() - since_s < limit_s and server.is_alive:
        if understand(await send(server.address, request, 10)).is_whole:
            return time.perf_counter() - since_s
        await asyncio.sleep(0.1)
    return None
