"""The soak: a mixture of everything for a while, with engines that die in the middle of it.

20 seconds by default, half an hour with --long. A tenth of the clients go away, some read slowly, some send rubbish;
the engine's process is killed, or stopped until it is taken for hung. Every answer that a client waited for has the
tokens it has on a quiet server, or is a refusal that says when to come back; afterwards everything is as before.
"""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections import Counter
from contextlib import suppress

import pytest
from incidents.case import CHAT, COMPLETIONS, chat, completion
from incidents.house import House, open_house

NUM_CLIENTS = 8
SHORT_S, LONG_S = 20.0, 1800.0
BODIES = [
    completion(
        prompt=f"Once there was a {name}",
        max_tokens=10 + 30 * at,
        ignore_eos=True,
        return_token_ids=True,
        temperature=0 if at % 2 else 0.9,
        seed=at,
        n=1 + at % 3,
    )
    for at, name in enumerate(["dog", "cat", "bird", "fish", "tree", "girl"])
]
RUBBISH = [(CHAT, b"{"), (CHAT, chat(n=99)), (COMPLETIONS, completion(prompt=[])), ("/x", {}), (CHAT, chat(stop=""))]


@pytest.fixture(scope="module")
def house(tmp_path_factory, model):
    with open_house(tmp_path_factory.mktemp("soak"), model, "--hang", "2", "--limit", "write_s=5") as opened:
        yield opened


class Client(threading.Thread):
    """Draws what it does from a seed; ``outcomes`` counts how that ended, ``wrong`` has what may not happen."""

    def __init__(self, house: House, seed: int, references: list, over: threading.Event) -> None:
        super().__init__()
        self.outcomes: Counter[str] = Counter()
        self.wrong: list[object] = []
        self._house = house
        self._draw = random.Random(seed)
        self._references = references
        self._over = over

    def run(self) -> None:
        while not self._over.is_set():
            try:
                self._act()
            except Exception as error:
                self.wrong.append(error)

    def _act(self) -> None:
        at = self._draw.randrange(len(BODIES))
        kind = self._draw.random()
        if kind < 0.10:
            self._go_away(BODIES[at])
        elif kind < 0.12:
            self._read_slowly(BODIES[at])
        elif kind < 0.15:
            path, body = self._draw.choice(RUBBISH)
            self._count(self._house.post(path, body).status in (400, 404), "refused")
        elif kind < 0.60:
            self._stream(at)
        else:
            answer = self._house.post(COMPLETIONS, BODIES[at])
            if answer.status == 503:
                self._count(int(answer.headers["retry-after"]) > 0, "told to come back")
                time.sleep(0.05)
            else:
                self._count(answer.status == 200 and tokens_of(answer.json) == self._references[at], "whole")

    def _stream(self, at: int) -> None:
        tokens: list[list[int]] = [[] for _ in range(BODIES[at]["n"])]
        with self._house.stream(COMPLETIONS, BODIES[at] | {"stream": True}) as stream:
            first = stream.next()
            if stream.status == 503:
                self.outcomes["told to come back"] += 1
                return
            events = [first, *stream]
        for event in events[:-1]:
            for choice in event["choices"]:
                tokens[choice["index"]] += choice.get("token_ids") or []
        self._count(events[-1] == "[DONE]" and tokens == self._references[at], "streamed")

    def _go_away(self, body: dict) -> None:
        with suppress(ConnectionError), self._house.stream(COMPLETIONS, body | {"stream": True}) as stream:
            for _ in range(self._draw.randrange(6)):
                if stream.next() is None:
                    break
        self.outcomes["gone"] += 1

    def _read_slowly(self, body: dict) -> None:
        with suppress(ConnectionError), self._house.stream(COMPLETIONS, body | {"stream": True}, 2048) as stream:
            stream.next()
            time.sleep(self._draw.random())
        self.outcomes["slow"] += 1

    def _count(self, is_right: bool, outcome: str) -> None:
        self.outcomes[outcome] += 1
        if not is_right:
            self.wrong.append(outcome)


def tokens_of(body: dict) -> list[list[int]]:
    return [choice["token_ids"] for choice in body["choices"]]


def strike(house: House, draw: random.Random) -> None:
    """Kill the engine's process, or stop it for ever."""
    workers = house.workers()
    if len(workers) == 1:
        with suppress(ProcessLookupError):
            os.kill(workers[0], draw.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGSTOP]))


def test_soak(house, is_long):
    """R18: a mixture of everything, and engines that die: right answers or 503, and nothing left behind."""
    seconds = LONG_S if is_long else SHORT_S
    references = [tokens_of(house.post(COMPLETIONS, body).json) for body in BODIES]
    over, draw = threading.Event(), random.Random(0)
    clients = [Client(house, seed, references, over) for seed in range(NUM_CLIENTS)]
    for client in clients:
        client.start()
    end = time.monotonic() + seconds
    try:
        while time.monotonic() < end:
            time.sleep(min(30.0, seconds / 3))
            strike(house, draw)
    finally:
        over.set()
        for client in clients:
            client.join(120)
    outcomes: Counter[str] = sum((client.outcomes for client in clients), Counter())
    wrong = [each for client in clients for each in client.wrong]
    assert not wrong, (len(wrong), wrong[:3], outcomes)
    assert min(outcomes[name] for name in ("whole", "streamed", "gone", "refused")) > 0, outcomes
    assert house.metrics()["openwork:engine_restarts_total"] > 0
    house.check_lives(crashes=True)
    assert house.golden_tokens() == house.golden
    house.wait_until_idle()
    house.check_resources()
    house.check_log()
