"""llama.cpp, through the C functions that llama-cpp-python hands out. Options: flash=on|off (attention)."""

from __future__ import annotations

import ctypes
import time

import llama_cpp
import numpy as np
import worker

BATCH, ROWS = 2048, 512  # tokens handed over at once; rows that its kernels work on at once: its defaults


class LlamaCpp:
    def __init__(self, model: str, threads: int, options: dict[str, str]) -> None:
        llama_cpp.llama_backend_init()
        self._model = llama_cpp.llama_model_load_from_file(model.encode(), llama_cpp.llama_model_default_params())
        if not self._model:
            raise SystemExit(f"llama.cpp could not load {model}")
        self._vocabulary = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self._model))
        self._threads, self._flash = threads, options.get("flash", "on") == "on"
        self._batch = llama_cpp.llama_batch_init(BATCH, 0, 1)
        self._context, self._room = None, (0, 0)

    def run(self, prompts: list[list[int]], tokens: int) -> tuple[float, float]:
        self._make_room(len(prompts), len(prompts[0]) + tokens)
        began = time.perf_counter()
        rows = [
            (token, at, stream, at + 1 == len(prompt))
            for stream, prompt in enumerate(prompts)
            for at, token in enumerate(prompt)
        ]
        chosen = self._decode(rows)
        first = time.perf_counter() - began
        for step in range(tokens - 1):
            rows = [(token, len(prompts[stream]) + step, stream, True) for stream, token in sorted(chosen.items())]
            chosen = self._decode(rows)
        return first, time.perf_counter() - began

    def _make_room(self, streams: int, length: int) -> None:
        room = (streams, -(-length // 256) * 256)
        if self._room != room:
            if self._context:
                llama_cpp.llama_free(self._context)
            wishes = llama_cpp.llama_context_default_params()
            wishes.n_seq_max, wishes.n_ctx = streams, streams * room[1]
            wishes.n_batch, wishes.n_ubatch = BATCH, ROWS
            wishes.n_threads = wishes.n_threads_batch = self._threads
            wishes.flash_attn_type = int(self._flash)
            wishes.kv_unified = False  # each stream has keys and values of its own: faster than one pool for all
            wishes.no_perf = True
            self._context = llama_cpp.llama_init_from_model(self._model, wishes)
            if not self._context:
                raise SystemExit(f"llama.cpp refused a context of {room}")
            self._room = room
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self._context), True)

    def _decode(self, rows: list[tuple[int, int, int, bool]]) -> dict[int, int]:
        """Rows of (token, position, stream, whether its logits are wanted) -> stream: the likeliest next token."""
        chosen, batch = {}, self._batch
        for start in range(0, len(rows), BATCH):
            part = rows[start : start + BATCH]
            batch.n_tokens = len(part)
            for at, (token, position, stream, is_wanted) in enumerate(part):
                batch.token[at], batch.pos[at], batch.logits[at] = token, position, is_wanted
                batch.n_seq_id[at], batch.seq_id[at][0] = 1, stream
            if code := llama_cpp.llama_decode(self._context, batch):
                raise SystemExit(f"llama_decode failed with {code}")
            for at, (_, _, stream, is_wanted) in enumerate(part):
                if is_wanted:
                    logits = llama_cpp.llama_get_logits_ith(self._context, at)
                    chosen[stream] = int(np.ctypeslib.as_array(logits, (self._vocabulary,)).argmax())
        return chosen


@llama_cpp.llama_log_callback
def _silence(level: int, text: bytes, data: ctypes.c_void_p) -> None:
    del level, text, data


if __name__ == "__main__":
    llama_cpp.llama_log_set(_silence, ctypes.c_void_p(0))
    worker.serve(LlamaCpp)
