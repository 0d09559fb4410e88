"""Servers under traffic: replay a trace against any OpenAI-compatible server, or against several in turn.

    python bench/serve.py --url http://127.0.0.1:8000 [--trace bench/traces/mixed.jsonl] [--speed 1,2,4]
    python bench/serve.py --start openwork=PYTHON --start vllm=PYTHON --start llama.cpp=LLAMA_SERVER
                          [--shape qwen3-0.6b] [--bits 16] [--measure replay,stall,overhead,restart]
                          [--turns 3] [--directory DIR] [--output FILE] [--json]
    python bench/serve.py --show FILE          the tables of results that were kept with --output

Requests are sent when the trace says, whether or not earlier ones were answered. A trace is a CSV of Azure's form or
JSON lines of Mooncake's. Servers that --start names run on loopback, all at the same time, and take turns; the one
named first is compared with each other one. --key gives the API key of a tenant, or "=KEY" that of everybody else.
Servers that run already need nothing but Python here; to start any, this wants to run where openwork is installed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from engines import turns
from engines.table import OURS
from traffic import compare, figures, measure, report, servers, trace
from traffic.client import Address

HERE = Path(__file__).parent
PAUSE_S = 0.5  # between the turns of servers that share a machine


def main() -> None:
    asked = parse()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that servers are ended, too
    if asked.show is not None:
        print(report.table(json.loads(asked.show.read_text())))
        return
    record: dict[str, Any] = {
        "model": f"{asked.shape}, {asked.bits} bits" if asked.start else ", ".join(where for _, where in asked.url),
        "threads": asked.threads,
        "targets": {"first_s": asked.first_target, "gap_s": asked.gap_target},
        "seed": asked.seed,
        "replay": [],
        "compared": [],
        "skipped": [],
    }
    try:
        plan = planned(asked, record)
        with contextlib.ExitStack() as stack:
            targets = list(found(asked, stack))
            for target in targets:
                if failure := measure.warm(target, plan):
                    raise servers.ServerStopped(f"{target.name} does not answer a short request: {failure}")
            for kind in asked.measure:
                for part in measure.MEASURES[kind](targets, plan):
                    record.setdefault(kind, []).append(part)
                    keep(record, [target.name for target in targets], asked.output)
    except (trace.TraceError, servers.ServerStopped, turns.EngineStopped) as error:
        sys.exit(str(error))
    print(json.dumps(record) if asked.json else report.table(record))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--url", action="append", type=url, default=[], metavar="[NAME=]URL", help="a server that runs already")
    add("--start", action="append", type=start, default=[], metavar="NAME=PROGRAM", help=", ".join(servers.KINDS))
    add("--trace", type=Path, action="append", help="may be given several times; default: traces/shared-prefix.jsonl")
    add("--first", type=int, help="only so many requests of each trace")
    add("--speed", type=numbers, default=[1.0], help="how many times faster requests come, comma separated")
    add("--turns", type=int, default=3, help="every server so many times")
    add("--measure", type=measures, default=["replay"], help="of " + ",".join(measure.MEASURES))
    add("--first-target", type=float, default=2.0, help="seconds to the first token that goodput asks for")
    add("--gap-target", type=float, default=0.2, help="seconds between tokens that goodput asks for")
    add("--limit", type=float, default=300, help="seconds after which a request is given up")
    add("--wait", type=float, default=30, help="seconds that a server named by --url has to list a model")
    add("--form", choices=("ids", "text", "chat"), default="ids", help="how prompts are put; ids have exact lengths")
    add("--vocabulary", type=int, default=100_000, help="prompts are drawn from the ids below")
    add("--key", action="append", type=pair, default=[], metavar="[TENANT]=KEY")
    add("--context", type=int, default=8192, help="requests that are longer are left out")
    add("--seed", default=str(time.time_ns()), help="prompts of a seed that a server has seen are in its cache")
    add("--shape", default="qwen3-0.6b", choices=("qwen3-0.6b", "llama-3.2-1b", "tiny"))
    add("--bits", type=int, default=16, choices=(16, 8, 4), help="of a weight")
    add("--threads", type=int, default=len(os.sched_getaffinity(0)))
    add("--quantizer", default=sys.executable, help="an interpreter with llama_cpp, when its form must be made")
    add("--directory", type=Path, default=Path(tempfile.gettempdir(), "openwork-peers"), help="for models and logs")
    add("--output", type=Path, help="a file that keeps the results, written after each of them")
    add("--answers", type=Path, help="a file for every answer with the time of each chunk, as JSON lines")
    add("--json", action="store_true", help="one JSON object in place of the tables")
    add("--show", type=Path, help="only print the tables of a file that --output wrote")
    asked = parser.parse_args()
    if asked.show is None and bool(asked.url) == bool(asked.start):
        parser.error("either --url or --start: servers that run already, or servers to be started")
    asked.trace = asked.trace or [HERE / "traces" / "shared-prefix.jsonl"]
    return asked


def pair(text: str) -> tuple[str, str]:
    name, is_there, value = text.partition("=")
    if not is_there:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    return name, value


def url(text: str) -> tuple[str, str]:
    name, value = pair(text) if "=" in text else ("server", text)
    parts = urlsplit(value)
    if parts.scheme != "http" or not parts.hostname:
        raise argparse.ArgumentTypeError(f"{value!r} is not http://HOST:PORT")
    return name, value


def start(text: str) -> tuple[str, str]:
    name, program = pair(text)
    if name not in servers.KINDS:
        raise argparse.ArgumentTypeError(f"there is no {name!r}; there are {', '.join(servers.KINDS)}")
    return name, program


def numbers(text: str) -> list[float]:
    return [float(each) for each in text.split(",")]


def measures(text: str) -> list[str]:
    if unknown := [name for name in text.split(",") if name not in measure.MEASURES]:
        raise argparse.ArgumentTypeError(f"there is no {unknown[0]!r}; there are {', '.join(measure.MEASURES)}")
    return text.split(",")


def planned(asked: argparse.Namespace, record: dict[str, Any]) -> measure.Plan:
    """What was asked for, its traces read. What a context cannot hold is left out and said. Raises TraceError."""
    traces = {}
    for path in asked.trace if "replay" in asked.measure else ():
        arrivals = trace.read(path, asked.first)
        traces[path.stem] = trace.within(arrivals, asked.context)
        if num_long := len(arrivals) - len(traces[path.stem]):
            record["skipped"].append(f"{num_long} of {path.name}: longer than a context of {asked.context}")
        if not traces[path.stem]:
            raise trace.TraceError(f"no request of {path} fits into a context of {asked.context}")
    asked.directory.mkdir(parents=True, exist_ok=True)
    return measure.Plan(
        traces,
        asked.speed,
        asked.turns,
        figures.Targets(asked.first_target, asked.gap_target),
        asked.limit,
        PAUSE_S if asked.start else 0.0,
        asked.form,
        asked.vocabulary,
        asked.seed,
        answers=asked.answers,
        log=asked.directory / "in-process.log",
    )


def found(asked: argparse.Namespace, stack: contextlib.ExitStack) -> Iterator[measure.Target]:
    """Every server that was named, ready. Those that are started end with the stack. Raises ServerStopped."""
    for name, where in asked.url:
        parts = urlsplit(where)
        address = Address(str(parts.hostname), parts.port or 80, dict(asked.key))
        if (model := servers.wait_for(address, asked.wait)) is None:
            raise servers.ServerStopped(f"{where} lists no model")
        yield measure.Target(name, address, model)
    load = servers.Load(asked.threads, asked.context, bits=asked.bits)
    for name, program in asked.start:
        if asked.bits not in servers.KINDS[name].forms:
            raise servers.ServerStopped(f"{name} has no {asked.bits}-bit form here")
        from engines import forms  # needs openwork

        form = servers.KINDS[name].forms[asked.bits]
        model_path = forms.make(form, asked.shape, asked.directory, {"llama.cpp": asked.quantizer})
        server = servers.make(name, program, model_path, load, asked.directory / f"{name}-server.log")
        stack.enter_context(server)
        model = server.wait(servers.START_S)
        yield measure.Target(name, server.address, model, server, in_process(name, program, model_path, load))


def in_process(name: str, program: str, model: Path, load: servers.Load) -> turns.Command | None:
    """Our engine without a server; nobody else's is run so here."""
    if name != "openwork":
        return None
    words = [program, HERE / "engines" / "run_generate.py", model, load.threads, f"dtype={OURS[load.bits]}"]
    return turns.Command([*map(str, words)], dict(os.environ))


def keep(record: dict[str, Any], names: list[str], output: Path | None) -> None:
    """Compare what there is so far, and write it where it is wanted."""
    turns_done = min(sum(each["server"] == name for each in record["replay"]) for name in names)
    of_each = [[each for each in record["replay"] if each["server"] == name][:turns_done] for name in names]
    record["compared"] = compare.compare([each for held in of_each for each in held], names)
    if output is not None:
        output.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
