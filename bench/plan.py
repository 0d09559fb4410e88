"""What scheduling costs: microseconds a sequence for one turn (plan and commit) without a model. The aim is 50.

    python bench/plan.py [--sequences 1,16,128] [--known 1024] [--tenants 8]

The runner answers at once, so nearly all the time is the scheduler's. Every figure is the best of several runs over the
same steps: the others were disturbed. "decode" is the usual step; "pressure" has a cache too small for everybody, so
that sequences are preempted and come back from the prefix cache; "waiting" has a thousand more in the queue.
"""

from __future__ import annotations

import argparse
import time

from openwork.core.request import Limits, Request, SamplingParams
from openwork.core.settings import CacheSettings, ScheduleSettings
from openwork.core.step import Choice, Outcome, Result
from openwork.core.terms import Terms
from openwork.kv.cache import KVCache
from openwork.schedule.scheduler import Scheduler

RUNS, STEPS = 5, 60


def measure(sequences: int, known: int, tenants: int, kind: str, is_fair: bool) -> tuple[float, float]:
    """Microseconds a planned sequence, of plan and of plan and commit together."""
    per = -(-(known + STEPS) // 16)
    blocks = sequences * per * 3 // 4 if kind == "pressure" else sequences * (per + 2) + 8
    cache = KVCache(CacheSettings(blocks))
    scheduler = Scheduler(ScheduleSettings(sequences * known, sequences, is_fair=is_fair), cache)
    limits = Limits(1 << 20, blocks * 16)
    for number in range(sequences + (1000 if kind == "waiting" else 0)):
        prompt = tuple(number * 7919 % 1000 + place for place in range(known))
        how = SamplingParams(max_tokens=STEPS + 20, ignore_eos=True)
        scheduler.add(number, Request(prompt, how, limits, Terms(tenant=str(number % tenants))), 0.0)
    planning = whole = 0.0
    planned = 0
    for turn in range(STEPS):
        began = time.perf_counter()
        step, _ = scheduler.plan(float(turn))
        middle = time.perf_counter()
        assert step is not None
        outcomes = tuple(Outcome(tuple(Choice(1 + turn) for _ in work.draws)) for work in step.works)
        result = Result(step.number, outcomes, 0.01)
        late = time.perf_counter()
        scheduler.commit(step, result, float(turn))
        if turn:  # the first step computes the prompts
            planning += middle - began
            whole += middle - began + time.perf_counter() - late
            planned += len(step.works)
    return planning / planned * 1e6, whole / planned * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sequences", default="1,16,128", help="running at a time, comma separated")
    parser.add_argument("--known", type=int, default=1024, help="tokens of each prompt")
    parser.add_argument("--tenants", type=int, default=8, help="among whom the requests are dealt")
    asked = parser.parse_args()
    for kind in ("decode", "waiting", "pressure"):
        for is_fair in (False, True):
            for sequences in map(int, asked.sequences.split(",")):
                if kind == "pressure" and sequences < 4:
                    continue
                runs = [measure(sequences, asked.known, asked.tenants, kind, is_fair) for _ in range(RUNS)]
                plan, whole = min(run[0] for run in runs), min(run[1] for run in runs)
                name = f"{kind}{', fair' if is_fair else ''}"
                print(f"{name:15s} {sequences:4d} sequences   plan {plan:6.1f} us   with commit {whole:6.1f} us")


if __name__ == "__main__":
    main()
