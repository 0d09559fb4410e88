"""What-if's predictions: what was predicted from a recording, beside what the same arrivals really came to.

    python bench/whatif.py [--model M] [--load chat,crowd,...] [--ask no-prefix,half-memory,...] [--turns 2]
                           [--scale 1.0] [--seed 0] [--json]

Each turn serves a load as it is and then under every other setting, all of them recorded. Time is counted in processor
seconds of one thread, in which a busy machine shows less, unless --clock wall is asked for. Predicted is from the first
run as it was, of which nothing else is used. Printed are, for each figure, the real one (the median of the turns) and
how far the turns lie apart, for no prediction can be better than that; the prediction, its interval, and whether the
real one is in it.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from openwork.build import wire
from openwork.core.request import Request, SamplingParams
from openwork.core.settings import (
    AdmissionSettings,
    LoadSettings,
    RecordSettings,
    ScheduleSettings,
    SpeculationSettings,
)
from openwork.core.step import Result, Step
from openwork.core.terms import Tenants, Terms
from openwork.engine.loop import Loop
from openwork.engine.service import Engine
from openwork.kv.cache import KVCache
from openwork.run.runner import TensorRunner
from openwork.schedule.scheduler import Scheduler
from openwork.trace.recording import Recording
from openwork.trace.whatif.arrivals import collect
from openwork.trace.whatif.change import Change
from openwork.trace.whatif.oracle import Oracle
from openwork.wiring import make_recorder

FIGURES = ("duration_s", "output_tok_s", "first_token_p50_s", "first_token_p99_s", "gap_p50_s", "gap_p99_s")
COUNTS = ("preemptions", "hit_rate", "steps")


@dataclass(frozen=True)
class Ask:
    """One thing that is asked: the change that what-if is told, and the settings that are really served with."""

    change: Change
    schedule: Callable[[ScheduleSettings], ScheduleSettings] = lambda was: was
    blocks: float = 1.0
    prefix: bool = True


ASKS = {
    "as-it-was": Ask(Change()),
    "no-prefix": Ask(Change(prefix=False), prefix=False),
    "half-memory": Ask(Change(blocks_factor=0.5), blocks=0.5),
    "twice-memory": Ask(Change(blocks_factor=2.0), blocks=2.0),
    "rows-160": Ask(Change(max_step_tokens=160), lambda was: replace(was, max_step_tokens=160)),
    "stretch-1.5": Ask(Change(stretch=1.5), lambda was: replace(was, stretch=1.5)),
    "prefill-first": Ask(Change(first="prefill"), lambda was: replace(was, first="prefill")),
    "running-8": Ask(Change(max_running=8), lambda was: replace(was, max_running=8)),
    "fair": Ask(Change(is_fair=True), lambda was: replace(was, is_fair=True)),
    "guessing": Ask(
        Change(speculation=SpeculationSettings()), lambda was: replace(was, speculation=SpeculationSettings())
    ),
}


@dataclass(frozen=True)
class Load:
    """Arrivals as (seconds, tenant, prompt, tokens of the answer), and tokens that the cache has room for."""

    arrivals: list[tuple[float, str, tuple[int, ...], int]]
    tokens: int


class Loads:
    """Drawn loads; ``scale`` stretches all times, for models that are slower, and ``part`` is of the requests."""

    def __init__(self, seed: int, scale: float, part: float, vocab: int) -> None:
        self._random = random.Random(seed)
        self._scale = scale
        self._part = part
        self._vocab = vocab

    def _words(self, count: int) -> tuple[int, ...]:
        return tuple(self._random.randrange(self._vocab // 8, self._vocab) for _ in range(count))

    def _times(self, count: int, per_s: float) -> list[float]:
        now, times = 0.0, []
        for _ in range(round(count * self._part)):
            now += self._random.expovariate(per_s) * self._scale
            times.append(now)
        return times

    def chat(self) -> Load:
        """Conversations that begin with one of six long texts, and answers of all lengths."""
        texts = [self._words(200) for _ in range(6)]
        random_ = self._random
        return Load(
            [
                (at, f"t{random_.randrange(3)}", random_.choice(texts) + self._words(20), random_.randint(10, 100))
                for at in self._times(240, 30)
            ],
            16_000,
        )

    def crowd(self) -> Load:
        """More at once than the cache holds: it preempts."""
        random_ = self._random
        return Load([(at, "crowd", self._words(random_.randint(20, 120)), 120) for at in self._times(160, 60)], 6_000)

    def prompts(self) -> Load:
        """Streams, and long prompts that come between."""
        streams = [(at, "chat", self._words(30), 200) for at in self._times(40, 6)]
        return Load(streams + [(at, "reports", self._words(380), 4) for at in self._times(40, 6)], 16_000)


class Counted:
    """A clock that shows processor time, and a runner that turns it: what others do on the machine counts for little.

    Steps are computed for real, in one thread, when they are submitted; what a scheduler takes is not counted.
    """

    def __init__(self, runner: TensorRunner) -> None:
        self._runner = runner
        self._now = self._free_at = 0.0

    def now(self) -> float:
        return self._now

    def wait(self, until: float) -> None:
        self._now = max(self._now, until)

    def submit(self, step: Step) -> tuple[float, Result]:
        began = time.process_time()
        result = self._runner.run(step)
        took = time.process_time() - began
        self._free_at = max(self._now, self._free_at) + took
        return self._free_at, replace(result, elapsed_s=took)

    def collect(self, ticket: tuple[float, Result]) -> Result:
        self.wait(ticket[0])
        return ticket[1]

    def close(self, wait: bool = True) -> None:
        self._runner.close(wait)


class Bench:
    def __init__(self, asked: argparse.Namespace, scratch: Path) -> None:
        self._asked = asked
        self._scratch = scratch
        self._count = 0
        load = LoadSettings(context=asked.context, kv_cache_bytes=64 << 20)
        wired = wire(asked.model, load, ScheduleSettings(), AdmissionSettings(), Tenants())
        wired.runner.close()
        self._block_bytes = wired.info.kv_bytes // wired.info.num_blocks
        self.vocab = wired.limits.vocab_size

    def serve(self, load: Load, ask: Ask) -> Path:
        """Serve the arrivals at their times; where it was recorded."""
        blocks = int(load.tokens / 16 * ask.blocks)
        threads = 1 if self._asked.clock == "processor" else None
        settings = LoadSettings(context=self._asked.context, kv_cache_bytes=blocks * self._block_bytes, threads=threads)
        schedule = ask.schedule(ScheduleSettings(max_running=64, max_step_tokens=self._asked.rows))
        wired = wire(self._asked.model, settings, schedule, AdmissionSettings(), Tenants())
        if not ask.prefix:  # no face offers it: a cache of other settings is put in
            cache = replace(wired.cache, prefix=False)
            scheduler = Scheduler(schedule, KVCache(cache, Tenants()), AdmissionSettings())
            wired = replace(wired, cache=cache, scheduler=scheduler)
        if threads == 1:
            counted = Counted(wired.runner)
            wired = replace(wired, clock=counted, runner=counted)
        self._count += 1
        where = self._scratch / str(self._count)
        recorder = make_recorder(RecordSettings(directory=str(where), keeps_prompts=True), wired)
        engine = Engine(Loop(wired.scheduler, wired.runner, wired.clock, recorder))
        began, left = wired.clock.now(), sorted(load.arrivals, reverse=True)
        while left or not engine.is_idle:
            while left and began + left[-1][0] <= wired.clock.now():
                _, tenant, prompt, count = left.pop()
                params = SamplingParams(max_tokens=count, ignore_eos=True)
                engine.submit(Request(prompt, params, wired.limits, Terms(tenant=tenant)))
            if engine.is_idle:
                wired.clock.wait(began + left[-1][0])
            else:
                engine.turn()
        engine.close()
        return where

    def measure(self, name: str, asks: list[str]) -> list[dict[str, Any]]:
        """One record for each thing that is asked."""
        load = getattr(Loads(self._asked.seed, self._asked.scale, self._asked.part, self.vocab), name)()
        runs: dict[str, list[dict[str, Any]]] = {ask: [] for ask in ["as-it-was", *asks]}
        first = None
        for _ in range(self._asked.turns):
            for ask, found in runs.items():
                recorded = collect(Recording.open(self.serve(load, ASKS[ask])).entries())
                first = first or recorded
                figures = recorded.counting.figures()
                found.append({each: getattr(figures, each) for each in (*FIGURES, *COUNTS)})
        assert first is not None
        oracle = Oracle(first)
        return [self._compared(name, ask, runs[ask], oracle.answer(ASKS[ask].change)) for ask in runs]

    @staticmethod
    def _compared(load: str, ask: str, runs: list[dict[str, Any]], document: dict[str, Any]) -> dict[str, Any]:
        predicted = {each["name"]: each for each in document["figures"]}
        figures = {}
        for name in (*FIGURES, *COUNTS):
            real = [run[name] for run in runs]
            each = predicted[name]
            figures[name] = {"real": real, "predicted": each["what_if"], "interval": each.get("interval")}
        return {"load": load, "ask": ask, "figures": figures, "cost": document["cost"]}


def table(records: list[dict[str, Any]]) -> str:
    lines = []
    for record in records:
        lines.append(f"{record['load']}, {record['ask']}")
        for name, each in record["figures"].items():
            real = [value for value in each["real"] if value is not None]
            middle = statistics.median(real) if real else None
            if middle is None or each["predicted"] is None:
                continue
            off = f"{each['predicted'] / middle - 1:+.0%}" if middle else ""
            spread = f"{max(real) / min(real) - 1:.0%}" if min(real) > 0 else ""
            interval, held = "", ""
            if each["interval"]:
                low, high = each["interval"]
                interval, held = f"{low:.4g}..{high:.4g}", "in" if low <= middle <= high else "OUT"
            lines.append(
                f"  {name:18} real {middle:10.4g} (apart {spread:>5})  predicted {each['predicted']:10.4g} {off:>6} "
                f"{interval} {held}"
            )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--model", default=None, help="a checkpoint; default: the embedded model")
    add("--load", default="chat,crowd,prompts")
    add("--ask", default=",".join(each for each in ASKS if each != "as-it-was"))
    add("--clock", choices=("processor", "wall"), default="processor", help="wall: two threads, as it is served")
    add("--turns", type=int, default=2)
    add("--scale", type=float, default=1.0, help="times so long between arrivals")
    add("--part", type=float, default=1.0, help="of the requests of a load")
    add("--context", type=int, default=512)
    add("--rows", type=int, default=512, help="of a step at most, as it was")
    add("--seed", type=int, default=0)
    add("--keep", type=Path, help="a directory that keeps the recordings")
    add("--json", action="store_true")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        bench = Bench(asked, asked.keep or Path(scratch))
        records = []
        for load in asked.load.split(","):
            found = bench.measure(load, asked.ask.split(",") if asked.ask else [])
            records += found
            if not asked.json:
                print(table(found), flush=True)
    if asked.json:
        print(json.dumps(records))


if __name__ == "__main__":
    main()
