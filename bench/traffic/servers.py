"""Servers: how each engine's own is started on loopback, asked whether it is ready, and ended.

It guarantees that a server which was started is ended, with all the processes it started in turn, and that none is
reached from another machine. Each runs at its own defaults, but for the number of threads, the longest context and the
most sequences at a time, which are the same for everyone.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from engines.table import OURS
from traffic.client import Address

HERE = Path(__file__).parents[1]
HOST = "127.0.0.1"
START_S = 900.0  # some compile for minutes


class ServerStopped(Exception):
    """A server that ended, or was not ready in time: which, and where its own words are."""


@dataclass(frozen=True)
class Load:
    """What every server is started with. ``bits`` of a weight say which form of the model it is given."""

    threads: int = 2
    context: int = 8192
    running: int = 32
    bits: int = 16


@dataclass(frozen=True)
class Kind:
    """How one engine's server is started: ``program`` is an interpreter, or the server itself."""

    command: Callable[[str, Path, int, Load], Sequence[str]]  # program, model, port, load
    forms: Mapping[int, str]  # bits of a weight -> the form of the model, see engines.forms
    variables: Callable[[Load], Mapping[str, str]] = lambda load: {}


def _openwork(program: str, model: Path, port: int, load: Load) -> list[str]:
    where = ["--host", HOST, "--port", str(port)]
    how = ["--threads", str(load.threads), "--context", str(load.context), "--dtype", OURS[load.bits]]
    return [program, "-m", "openwork", "serve", "--model", str(model), *where, *how]


def _vllm(program: str, model: Path, port: int, load: Load) -> list[str]:
    command = [program, "-m", "vllm.entrypoints.openai.api_server", "--model", str(model), "--dtype", "bfloat16"]
    bounds = ["--max-model-len", str(load.context), "--max-num-seqs", str(load.running)]
    return [*command, "--host", HOST, "--port", str(port), *bounds, "--enable-prompt-tokens-details"]


def _vllm_variables(load: Load) -> dict[str, str]:
    cores = f"0-{load.threads - 1}" if load.threads > 1 else "0"
    return {
        "VLLM_CPU_KVCACHE_SPACE": "4",
        "VLLM_CPU_OMP_THREADS_BIND": cores,
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
    }


def _llamacpp(program: str, model: Path, port: int, load: Load) -> list[str]:
    slots = ["-np", str(load.running), "-c", str(load.context * 4), "--kv-unified"]
    return [program, "-m", str(model), "--host", HOST, "--port", str(port), "-t", str(load.threads), *slots]


def _openvino(program: str, model: Path, port: int, load: Load) -> list[str]:
    return [program, str(HERE / "engines" / "serve_openvino.py"), str(model), str(port), str(load.threads)]


KINDS = {
    "openwork": Kind(_openwork, {16: "hf", 8: "hf", 4: "hf"}),
    "vllm": Kind(_vllm, {16: "hf", 8: "w8a8"}, _vllm_variables),
    "openvino": Kind(_openvino, {8: "openvino-int8", 4: "openvino-int4"}),
    "llama.cpp": Kind(_llamacpp, {16: "bf16.gguf", 8: "q8_0.gguf", 4: "q4_0.gguf"}),
}


class Server:
    """A running server. Use it in a ``with`` statement; it is ended at its end."""

    def __init__(self, name: str, command: Sequence[str], address: Address, variables: Mapping[str, str], log: Path):
        self.name = name
        self.address = address
        self.log = log
        self._command = list(command)
        self._variables = {**os.environ, **variables}
        self._file: IO[bytes] | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Server:
        self._file = self.log.open("ab")
        self._process = subprocess.Popen(
            self._command, env=self._variables, stdout=self._file, stderr=self._file, start_new_session=True
        )
        return self

    def __exit__(self, *exc: object) -> None:
        assert self._process is not None and self._file is not None
        for sign, patience_s in ((signal.SIGTERM, 30), (signal.SIGKILL, 10)):
            with contextlib.suppress(ProcessLookupError):  # its session has a group of its own, which is all it started
                os.killpg(self._process.pid, sign)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(patience_s)
        self._file.close()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def wait(self, limit_s: float) -> str:
        """Wait until it serves a model; the model's name. Raises ServerStopped."""
        name = wait_for(self.address, limit_s, lambda: self.is_alive)
        if name is None:
            what = f"was not ready within {limit_s:.0f} s" if self.is_alive else "ended before it was ready"
            raise ServerStopped(f"{self.name} {what}; its words are in {self.log}")
        return name


def wait_for(address: Address, limit_s: float, is_alive: Callable[[], bool] = lambda: True) -> str | None:
    """The first model that a server lists, once it lists any; None when it does not in time, or is gone."""
    until = time.monotonic() + limit_s
    while is_alive():
        if (name := served(address)) is not None or time.monotonic() > until:
            return name
        time.sleep(0.1)
    return None


def served(address: Address) -> str | None:
    """The first model that a server lists, or None when it does not answer."""
    request = urllib.request.Request(f"http://{address.host}:{address.port}/v1/models")
    if key := address.keys.get(""):
        request.add_header("Authorization", f"Bearer {key}")
    try:
        with urllib.request.urlopen(request, timeout=5) as response:
            name: str = json.load(response)["data"][0]["id"]
            return name
    except (OSError, ValueError, LookupError, TypeError):
        return None


def make(name: str, program: str, model: Path, load: Load, log: Path) -> Server:
    """The server of an engine in KINDS, on a free port, not yet started."""
    kind, port = KINDS[name], free_port()
    command = kind.command(program, model, port, load)
    return Server(name, command, Address(HOST, port), kind.variables(load), log)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def children(pid: int) -> dict[int, int]:
    """pid -> resident bytes of every process below ``pid``, deepest too. Linux tells it."""
    parents = {int(folder.name): _stat(int(folder.name)) for folder in Path("/proc").glob("[0-9]*")}
    found: dict[int, int] = {}
    layer = {pid}
    while layer:
        layer = {child for child, fields in parents.items() if fields and int(fields[1]) in layer}
        found |= {child: int(parents[child][21]) * os.sysconf("SC_PAGE_SIZE") for child in layer}
    return found


def processor_s(pid: int) -> dict[int, float]:
    """pid -> processor time so far, of a process and all below it. Linux tells it."""
    found = {each: _stat(each) for each in (pid, *children(pid))}
    tick_s = 1 / os.sysconf("SC_CLK_TCK")
    return {each: (int(fields[11]) + int(fields[12])) * tick_s for each, fields in found.items() if fields}


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the third one, the state, on; none when the process is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []
