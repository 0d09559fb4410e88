"""Requests served under whatever makes schedules differ, and what a recorder saw of them.

Small batches and chunks, a cache so small that sequences are preempted, prompts that begin alike, cancels, several
sequences a request, penalties, biases, constraints, and engine processes that are killed and gone on for.
"""

from dataclasses import replace
from random import Random

from openwork import SamplingParams
from openwork.build import wire
from openwork.core.constraint import Constraint
from openwork.core.event import Finished, Token
from openwork.core.request import Request
from openwork.core.settings import AdmissionSettings, CacheSettings, LoadSettings, ScheduleSettings
from openwork.core.terms import Tenants
from openwork.engine.loop import Loop
from openwork.engine.service import Engine
from openwork.trace.entry import Began, Planned, Ran, Submitted

CONSTRAINTS = (
    Constraint.regex("[a-z ]{3,40}[.]"),
    Constraint.choice(["once upon a time", "one day", "it was a dark night"]),
    Constraint.json_schema({"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}),
)


class Served:
    """``entries`` are the lines of a recording of all that is asked here."""

    def __init__(self, model, seed, blocks=16, constraints=CONSTRAINTS, **load):
        self.random = Random(seed)
        self.entries = []
        self.lives = 0
        settings = LoadSettings(**{"threads": 2, "context": 160} | load)
        self._open = lambda: self._life(model, _with_blocks(model, settings, blocks))
        self._constraints = constraints
        self._living = {}  # name -> stream
        self._given = {}  # name -> index -> tokens
        self._over = set()
        self.counts = {"preemptions": 0, "hits": 0, "cancels": 0, "kills": 0}
        self._open()

    def _life(self, model, settings):
        """An engine process."""
        schedule = ScheduleSettings(max_step_tokens=self.random.choice([9, 17, 40]), max_running=8)
        self.wired = wire(model, settings, schedule, AdmissionSettings(), Tenants(), hashes=True)
        info, limits = self.wired.info, self.wired.limits
        about = (info.model, info.contract_id, info.dtype, info.kv_dtype, info.threads, limits.vocab_size, True)
        cache = CacheSettings(info.num_blocks, info.block_size)
        self.entries.append(Began(0.0, 0.0, *about, cache, schedule, AdmissionSettings(), run=self.lives))
        self.lives += 1
        self.engine = Engine(Loop(self.wired.scheduler, self.wired.runner, self.wired.clock, recorder=self))

    # -- recorder ------------------------------------------------------------------------------------------------

    def planned(self, step, events):
        self.entries.append(Planned(0.0, step, tuple(events)))
        for event in events:
            name = type(event).__name__
            self.counts["preemptions"] += name == "Preempted"
            self.counts["hits"] += name == "Admitted" and event.cached > 0

    def ran(self, step, result, events):
        self.entries.append(Ran(0.0, result, tuple(events)))

    # -- what happens --------------------------------------------------------------------------------------------

    def ask(self, number):
        """A drawn request."""
        draw, vocab = self.random, self.wired.limits.vocab_size
        shared = [Random(draw.randrange(3)).randrange(3, vocab) for _ in range(40)]
        prompt = tuple(
            shared[: draw.choice([0, 16, 40])] + [draw.randrange(3, vocab) for _ in range(draw.randint(1, 30))]
        )
        how = {"temperature": draw.choice([0.0, 0.0, 0.8, 1.3]), "seed": number, "max_tokens": draw.randint(1, 30)}
        if draw.random() < 0.3:
            how |= {"repetition_penalty": 1.2, "frequency_penalty": 0.3, "presence_penalty": 0.2}
        if draw.random() < 0.2:
            how |= {"logit_bias": {draw.randrange(vocab): draw.uniform(-9, 9) for _ in range(5)}}
        if draw.random() < 0.3:
            how |= {"top_k": 12, "top_p": 0.9, "min_p": 0.01}
        if draw.random() < 0.3:
            how |= {"n": draw.randint(2, 3)}
        if draw.random() < 0.2:
            how |= {"min_tokens": how["max_tokens"] // 2, "logprobs": 2, "prompt_logprobs": 0}
        elif self._constraints and draw.random() < 0.2:
            how |= {"constraint": draw.choice(self._constraints)}
        self._submit(f"cmpl-{number}", Request(prompt, SamplingParams(**how), self.wired.limits))

    def _submit(self, name, request, so_far=None):
        stream = self.engine.submit(request, so_far)
        given = None if so_far is None else {index: tuple(tokens) for index, tokens in so_far.items()}
        self.entries.append(Submitted(0.0, stream.request_id, name, request, given))
        self._living[name] = stream

    def turn(self):
        self.engine.turn()
        for name, stream in list(self._living.items()):
            lines = self._given.setdefault(name, {})
            for event in stream.take():
                if isinstance(event, Token):
                    lines.setdefault(event.index, []).append(event.choice.token)
                elif isinstance(event, Finished):
                    self._over.add((name, event.index))
            if stream.has_ended:
                del self._living[name]
            elif self.random.random() < 0.002:
                self.counts["cancels"] += 1
                self.engine.cancel(stream)

    def kill(self):
        """The process is gone, with what was in flight; another goes on with what readers had been given."""
        self.counts["kills"] += 1
        left, self._living = self._living, {}
        self.engine.abandon()
        self._open()
        for name, stream in left.items():
            lines = self._given.get(name, {})
            count = stream.request.params.n
            open_ = {i: lines.get(i, []) for i in range(count) if (name, i) not in self._over} if lines else None
            self._submit(name, stream.request, open_)

    def run(self, requests, kills=1):
        """Ask for so many requests, some at a time, and turn until all are over; the lines of the recording."""
        deaths = {self.random.randrange(5, 5 + 3 * requests) for _ in range(kills)}
        asked = turns = 0
        while asked < requests or self._living:
            if asked < requests and len(self._living) < 12:
                for _ in range(min(self.random.randint(1, 4), requests - asked)):
                    self.ask(asked)
                    asked += 1
            self.turn()
            turns += 1
            if turns in deaths:
                self.kill()
        self.engine.close()
        return self.entries


def _with_blocks(model, settings, blocks):
    """Settings that give the cache so many blocks: room for one sequence of full length and little more."""
    probe = wire(model, replace(settings, kv_cache_bytes=2**24), ScheduleSettings(), AdmissionSettings(), Tenants())
    probe.runner.close()
    return replace(settings, kv_cache_bytes=blocks * (probe.kv.num_bytes // probe.kv.num_blocks))
