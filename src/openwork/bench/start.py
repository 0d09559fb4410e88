"""A new process, from its start to its first token: how long it takes, and how much memory.

The process is `openwork generate`, as a user would start it, on a model whose packed weights are in the cache. The
clock begins before the process exists and ends with the first byte that it prints.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from openwork.core.errors import EngineError

RUNS = 5


def first_token(arguments: Sequence[str], variables: Mapping[str, str], runs: int = RUNS) -> tuple[float, float]:
    """Seconds of the very first start, which may have to fill the cache, and the median of ``runs`` that follow.

    ``arguments`` are those of `openwork generate` that choose the model, ``variables`` what the environment gets on
    top. Raises EngineError when the process fails.
    """
    command = _command(arguments, [1, 2, 3])
    first, *others = (_run(command, variables)[0] for _ in range(1 + runs))
    return first, statistics.median(others)


def peak_bytes(arguments: Sequence[str], variables: Mapping[str, str], prompt: int) -> int | None:
    """Peak of resident memory of a process that reads ``prompt`` tokens and makes one; None where no system tells.

    Pages of a mapped file count. Raises EngineError when the process fails.
    """
    return _run(_command(arguments, [1 + at % 100 for at in range(prompt)]), variables)[1]


def _command(arguments: Sequence[str], ids: list[int]) -> list[str]:
    asked = ["--ids", ",".join(map(str, ids)), "--max-tokens", "1", "--ignore-eos", "--temperature", "0", "--no-echo"]
    return [sys.executable, "-m", "openwork", "generate", *asked, *arguments]


def _run(command: Sequence[str], variables: Mapping[str, str]) -> tuple[float, int | None]:
    """(seconds to the first byte, peak memory then)."""
    began = time.perf_counter()
    nothing, pipe = subprocess.DEVNULL, subprocess.PIPE
    environment = {**os.environ, **variables}
    with subprocess.Popen(command, env=environment, stdin=nothing, stdout=pipe, stderr=pipe) as process:
        assert process.stdout is not None
        process.stdout.read(1)
        seconds, peak = time.perf_counter() - began, _high_water(process.pid)
        _, errors = process.communicate()
    if process.returncode:
        raise EngineError(f"openwork generate failed: {errors.decode(errors='replace').strip()[:500]}")
    return seconds, peak


def _high_water(pid: int) -> int | None:
    """Linux tells it in /proc. The usage of a child that the kernel sums up would include its parent's memory."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    found = [line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:")]
    return int(found[0]) * 1024 if found else None
