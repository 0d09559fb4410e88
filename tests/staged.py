"""An incident, staged: an engine on a machine of known speed, in virtual time. Arrivals go in, a recording comes out.

What a step takes is a formula that no fit has the form of, with noise. ``stalls`` are (from, to, times slower);
``kills`` are (when, for how long): the engine's process ends, and its requests go on in the next, with an empty cache.
"""

import random
from collections import defaultdict

from taped import Tape

from openwork.core.event import Ended, Finished, Token
from openwork.core.request import Limits, Request, SamplingParams
from openwork.core.settings import AdmissionSettings, CacheSettings, ScheduleSettings
from openwork.core.step import Choice, Outcome, Result
from openwork.core.terms import Tenants, Terms
from openwork.engine.loop import Loop
from openwork.kv.cache import KVCache
from openwork.schedule.scheduler import Scheduler

VOCAB = 5000
LIMITS = Limits(VOCAB, 4096, frozenset({0}))


class Clock:
    def __init__(self):
        self.time = 0.0

    def now(self):
        return self.time

    def wait(self, until):
        self.time = max(self.time, until)


class Machine:
    """A runner. 12 ms for weights, a tile of 8 rows at a time, attention by positions; noise of a tenth."""

    def __init__(self, clock, stalls, seed):
        self._clock = clock
        self._stalls = stalls
        self._random = random.Random(seed)
        self._free_at = 0.0
        self.slower = 1.0

    def seconds(self, step):
        rows = step.num_rows
        positions = sum(work.start + work.count / 2 if work.count > 1 else work.start for work in step.works)
        return 0.012 + 0.0016 * max(0, -(-rows // 8) - 2) + 2e-6 * positions + 5e-5 * len(step.works)

    def submit(self, step):
        now = max(self._clock.now(), self._free_at)
        left, noise = self.seconds(step) * self._random.lognormvariate(0, 0.1), 1e-3
        for start, end, slower in sorted(self._stalls):
            if now < end and now + left > start:
                left -= max(0.0, start - now)
                now = max(now, start)
                inside = min(left * slower, end - now)
                left -= inside / slower
                now += inside
        began, self._free_at = max(self._clock.now(), self._free_at), now + left
        outcomes = tuple(self._outcome(work) for work in step.works)
        return self._free_at + noise, Result(step.number, outcomes, self._free_at - began)

    def _outcome(self, work):
        chosen = []
        for draw in work.draws:
            chosen.append(Choice(1 + hash((draw.position, draw.params.seed)) % (VOCAB - 1)))
        return Outcome(tuple(chosen))

    def collect(self, ticket):
        self._clock.wait(ticket[0])
        return ticket[1]

    def close(self, wait=True):
        pass


class Stage:
    """Serves (seconds, tenant, prompt, tokens of the answer), each when it comes."""

    def __init__(self, blocks, schedule=None, tenants=None, stalls=(), kills=(), prefix=True, seed=0, admission=None):
        self.settings = (
            CacheSettings(blocks, 16, prefix),
            schedule or ScheduleSettings(),
            admission or AdmissionSettings(),
        )
        self.tenants = tenants or {}
        self.clock, self.tape = Clock(), Tape()
        self.stalls, self.kills, self.seed = stalls, sorted(kills, reverse=True), seed
        self.living = {}
        self.begin()

    def begin(self):
        cache, schedule, admission = self.settings
        tenants = Tenants(self.tenants)
        self.scheduler = Scheduler(schedule, KVCache(cache, tenants), admission)
        self.tape.on(self.scheduler, cache, schedule, admission, self.clock.now(), self.tenants, VOCAB)
        self.loop = Loop(self.scheduler, Machine(self.clock, self.stalls, self.seed), self.clock)
        for number, (request, given) in sorted(self.living.items()):
            self.scheduler.add(number, request, self.clock.now(), dict(given))

    def serve(self, arrivals):
        left = sorted(arrivals, key=lambda each: each[0], reverse=True)
        number = 0
        while left or not self.loop.is_idle:
            if self.loop.is_idle:
                self.clock.wait(left[-1][0])
            if self.kills and self.kills[-1][0] <= self.clock.now():
                self.clock.wait(self.clock.now() + self.kills.pop()[1])
                self.begin()
            while left and left[-1][0] <= self.clock.now():
                _, tenant, prompt, count = left.pop()
                params = SamplingParams(max_tokens=count, ignore_eos=True, seed=number)
                request = Request(prompt, params, LIMITS, Terms(tenant=tenant))
                self.living[number] = request, defaultdict(list)
                self.scheduler.add(number, request, self.clock.now())
                number += 1
            for event in self.loop.turn():
                if isinstance(event, Token):
                    self.living[event.request][1][event.index].append(event.choice.token)
                elif isinstance(event, Finished):
                    self.living[event.request][1].pop(event.index, None)
                elif isinstance(event, Ended):
                    self.living.pop(event.request)
        return list(self.tape)


def words(draw, count):
    """A prompt that nobody else has."""
    return tuple(draw.randrange(1, VOCAB) for _ in range(count))


def chats(seed=0, count=120, per_s=4.0, begins=4, shared=320, own=40, tokens=(20, 80), tenant="chat", start=0.0):
    """Arrivals of people whose prompts begin with one of a few texts."""
    draw = random.Random(seed)
    texts, now, found = [words(draw, shared) for _ in range(begins)], start, []
    for _ in range(count):
        now += draw.expovariate(per_s)
        found.append((now, tenant, draw.choice(texts) + words(draw, own), draw.randint(*tokens)))
    return found
