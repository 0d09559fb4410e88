"""Judge: the program that tries constraints, in a process of its own that may die of them.

    {"kind", "source", "before", "special_ids"}  in, one a line
    {"error": [message, hint, param] or null}  out, one a line

It bounds its own processor time (for each constraint), its memory and its stack, so that what compiles here compiles
anywhere; its vocabulary is the 256 bytes and some special tokens, which stand for whatever a grammar names, because
whether a constraint compiles depends on no other. When it has grown it ends and another is started. Only text/trial.py
speaks to it.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import threading
from contextlib import suppress
from typing import Any

from llguidance import LLTokenizer

from openwork.core.constraint import Constraint
from openwork.core.errors import RequestError
from openwork.text.grammar import compile_constraint

CPU_S = 2
MEMORY_BYTES = 512 << 20
STACK_BYTES = 1 << 20  # a thread of the engine has more
GROWN_BYTES = 192 << 20
FIRST_SPECIAL, NUM_SPECIAL = 256, 5  # of its vocabulary


def main() -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with suppress(ValueError, OSError):  # not every system bounds address space
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    threading.stack_size(STACK_BYTES)
    worker = threading.Thread(target=_serve)
    worker.start()
    worker.join()


def _serve() -> None:
    vocabulary = LLTokenizer("byte")
    for line in sys.stdin.buffer:
        _allow_time()
        reply = {"error": _try(vocabulary, json.loads(line))}
        os.write(sys.stdout.fileno(), json.dumps(reply).encode() + b"\n")
        if _resident_bytes() > GROWN_BYTES:
            break


def _try(vocabulary: LLTokenizer, asked: dict[str, Any]) -> list[str] | None:
    try:
        before = asked["before"]
        stand_ins = tuple(FIRST_SPECIAL + place % NUM_SPECIAL for place in range(len(asked["special_ids"])))
        marks = None if before is None else (before[0], before[1])
        constraint = Constraint(asked["kind"], asked["source"], marks, stand_ins)
        compile_constraint(vocabulary, constraint)
    except RequestError as error:
        return [error.message.removeprefix(f"{error.param}: "), error.hint, error.param]
    except (ValueError, MemoryError) as error:
        return [f"cannot be used: {type(error).__name__}", "", asked["kind"]]
    return None


def _allow_time() -> None:
    used = resource.getrusage(resource.RUSAGE_SELF)
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    resource.setrlimit(resource.RLIMIT_CPU, (int(used.ru_utime + used.ru_stime) + 1 + CPU_S, hard))


def _resident_bytes() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


if __name__ == "__main__":
    main()
