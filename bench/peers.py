"""Ours beside the engines that a user would pick instead, on the same weights, in turn.

    python bench/peers.py --env llama.cpp=/path/to/python --env openvino=/path/to/python ...
                          [--shape qwen3-0.6b] [--peers NAME,...] [--tests a,b8,b32,c,e] [--turns 3] [--seconds 60]
                          [--directory DIR] [--output FILE] [--json]
    python bench/peers.py --show FILE          the table of results that were kept with --output

Each engine lives in an environment of its own, and takes part when --env names its interpreter. Without any, the script
says how to make them. One random checkpoint of a real shape is written once into --directory (some GB; it stays there
for the next time) and converted by each engine's own tools. Greedy, end tokens ignored, so many threads for everyone.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from engines import forms, report, turns
from engines.table import ENVIRONMENTS, OURS, TESTS, Peer, Test, chosen

HERE = Path(__file__).parent
VOCABULARY = 100_000  # prompts are drawn from the ids below, which every shape has


def main() -> None:
    asked = parse()
    if asked.show is not None:
        print(report.table(json.loads(asked.show.read_text())))
        return
    peers = chosen(asked.peers, asked.env.keys())
    if not peers:
        sys.exit(how_to())
    record = {"shape": asked.shape, "threads": asked.threads, "results": [], "skipped": []} | about_ours(asked)
    missing = [name for name in ENVIRONMENTS if name not in asked.env]
    record["skipped"] = [f"{name}: no environment was named" for name in missing]
    with asked.log.open("a") as log:
        for peer in peers:
            for kind, value in measure(peer, asked, log):
                record[kind].append(value)
                if asked.output is not None:
                    asked.output.write_text(json.dumps(record, indent=1) + "\n")
    print(json.dumps(record) if asked.json else report.table(record))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--env", action="append", type=environment, default=[], metavar="NAME=PYTHON", help=", ".join(ENVIRONMENTS))
    add("--shape", default="qwen3-0.6b", choices=("qwen3-0.6b", "llama-3.2-1b"))
    add(
        "--peers", type=lambda text: text.split(","), default=[], help="parts of names, such as Q8_0,vLLM; default: all"
    )
    add("--tests", type=tests, default=list(TESTS), help="of " + ",".join(each.name for each in TESTS))
    add("--turns", type=int, default=3, help="ours and the peer so many times")
    add("--seconds", type=float, default=60, help="no new turn of a test begins after these")
    add("--limit", type=float, default=300, help="seconds after which an engine that does not answer is given up")
    add("--threads", type=int, default=len(os.sched_getaffinity(0)))
    add("--kv-dtype", default="auto", help="of our keys and values")
    add("--directory", type=Path, default=Path(tempfile.gettempdir(), "openwork-peers"), help="for models")
    add("--output", type=Path, help="a file that keeps the results, written after each of them")
    add("--log", type=Path, default=Path(os.devnull), help="a file for what the engines say")
    add("--json", action="store_true", help="one JSON object in place of the table")
    add("--show", type=Path, help="only print the table of a file that --output wrote")
    asked = parser.parse_args()
    asked.env = dict(asked.env)
    return asked


def environment(text: str) -> tuple[str, str]:
    name, _, python = text.partition("=")
    if name not in ENVIRONMENTS:
        raise argparse.ArgumentTypeError(f"there is no {name!r}; there are {', '.join(ENVIRONMENTS)}")
    looks = f"import importlib.util, sys; sys.exit(importlib.util.find_spec({ENVIRONMENTS[name].module!r}) is None)"
    found = subprocess.run([python, "-c", looks], capture_output=True, check=False)
    if found.returncode:
        raise argparse.ArgumentTypeError(f"{python} has no {ENVIRONMENTS[name].module}")
    return name, python


def tests(text: str) -> list[Test]:
    known = {each.name: each for each in TESTS}
    if unknown := [name for name in text.split(",") if name not in known]:
        raise argparse.ArgumentTypeError(f"there is no test {unknown[0]!r}; there are {', '.join(known)}")
    return [known[name] for name in text.split(",")]


def how_to() -> str:
    lines = ["No peer to measure. Each engine wants an environment of its own (python -m venv ...), and in it:", ""]
    lines += [f"    {name:14}{each.made_by}" for name, each in ENVIRONMENTS.items()]
    lines += ["", "Then: python bench/peers.py --env llama.cpp=path/to/its/bin/python --env openvino=..."]
    return "\n".join(lines)


def about_ours(asked: argparse.Namespace) -> dict[str, Any]:
    from openwork.ops.cpu import Cpu

    return {"contract_id": Cpu(asked.threads).contract_id, "kv_dtype": asked.kv_dtype}


def measure(peer: Peer, asked: argparse.Namespace, log: IO[str]) -> Iterator[tuple[str, Any]]:
    """("results", record) of every test of a peer, or ("skipped", why)."""
    from openwork.bench.limits import Limits
    from openwork.ops.cpu import Cpu

    wanted = [test for test in asked.tests if test.name in peer.tests]
    if not wanted:
        return
    say(f"{peer.name}: {', '.join(test.name for test in wanted)}")
    pace = turns.Pace(asked.turns, asked.seconds, asked.limit)
    about = {"peer": peer.name, "bits": peer.bits, "dtype": OURS[peer.bits]}
    workers: list[turns.Worker] = []
    try:
        ours, other = commands(peer, asked)
        if any(test.tokens for test in wanted):
            workers = [turns.Worker(command, log, asked.limit) for command in (ours, other)]
        probe = Limits(Cpu(asked.threads)).read_bytes_s
        for test in wanted:
            head = {**about, "test": test.name, "about": test.about, "streams": test.streams, "prompt": test.prompt}
            if test.tokens:
                found = turns.work(*workers, test, VOCABULARY, pace, probe)
            else:
                for worker in workers:
                    worker.close()
                found = turns.starts(ours, other, log, pace)
            say(f"{peer.name}: {test.name} done")
            yield "results", head | found
    except (turns.EngineStopped, subprocess.CalledProcessError, OSError) as error:
        yield "skipped", f"{peer.name}: {error}"
    finally:
        for worker in workers:
            worker.close()


def commands(peer: Peer, asked: argparse.Namespace) -> tuple[turns.Command, turns.Command]:
    """How ours and the peer are started; the models they want are made first."""
    model = forms.make(peer.model, asked.shape, asked.directory, asked.env)
    source = forms.make("hf", asked.shape, asked.directory, asked.env)
    plain = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    own = {**os.environ, "OPENWORK_CACHE": str(asked.directory / "cache")}
    options = [f"dtype={OURS[peer.bits]}", f"kv_dtype={asked.kv_dtype}"]
    engines = HERE / "engines"
    ours = [sys.executable, engines / "run_openwork.py", source, asked.threads, *options]
    other = [asked.env[peer.environment], engines / peer.program, model, asked.threads, *peer.options]
    threads = {"OMP_NUM_THREADS": str(asked.threads), "HF_HUB_OFFLINE": "1"}
    return turns.Command([*map(str, ours)], own), turns.Command([*map(str, other)], {**plain, **threads})


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
