"""Measuring: every server in turn at the same work, and what each turn found.

Each measure yields a record for every turn as soon as there is one. No two turns have prompts in common, whichever
server they are for, so that a prefix cache finds only what the trace itself repeats.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from engines import turns
from engines.table import Test
from traffic import figures, overhead, prompts, special, trace
from traffic.answer import Answer, understand
from traffic.client import Address, replay, send
from traffic.figures import Targets
from traffic.quiet import Watch
from traffic.servers import Server, processor_s

OVERHEAD = Test("overhead", "32 streams, prompt 128", 32, 128, 64)


@dataclass(frozen=True)
class Target:
    """A server that answers: what it serves, and its processes when they are ours."""

    name: str
    address: Address
    model: str
    server: Server | None = None
    in_process: turns.Command | None = None  # the same engine without a server, where there is a way to run it

    def processor_s(self) -> float:
        """Processor time that its processes have taken so far; 0 when they are not ours."""
        return sum(processor_s(self.server.pid).values()) if self.server else 0.0


@dataclass(frozen=True)
class Plan:
    """What is to be measured, and how."""

    traces: Mapping[str, Sequence[trace.Arrival]]
    speeds: Sequence[float] = (1.0,)
    turns: int = 3
    targets: Targets = field(default_factory=Targets)
    limit_s: float = 300.0
    pause_s: float = 0.0  # before each replay: the threads of some engines spin for a while after their work
    form: str = "ids"
    vocabulary: int = 100_000
    seed: str = ""
    stall: special.Stall = field(default_factory=special.Stall)
    answers: Path | None = None  # where every answer is written
    log: Path = Path(os.devnull)  # what an engine in process says

    def wording(self, target: Target, *turn: object) -> prompts.Wording:
        """How a server is asked in a turn."""
        seed = " ".join(map(str, (self.seed, target.name, *turn)))
        return prompts.Wording(target.model, self.form, self.vocabulary, seed)


def warm(target: Target, plan: Plan) -> str:
    """One short request, so that no first turn pays for what is done once; how it failed, or nothing."""
    wording = plan.wording(target, "warm")
    body = prompts.body(prompts.draw(wording, "warm", 16), 4, wording)
    request = target.address.request("POST", wording.route, body)
    return understand(asyncio.run(send(target.address, request, plan.limit_s))).failure


def replays(targets: Sequence[Target], plan: Plan) -> Iterator[dict[str, Any]]:
    """Each trace at each speed, by every server in turn."""
    for name, arrivals in plan.traces.items():
        for speed in plan.speeds:
            wanted = trace.faster(arrivals, speed)
            for turn in range(plan.turns):
                for target in targets:
                    pids = [each.server.pid for each in targets if each.server]
                    before_s = target.processor_s()
                    with Watch(pids) as watch:
                        answers = _replay(target, wanted, plan.wording(target, name, speed, turn), plan)
                    spent_s = target.processor_s() - before_s
                    head = {"server": target.name, "trace": name, "speed": speed, "turn": turn}
                    head |= {"others": watch.others, "client_stalled_s": watch.stalled_s}
                    head |= {"processor_s": spent_s if target.server else None}
                    if plan.answers is not None:
                        _keep(plan.answers, head, wanted, answers)
                    yield head | figures.summary(wanted, answers, plan.targets)


def _replay(target: Target, arrivals: Sequence[trace.Arrival], wording: prompts.Wording, plan: Plan) -> list[Answer]:
    bodies = prompts.bodies(arrivals, wording)
    time.sleep(plan.pause_s)
    exchanges = asyncio.run(replay(target.address, wording.route, arrivals, bodies, plan.limit_s))
    return [understand(exchange) for exchange in exchanges]


def _keep(path: Path, head: dict[str, Any], arrivals: Sequence[trace.Arrival], answers: Sequence[Answer]) -> None:
    with path.open("a", encoding="utf-8") as file:
        for arrival, answer in zip(arrivals, answers, strict=True):
            file.write(json.dumps({**head, **asdict(arrival), **asdict(answer)}) + "\n")


def stalls(targets: Sequence[Target], plan: Plan) -> Iterator[dict[str, Any]]:
    """The gaps of running streams during a long prompt, of every server."""
    for target in targets:
        time.sleep(plan.pause_s)
        yield {"server": target.name} | asyncio.run(
            special.stall(target.address, plan.wording(target, "stall"), plan.stall)
        )


def overheads(targets: Sequence[Target], plan: Plan) -> Iterator[dict[str, Any]]:
    """What serving costs beside the same engine in process, where it can run so."""
    for target in targets:
        if target.in_process is None:
            continue
        with plan.log.open("a") as log, closing(turns.Worker(target.in_process, log, plan.limit_s)) as worker:
            wording = plan.wording(target, "overhead")
            pid = target.server.pid if target.server else None
            how = overhead.How(OVERHEAD, plan.turns, plan.limit_s, plan.pause_s)
            found = overhead.measure(target.address, pid, wording, worker, how)
        yield {"server": target.name} | found


def restarts(targets: Sequence[Target], plan: Plan) -> Iterator[dict[str, Any]]:
    """The engine of every server that we started, killed under its streams. Servers may not outlive it: to be last."""
    for target in targets:
        if target.server is not None:
            wording = plan.wording(target, "restart")
            yield {"server": target.name} | asyncio.run(special.restart(target.server, wording, limit_s=plan.limit_s))


MEASURES: dict[str, Callable[[Sequence[Target], Plan], Iterator[dict[str, Any]]]] = {
    "replay": replays,
    "stall": stalls,
    "overhead": overheads,
    "restart": restarts,
}
