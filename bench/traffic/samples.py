"""The traces in bench/traces: small ones, of the kinds of traffic that servers meet.

    python bench/traffic/samples.py            writes them anew, the same each time

shared-prefix   16 requests within a quarter of a second, after the same 1,024 tokens, 32 of their own, 16 new
shared-stream   48 such requests with four different prefixes, two a second
chats           12 conversations of 4 turns; each turn repeats what was said and adds to it
mixed           long prompts beside short ones, long answers beside short ones, 40 requests over half a minute
bursts          three bursts of 12 requests, quiet in between
tenants         one tenant sends 24 requests at once, three others one every two seconds
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from traffic.trace import BLOCK, Arrival, to_line

FOLDER = Path(__file__).parents[1] / "traces"


def shared_prefix(draw: random.Random) -> Iterator[Arrival]:
    for each in range(16):
        yield Arrival(draw.uniform(0, 0.25), 2 * BLOCK + 32, 16, (0, 1, 2 + each))


def shared_stream(draw: random.Random) -> Iterator[Arrival]:
    at_s = 0.0
    for each in range(48):
        system = draw.randrange(4)
        yield Arrival(at_s, 2 * BLOCK + draw.randrange(16, 129), 32, (2 * system, 2 * system + 1, 8 + each))
        at_s += draw.expovariate(2)


def chats(draw: random.Random) -> Iterator[Arrival]:
    """An answer is as new to the server as a question: its tokens are drawn, too, not those that were generated."""
    blocks = count()
    for _ in range(12):
        at_s, length = draw.uniform(0, 10), 0
        held: list[int] = []
        for _ in range(4):
            length += draw.randrange(40, 300)
            while len(held) * BLOCK < length:
                held.append(next(blocks))
            answer = draw.randrange(16, 64)
            yield Arrival(at_s, length, answer, tuple(held))
            length += answer
            at_s += draw.uniform(4, 8)


def mixed(draw: random.Random) -> Iterator[Arrival]:
    at_s = 0.0
    for each in range(40):
        prompt = draw.choice((32, 64, 128, 256, 512, 2048) if each % 10 else (3584,))
        yield Arrival(at_s, prompt, draw.choice((8, 16, 32, 64, 128)))
        at_s += draw.expovariate(40 / 30)


def bursts(draw: random.Random) -> Iterator[Arrival]:
    for burst in range(3):
        for _ in range(12):
            yield Arrival(burst * 12 + draw.uniform(0, 0.2), draw.randrange(64, 512), draw.randrange(16, 48))


def tenants(draw: random.Random) -> Iterator[Arrival]:
    for _ in range(24):
        yield Arrival(draw.uniform(0, 0.1), 256, 64, tenant="flood")
    for name in ("one", "two", "three"):
        for turn in range(6):
            yield Arrival(turn * 2 + draw.uniform(0, 1), 256, 32, tenant=name)


SAMPLES: dict[str, Callable[[random.Random], Iterator[Arrival]]] = {
    "shared-prefix": shared_prefix,
    "shared-stream": shared_stream,
    "chats": chats,
    "mixed": mixed,
    "bursts": bursts,
    "tenants": tenants,
}


def lines(name: str) -> list[str]:
    """The lines of a sample, in the order of their times; always the same."""
    found = sorted(SAMPLES[name](random.Random(name)), key=lambda arrival: arrival.at_s)
    return [to_line(arrival) for arrival in found]


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for name in SAMPLES:
        (FOLDER / f"{name}.jsonl").write_text("\n".join(lines(name)) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
