"""Ours and a peer in turn: ours, peer, ours, peer ... Each in a process of its own that waits while the other works.

A ratio is taken turn by turn and says how many times better ours is: tokens a second over the peer's, or the peer's
seconds and bytes over ours. Medians are told. Before each turn the read bandwidth of that moment is measured.
"""

from __future__ import annotations

import contextlib
import json
import selectors
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any

from engines.table import Test

PAUSE_S = 0.4  # the threads of some engines spin for a while after their work


class EngineStopped(Exception):
    """An engine ended, or did not answer in time: its own words, as far as there are any."""


@dataclass(frozen=True)
class Command:
    """How a worker is started."""

    words: Sequence[str]
    variables: Mapping[str, str]


class Worker:
    """A running engine. ``start_s`` is the time from its process's start to its first token."""

    def __init__(self, command: Command, log: IO[str], limit_s: float) -> None:
        began = time.perf_counter()
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(
            command.words, env=dict(command.variables), stdin=pipe, stdout=pipe, stderr=log, text=True
        )
        try:
            self.first = self.ask(Test("", "", 1, 8, 1), 0, 100, limit_s)
        except EngineStopped:
            self.close()
            raise
        self.start_s = time.perf_counter() - began

    def ask(self, test: Test, seed: int, vocabulary: int, limit_s: float) -> dict[str, Any]:
        """Run a test once. Raises EngineStopped."""
        assert self._process.stdin is not None and self._process.stdout is not None
        asked = {"streams": test.streams, "prompt": test.prompt, "tokens": test.tokens}
        try:
            self._process.stdin.write(json.dumps({**asked, "seed": seed, "vocabulary": vocabulary}) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise EngineStopped("the engine has ended") from None
        with selectors.DefaultSelector() as ready:
            ready.register(self._process.stdout, selectors.EVENT_READ)
            if not ready.select(limit_s):
                raise EngineStopped(f"no answer within {limit_s:.0f} s")
        line = self._process.stdout.readline()
        if not line:
            raise EngineStopped(f"the engine ended with {self._process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        self._process.kill()  # it holds nothing that wants saving
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()


@dataclass(frozen=True)
class Pace:
    """How long it may take: turns at most, seconds after which no new turn begins, seconds for one answer."""

    turns: int
    seconds: float
    limit_s: float


def work(
    ours: Worker, peer: Worker, test: Test, vocabulary: int, pace: Pace, probe: Callable[[], float]
) -> dict[str, Any]:
    """Both at one test. Raises EngineStopped."""
    found, read = [], []
    for seed in _turns(pace):
        read.append(probe())
        answers = []
        for worker in (ours, peer):
            time.sleep(PAUSE_S)
            answers.append(worker.ask(test, seed, vocabulary, pace.limit_s))
        found.append(answers)
    record = {"turns": len(found), "read_gb_s": statistics.median(read) / 1e9}
    record["prefill"] = _rates(found, lambda each: test.streams * test.prompt / each["first_s"])
    after_first = test.streams * (test.tokens - 1)
    record["decode"] = _rates(found, lambda each: after_first / (each["all_s"] - each["first_s"]))
    return record | {key: value for key, value in found[-1][0].items() if key.endswith("_cost")}


def starts(ours: Command, peer: Command, log: IO[str], pace: Pace) -> dict[str, Any]:
    """New processes of both in turn, each once unmeasured: it reads the files into memory. Raises EngineStopped."""
    found: list[list[dict[str, Any]]] = []
    for _ in _turns(Pace(pace.turns + 1, pace.seconds, pace.limit_s)):
        found.append([])
        for command in (ours, peer):
            worker = Worker(command, log, pace.limit_s)
            found[-1].append({"start_s": worker.start_s, "peak_bytes": worker.first["peak_bytes"]})
            worker.close()
    warm = found[1:] or found
    return {
        "turns": len(warm),
        "start_s": _costs(warm, "start_s"),
        "start_peak_bytes": _costs(warm, "peak_bytes"),
    }


def _turns(pace: Pace) -> list[int] | Any:
    began = time.perf_counter()
    for turn in range(pace.turns):
        if turn and time.perf_counter() - began > pace.seconds:
            return
        yield turn


def _rates(found: list[list[dict[str, Any]]], rate: Callable[[dict[str, Any]], float]) -> dict[str, float]:
    pairs = [(rate(ours), rate(peer)) for ours, peer in found]
    return _medians(pairs, [ours / peer for ours, peer in pairs])


def _costs(found: list[list[dict[str, Any]]], key: str) -> dict[str, float]:
    pairs = [(ours[key], peer[key]) for ours, peer in found]
    return _medians(pairs, [peer / ours for ours, peer in pairs])


def _medians(pairs: list[tuple[float, float]], ratios: list[float]) -> dict[str, float]:
    ours, peers = zip(*pairs, strict=True)
    return {
        "ours": statistics.median(ours),
        "peer": statistics.median(peers),
        "ratio": statistics.median(ratios),
    }
