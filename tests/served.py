"""Requests served under whatever makes schedules differ, and recorded.

Small batches and chunks, a cache so small that sequences are preempted, prompts that begin alike, cancels, several
sequences a request, penalties, biases, constraints, searches of every kind, and engine processes that are killed and
gone on for.
"""

from dataclasses import replace
from random import Random

import pytest

from openwork import SamplingParams
from openwork.build import wire
from openwork.core.budget import Budget
from openwork.core.constraint import Constraint
from openwork.core.event import Admitted, Ended, Finished, Preempted, Token
from openwork.core.penalty import Penalty
from openwork.core.request import Request
from openwork.core.search import Beam, BestFirst, Choose, Search
from openwork.core.settings import (
    AdmissionSettings,
    LoadSettings,
    RecordSettings,
    ScheduleSettings,
    SpeculationSettings,
)
from openwork.core.terms import Tenants
from openwork.engine.loop import Loop
from openwork.engine.service import Engine
from openwork.wiring import make_recorder

CONSTRAINTS = (
    Constraint.regex("[a-z ]{3,40}[.]"),
    Constraint.choice(["once upon a time", "one day", "it was a dark night"]),
    Constraint.json_schema({"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}),
)


class Served:
    """Writes a recording into ``directory``; ``counts`` is what happened to requests."""

    def __init__(
        self,
        directory,
        model,
        seed,
        blocks=13,
        constraints=CONSTRAINTS,
        layers=1,
        searches=0.0,
        leaves=0.002,
        keeps=True,
        **load,
    ):
        self.directory = directory
        self._layers = layers if keeps else None
        self.random = Random(seed)
        settings = LoadSettings(**{"threads": 2, "context": 160} | load)
        self._open = lambda: self._life(model, _with_blocks(model, settings, blocks))
        self._constraints = constraints
        self._searches = searches  # how many requests search
        self._leaves = leaves  # how often a client goes, by turn
        self._keeps = keeps  # prompts
        self._living = {}  # name -> stream
        self._given = {}  # name -> index -> tokens
        self._over = set()
        self._lives = 0
        self.counts = {"preemptions": 0, "hits": 0, "cancels": 0, "kills": 0, "right guesses": 0}
        self._open()

    def _life(self, model, settings):
        """An engine process."""
        self._lives += 1
        guesses = SpeculationSettings(max_draft=4) if self._lives % 2 else None
        schedule = ScheduleSettings(self.random.choice([9, 17, 40]), max_running=8, speculation=guesses)
        record = RecordSettings(
            directory=str(self.directory), keeps_prompts=self._keeps, layers=self._layers if self._keeps else None
        )
        self.wired = wire(model, settings, schedule, AdmissionSettings(), Tenants(), record=record)
        recorder = make_recorder(record, self.wired, pytest.fail)
        self.engine = Engine(Loop(self.wired.scheduler, self.wired.runner, self.wired.clock, recorder))

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
            how |= {"n": draw.randint(1, 3), "best_of": 3} if draw.random() < 0.3 else {"n": draw.randint(2, 3)}
        if draw.random() < 0.2:
            how |= {"min_tokens": how["max_tokens"] // 2, "logprobs": 2, "prompt_logprobs": 0}
        elif self._constraints and draw.random() < 0.2:
            how |= {"constraint": draw.choice(self._constraints)}
        request = Request(prompt, SamplingParams(**how), self.wired.limits)
        if self._searches and draw.random() < self._searches:
            request = self._searching(prompt)
        self._submit(f"cmpl-{number}", request)

    def _searching(self, prompt):
        """A drawn search."""
        draw, vocab = self.random, self.wired.limits.vocab_size
        budget = Budget(
            nodes=draw.choice([None, 40]),
            tokens=draw.choice([None, None, 60, 200]),
            seconds=draw.choice([None, None, None, 0.0, 0.02, 0.1]),
            finished=draw.choice([None, None, 2]),
            blocks=draw.choice([None, None, 0, 3]),
        )
        kind = draw.choice(["beam", "best-first", "choose"])
        form = draw.choice(self._constraints) if self._constraints and draw.random() < 0.4 else None
        params = SamplingParams(n=draw.choice([1, 2]), max_tokens=draw.randint(3, 12), constraint=form)
        penalty = None
        if kind == "choose":
            few = [draw.randrange(3, vocab) for _ in range(4)]
            options = {tuple(draw.choice(few) for _ in range(draw.choice([1, 2, 3, 20]))) for _ in range(12)}
            how = {"options": tuple(sorted(options)), "at_once": draw.choice([1, 4]), "budget": budget}
            search = Search(choose=Choose(**how, score_all=draw.random() < 0.5), trace=20)
            params = SamplingParams()
        elif kind == "beam":
            width, groups = draw.choice([(2, 1), (5, 1), (4, 2), (6, 3)])
            how = {"early_stopping": draw.choice([True, False, "never"]), "length_penalty": draw.choice([0.0, 1.0])}
            search = Search(beam=Beam(width=width, groups=groups, diversity=0.5 * (groups > 1), budget=budget, **how))
        else:
            budget = replace(budget, nodes=draw.choice([8, 60]))
            repeats = Penalty(repetition=0.7, length="gnmt", rerank=draw.random() < 0.3)
            phrases = Penalty(coverage=2.0, phrases=((draw.randrange(vocab),),))
            penalty = draw.choice([None, None, repeats, phrases])
            search = Search(best_first=BestFirst(at_once=draw.choice([1, 4]), budget=budget), penalty=penalty, trace=9)
            params = replace(params, min_tokens=draw.choice([1, 3]))
        return Request(prompt, params, self.wired.limits, search=search)

    def _submit(self, name, request, so_far=None):
        self._living[name] = self.engine.submit(request, so_far, name)

    def turn(self):
        self.engine.turn()
        for name, stream in list(self._living.items()):
            lines = self._given.setdefault(name, {})
            for event in stream.take():
                if isinstance(event, Token):
                    lines.setdefault(event.index, []).append(event.choice.token)
                elif isinstance(event, Finished):
                    self._over.add((name, event.index))
                elif isinstance(event, Preempted):
                    self.counts["preemptions"] += 1
                elif isinstance(event, Admitted):
                    self.counts["hits"] += event.cached > 0
                elif isinstance(event, Ended):
                    self.counts["right guesses"] += event.account.guessed.accepted
            if stream.has_ended:
                del self._living[name]
            elif self.random.random() < self._leaves:
                self.counts["cancels"] += 1
                self.engine.cancel(stream)

    def kill(self):
        """The process is gone, with what was in flight; another goes on with what readers had been given."""
        self.counts["kills"] += 1
        left, self._living = self._living, {}
        self.wired.runner.close()  # and the recorder is told nothing
        self._open()
        for name, stream in left.items():
            lines = self._given.get(name, {})
            count = stream.request.params.num_drawn
            open_ = {i: lines.get(i, []) for i in range(count) if (name, i) not in self._over} if lines else None
            self._submit(name, stream.request, open_)

    def run(self, requests, kills=1):
        """Ask for so many requests, some at a time, and turn until all are over."""
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


def _with_blocks(model, settings, blocks):
    """Settings that give the cache so many blocks: room for one sequence of full length and little more."""
    probe = wire(model, replace(settings, kv_cache_bytes=2**24), ScheduleSettings(), AdmissionSettings(), Tenants())
    probe.runner.close()
    return replace(settings, kv_cache_bytes=blocks * (probe.kv.num_bytes // probe.kv.num_blocks))
