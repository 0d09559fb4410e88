"""OpenVINO GenAI behind just enough of OpenAI's completions to be measured: serve_openvino.py MODEL PORT THREADS.

Its own server is no Python package, so its pipeline for many streams is served here: token ids in, greedy, streamed. A
token is told as its number, not as text, which spares it the detokeniser that others pay for.
"""

from __future__ import annotations

import json
import queue
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import openvino
import openvino_genai

CACHE_GB = 4


class Engine(threading.Thread):
    """The pipeline and the one thread that turns it."""

    def __init__(self, model: str, threads: int) -> None:
        super().__init__(daemon=True)
        wishes = openvino_genai.SchedulerConfig()
        wishes.cache_size, wishes.max_num_seqs, wishes.max_num_batched_tokens = CACHE_GB, 32, 2048
        wishes.enable_prefix_caching = True
        settings = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
        self._pipeline = openvino_genai.ContinuousBatchingPipeline(model, wishes, "CPU", settings)
        self._asked: queue.Queue[tuple[list[int], int, queue.Queue[list[int] | None]]] = queue.Queue()

    def submit(self, prompt: list[int], tokens: int) -> queue.Queue[list[int] | None]:
        """Where the tokens of an answer come, and None at its end."""
        told: queue.Queue[list[int] | None] = queue.Queue()
        self._asked.put((prompt, tokens, told))
        return told

    def run(self) -> None:
        running: dict[Any, tuple[queue.Queue[list[int] | None], list[int]]] = {}
        number = 0
        while True:
            while not running or not self._asked.empty():
                prompt, tokens, told = self._asked.get()
                wishes = openvino_genai.GenerationConfig()
                wishes.max_new_tokens = wishes.min_new_tokens = tokens
                wishes.ignore_eos, wishes.do_sample = True, False
                ids = openvino.Tensor(np.array([prompt], dtype=np.int64))
                running[self._pipeline.add_request(number, ids, wishes)] = told, [tokens]
                number += 1
            self._pipeline.step()
            for handle, (told, left) in list(running.items()):
                while handle.can_read():
                    new = [each for output in handle.read().values() for each in output.generated_ids]
                    left[0] -= len(new)
                    told.put(new)
                if left[0] <= 0:
                    told.put(None)
                    del running[handle]


class Handler(BaseHTTPRequestHandler):
    """GET /v1/models and POST /v1/completions."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    engine: Engine

    def do_GET(self) -> None:
        data = json.dumps({"object": "list", "data": [{"id": "openvino"}]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        told = self.engine.submit(asked["prompt"], asked["max_tokens"])
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        while (tokens := told.get()) is not None:
            self._event({"choices": [{"index": 0, "text": "".join(f"{each} " for each in tokens)}]})
        usage = {"prompt_tokens": len(asked["prompt"]), "completion_tokens": asked["max_tokens"]}
        self._event({"choices": [], "usage": usage})
        self._chunk(b"data: [DONE]\n\n")
        self._chunk(b"")

    def _event(self, held: dict[str, Any]) -> None:
        self._chunk(b"data: " + json.dumps(held).encode() + b"\n\n")

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))

    def log_message(self, *args: object) -> None:
        pass


if __name__ == "__main__":
    model, port, threads = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    Handler.engine = Engine(model, threads)
    Handler.engine.start()
    ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()
