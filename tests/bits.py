"""Worlds in which every row of logits is written down, to be compared with those of the same line prefilled alone."""

from dataclasses import dataclass
from functools import cache
from random import Random

import numpy as np

from openwork import SamplingParams
from openwork.core.event import Token
from openwork.core.request import Limits, Request
from openwork.core.settings import CacheSettings, ScheduleSettings
from openwork.engine.loop import Loop
from openwork.kv.cache import KVCache
from openwork.load.assemble import load
from openwork.ops.cpu import Cpu, available
from openwork.ops.paged import PagedKV
from openwork.ops.reference import Reference
from openwork.run.runner import TensorRunner
from openwork.schedule.scheduler import Scheduler
from openwork.testing.checkpoint import write_checkpoint
from openwork.testing.echo import VirtualClock

ARCHITECTURES = ("LlamaForCausalLM", "MistralForCausalLM", "Gemma2ForCausalLM", "GPTNeoXForCausalLM")
BACKENDS = ("reference", *available())
EOS = 1


@cache
def checkpoint(directory, architecture):
    """Small enough to run thousands of positions; windows shorter than the prompts."""
    window = {} if architecture in ("LlamaForCausalLM", "GPTNeoXForCausalLM") else {"sliding_window": 24}
    write_checkpoint(directory / architecture, architecture, seed=7, **window)
    return directory / architecture


@cache
def loaded(directory, architecture, backend, threads, dtype):
    ops = Reference() if backend == "reference" else Cpu(threads, isa=backend)
    return ops, load(checkpoint(directory, architecture), ops, dtype=dtype)


@dataclass
class World:
    """One engine over a loaded model; every row of logits it computes, by sequence and position."""

    ops: Reference
    model: object
    dtype: str  # of keys and values
    blocks: int
    block_size: int
    step_tokens: int
    shuffle: int

    def __post_init__(self):
        spec = self.model.spec
        settings_ = CacheSettings(self.blocks, self.block_size)
        self.limits = Limits(spec.vocab_size, min(settings_.capacity, spec.max_positions), frozenset({EOS}))
        self.kv_cache = KVCache(settings_)
        Random(self.shuffle).shuffle(self.kv_cache.pool._free)
        kv = PagedKV.empty(spec.num_layers, self.blocks, spec.num_kv_heads, spec.head_dim, self.block_size, self.dtype)
        # What another sequence left behind must never count: start from rubbish instead of zeros.
        for array in (kv.keys, kv.values):
            array.view(np.uint8)[...] = 0xFF  # a NaN in every format, and in the scales of int8
        self.rows = []  # (sequence, position, bytes)
        self.runner = TensorRunner(
            self.ops, self.model, self.ops.bind(kv), lambda s, p, row: self.rows.append((s, p, row.tobytes()))
        )
        self.scheduler = Scheduler(ScheduleSettings(self.step_tokens, min(8, self.step_tokens - 1)), self.kv_cache)
        self.loop = Loop(self.scheduler, self.runner, VirtualClock())
        self.events = []
        self.owners = {}  # sequence -> (request, index)

    def add(self, number, prompt, how):
        self.events += self.scheduler.add(number, Request(tuple(prompt), how, self.limits), 0.0)

    def turn(self):
        self.owners.update({s.id: (s.request_id, s.index) for s in self.scheduler._sequences.values()})
        self.events += self.loop.turn()

    def drain(self):
        while not self.loop.is_idle:
            self.turn()
        self.scheduler.check()
        self.runner.close()

    def generated(self):
        """(request, index) -> tokens."""
        found = {}
        for event in self.events:
            if isinstance(event, Token):
                found.setdefault((event.request, event.index), []).append(event.choice.token)
        return found


def alone(directory, architecture, backend, dtypes, tokens):
    """The logit bytes at each position of a sequence prefilled alone: whole, on one thread, in blocks in order."""
    dtype, kv_dtype = dtypes
    ops, it = loaded(directory, architecture, backend, 1, dtype)
    world = World(ops, it.model, kv_dtype, blocks=len(tokens) // 16 + 1, block_size=16, step_tokens=512, shuffle=0)
    world.kv_cache.pool._free.sort(reverse=True)
    # Every position but the last is scored; one more token makes the last one of interest the last but one.
    world.add(0, [*tokens, 0], SamplingParams(max_tokens=0, prompt_logprobs=0))
    world.drain()
    return {position: row for _, position, row in world.rows}


def prompt_of(length, seed):
    return [Random(seed * 1000 + i).randrange(2, 259) for i in range(length)]
