"""House: one server for a module of cases, with a victim who streams and an auditor who looks at everything.

``audited`` is postcondition P: around a case, a stream that was begun before it gets the tokens it always gets; after
it, the processes are the same, a golden request is answered with the same tokens, nothing is left running, blocks,
descriptors, threads and tasks are where they were, and neither answers nor logs say what they must not.
"""

from __future__ import annotations

import json
import re
import threading
from contextlib import contextmanager
from pathlib import Path

from incidents.serving import MODEL, SECRET, Serving, eventually

COMPLETIONS = "/v1/completions"
GOLDEN = {
    "model": MODEL,
    "prompt": "Once upon a time there was",
    "max_tokens": 12,
    "temperature": 0,
    "return_token_ids": True,
}
VICTIM = GOLDEN | {"prompt": "The little cat who", "max_tokens": 64, "ignore_eos": True, "stream": True}
SPARE_THREADS = 4  # pools of threads grow when they are first needed
SPARE_DESCRIPTORS = 4
SPARE_BYTES = 256 << 20  # a heap that once held large bodies keeps its size; that it does not grow for ever is R16
# What the processes of a server may open while they serve.
_USUAL = re.compile(
    r"open ['\"](/proc/|/sys/|/dev/(null|urandom)|.*\.pyc?\b|.*/__pycache__/|.*\.so\b|.*/python\d+\.zip\b"
    r"|.*\.dist-info/METADATA\b)|subprocess.Popen"
)


class House(Serving):
    """A server that is up, and what is normal for it."""

    def settle(self) -> House:
        """Have every part of it work once, and take note of what is normal then."""
        self.golden = self.golden_tokens()
        self.victim = Victim(self)
        self.victim.reference = self.victim.stream()
        for _ in range(4):
            threads = [threading.Thread(target=self.post, args=(COMPLETIONS, GOLDEN)) for _ in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        chat = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 2}
        assert self.post("/v1/chat/completions", chat).status == 200
        assert self.post("/v1/chat/completions", chat | {"response_format": {"type": "json_object"}}).status == 200
        self.wait_until_idle()
        self.normal_descriptors, self.normal_threads = self.descriptors(), self.threads()
        self.normal_bytes = self.resident_bytes()
        self.normal_workers = self.workers()
        self.num_blocks = sum(value for name, value in self.metrics().items() if name.startswith("openwork:kv_blocks{"))
        self.new_log()
        assert any("model.safetensors" in deed for deed in self.new_deeds()), "the audit hook sees nothing"
        return self

    def golden_tokens(self) -> list[int]:
        answer = self.post(COMPLETIONS, GOLDEN)
        assert answer.status == 200, answer
        return answer.json["choices"][0]["token_ids"]

    @contextmanager
    def audited(self, crashes: bool = False):
        """Around one case."""
        with self.victim.streaming():
            yield
        self.check_lives(crashes)
        assert self.golden_tokens() == self.golden, "a golden request gets other tokens"
        self.wait_until_idle()
        self.check_resources()
        self.check_log()
        self.check_deeds(crashes)

    # -- P, piece by piece

    def check_lives(self, crashes: bool) -> None:
        assert self.process.poll() is None, f"the server ended with {self.process.returncode}"
        if crashes:
            eventually(lambda: len(self.workers()) == len(self.normal_workers), "a new engine process")
            eventually(lambda: self.get("/ready").status == 200, "ready again")
            self.normal_workers = self.workers()
        assert self.workers() == self.normal_workers, "the engine's process is another one"
        health = self.get("/health")
        assert health.status == 200, health

    def wait_until_idle(self) -> None:
        """Nothing runs, nothing waits, no block is held."""
        eventually(self.is_idle, "nothing running, waiting or held")
        if hasattr(self, "num_blocks"):
            last = self.metrics()
            free = last["openwork:kv_blocks{free}"] + last["openwork:kv_blocks{evictable}"]
            assert free == self.num_blocks, f"{self.num_blocks - free} blocks are gone"

    def check_resources(self) -> None:
        eventually(
            lambda: self.descriptors() <= self.normal_descriptors + SPARE_DESCRIPTORS,
            f"descriptors back to {self.normal_descriptors}",
        )
        eventually(
            lambda: self.threads() <= self.normal_threads + SPARE_THREADS, f"threads back to {self.normal_threads}"
        )
        assert self.resident_bytes() <= self.normal_bytes + SPARE_BYTES

    def check_log(self) -> None:
        """One JSON object a line, no traceback, no word of a prompt."""
        text = self.new_log()
        assert SECRET not in text and "Traceback" not in text, text[-2000:]
        for line in text.splitlines():
            record = json.loads(line)
            assert isinstance(record["event"], str) and len(line) < 4096
            assert record["event"] not in ("failed", "loop", "library"), line

    def check_deeds(self, crashes: bool) -> None:
        if crashes:  # another process began, and read its modules and its model
            self.new_deeds()
            return
        unusual = [deed for deed in self.new_deeds() if not _USUAL.match(deed)]
        assert not unusual, unusual[:5]


class Victim:
    """One greedy stream after the other, in a thread, while a case goes on."""

    def __init__(self, house: House) -> None:
        self.reference: list[int] = []
        self._house = house

    def stream(self, began: threading.Event | None = None) -> list[int]:
        """The tokens of one stream, which must end well."""
        tokens: list[int] = []
        with self._house.stream(COMPLETIONS, VICTIM) as stream:
            events = []
            for event in stream:
                events.append(event)
                if event != "[DONE]" and event.get("choices"):
                    tokens += event["choices"][0].get("token_ids") or []
                    if began is not None:
                        began.set()
        assert events[-1] == "[DONE]" and events[-2]["choices"][0]["finish_reason"] == "length", events[-2:]
        return tokens

    @contextmanager
    def streaming(self):
        """Streams from before the case until after it, all of them with the tokens of the reference."""
        began, over = threading.Event(), threading.Event()
        wrong: list[object] = []

        def run() -> None:
            try:
                is_over = False
                while not (is_over or wrong):
                    tokens = self.stream(began)
                    is_over = over.is_set()
                    if tokens != self.reference:
                        wrong.append((tokens, self.reference))
            except BaseException as error:
                wrong.append(error)
                began.set()

        thread = threading.Thread(target=run)
        thread.start()
        assert began.wait(120)
        try:
            yield
        finally:
            over.set()
            thread.join(120)
        assert not thread.is_alive() and not wrong, f"the victim's stream: {wrong[:1]}"


def open_house(directory: Path, model: Path, *args: str, **options) -> House:
    named = ["--model", str(model)]
    house = House(directory, *named, "--served-model-name", MODEL, *args, **options)
    try:
        house.wait_until_ready()
        house.settle()
    except BaseException:
        house.stop()
        raise
    return house
