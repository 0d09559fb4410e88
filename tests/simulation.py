"""One seeded world: tenants, arrivals, cancels, forks, pins, pressure, slow and failing steps, bad numbers.

    python tests/simulation.py SEED        runs one schedule again and says what it was and what went wrong

Everything is drawn from the seed. After every call the laws of conservation are checked; at the end every request must
have ended exactly once, each with the tokens it would have had alone. The runner is an EchoRunner: its answers are a
hash of all tokens before, read back through the block tables, and bad numbers spread to whoever reads them.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent.parent / "src"))

from openwork.core.budget import Budget
from openwork.core.constraint import Constraint
from openwork.core.errors import Overloaded, RequestError
from openwork.core.event import Admitted, Arrived, Ended, Finished, Preempted, Token
from openwork.core.penalty import Penalty
from openwork.core.repetition import Repetition
from openwork.core.request import Limits, Request, SamplingParams
from openwork.core.search import Beam, BestFirst, Choose, Search
from openwork.core.settings import AdmissionSettings, CacheSettings, ScheduleSettings, SpeculationSettings
from openwork.core.terms import Tenant, Tenants, Terms
from openwork.engine.loop import Loop
from openwork.kv.cache import KVCache
from openwork.kv.saved import export, restore
from openwork.schedule.scheduler import Scheduler
from openwork.testing.echo import EchoRunner, VirtualClock, hashed, successor

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
from searching import remembered, search_alone

VOCAB = 50
EOS = 3
RULE = successor(VOCAB)
LIKELIHOOD = remembered(hashed(VOCAB))


def alone(request: Request, index: int) -> list[int]:
    """What the rule says, generated without any engine."""
    tokens = list(request.prompt)
    while len(tokens) - len(request.prompt) < request.max_tokens:
        tokens.append(RULE(tokens, index))
        is_late_enough = len(tokens) - len(request.prompt) > request.params.min_tokens
        if tokens[-1] in request.stop_ids and is_late_enough:
            break
        if request.params.constraint is not None and tokens[-1] in request.limits.eos_ids:
            break
        loop = request.params.repetition_detection
        if loop is not None and is_late_enough and loop.is_in(tokens[len(request.prompt) :]):
            break
    return tokens[len(request.prompt) :]


class Guesser:
    """Foretells what the rule says, and is wrong now and then; how sure it is means nothing."""

    guess_s = 0.0

    def __init__(self, sequence, draw, rate):
        self.sequence, self.draw, self.rate = sequence, draw, rate
        self.num_known = 0

    def follow(self, tokens, known):
        self.num_known = max(self.num_known, known)

    def odds(self, most):
        if self.draw.random() < 0.3:
            return []
        odd = self.draw.choice([0.2, 0.6, 0.99])
        return [odd**place for place in range(1, self.draw.randint(0, most) + 1)]

    def prepare(self, num):
        pass

    def propose(self, num):
        tokens = list(self.sequence.tokens)
        assert self.num_known == len(tokens), "it was not told of all tokens"
        for _ in range(num):
            is_right = self.draw.random() < self.rate
            tokens.append(RULE(tokens, self.sequence.index) if is_right else self.draw.randrange(VOCAB))
        return tuple(tokens[self.num_known :])


@dataclass
class Simulation:
    seed: int
    events: list = field(default_factory=list)
    requests: dict = field(default_factory=dict)
    refused: int = 0
    said_by: dict = field(default_factory=dict)  # (request, index) -> tokens
    lines_of: dict = field(default_factory=dict)  # request that searches -> {index of a sequence: its lines}

    def __post_init__(self):
        draw = self.draw = Random(self.seed)
        blocks = draw.choice([4, 6, 8, 12, 20, 40])
        running = draw.choice([1, 2, 4, 8])
        names = ["", "ann", "bob", "cyd"][: draw.choice([1, 2, 3, 4])]
        self.names = names
        tenants = {name: self._tenant(blocks) for name in names if draw.random() < 0.6}
        self.clock = VirtualClock()
        cache = CacheSettings(blocks, prefix=draw.random() < 0.85)
        self.cache_settings, self.tenants = cache, Tenants(tenants)
        self.limits = Limits(VOCAB, cache.capacity, frozenset({EOS}))
        self.settings = ScheduleSettings(
            max_step_tokens=max(running + 1, draw.choice([2, 5, 17, 33, 64])),
            max_running=running,
            order=draw.choice(["first-come", "priority", "deadline"]),
            is_fair=draw.random() < 0.5,
            first=draw.choice(["decode", "decode", "prefill"]),
            next_token_s=draw.choice([None, None, 0.002, 0.02]),
            patience_s=draw.choice([0.02, 0.5, 60.0]),
            speculation=draw.choice([None, SpeculationSettings(max_draft=draw.choice([1, 3, 15, 40]))]),
        )
        self.guess_rate = draw.choice([0.0, 0.5, 0.9, 1.0])
        self.door = AdmissionSettings(
            max_waiting=draw.choice([None, None, 4]), max_blocks=draw.choice([None, None, None, 2 * blocks])
        )
        self.fail_rate = draw.choice([0, 0, 0, 0.02, 0.15])
        self.bad_rate = draw.choice([0, 0, 0, 0.01, 0.05])
        self.slow = draw.choice([0, 0, 0.05])
        self.went_bad = set()
        self.is_late = draw.random() < 0.5
        self.crash_rate = draw.choice([0, 0, 0.02])
        self.restarted = set()
        self.start()
        shared = [tuple(draw.randrange(VOCAB) for _ in range(draw.randint(1, 70))) for _ in range(3)]
        self.beginnings = [(), *shared]
        self.said = []  # whole lines of tokens that were generated, to be gone on with

    def start(self):
        cache = self.cache_settings
        self.cache = KVCache(cache, self.tenants)
        self.scheduler = Scheduler(self.settings, self.cache, self.door, self._guesser)
        how = (self.clock, self._seconds, self._fails, self._poisons, self.is_late, LIKELIHOOD)
        self.runner = EchoRunner(cache, RULE, *how)
        self.loop = Loop(self.scheduler, self.runner, self.clock, self.recorder())

    def recorder(self):
        """Of the engine that starts now; None: nobody writes down what it does."""

    def _tenant(self, blocks):
        draw = self.draw
        return Tenant(
            weight=draw.choice([1, 1, 3, 0.5]),
            max_running=draw.choice([None, None, 1, 2]),
            max_waiting=draw.choice([None, None, 3]),
            max_blocks=draw.choice([None, None, max(1, blocks // 2)]),
            reserved_blocks=draw.choice([0, 0, blocks // 3]),
        )

    # -- the runner's ways ---------------------------------------------------------------------------------------

    def _seconds(self, step):
        slow = 0.2 if self.draw.random() < self.slow else 0.0
        return 0.001 + 0.0001 * step.num_rows + slow

    def _fails(self, step):
        return self.draw.random() < self.fail_rate

    def _guesser(self, sequence):
        return Guesser(sequence, self.draw, self.guess_rate)

    def _poisons(self, step, work):
        is_bad = self.draw.random() < self.bad_rate
        sequence = self.scheduler._sequences.get(work.sequence)
        if is_bad and sequence is not None:
            self.went_bad.add(sequence.request_id)
        return is_bad

    # -- what people do ------------------------------------------------------------------------------------------

    def arrive(self):
        draw = self.draw
        room = self.limits.context - 1
        begin = draw.choice(self.said) if self.said and draw.random() < 0.3 else draw.choice(self.beginnings)
        prompt = (*begin, *(draw.randrange(VOCAB) for _ in range(draw.randint(0 if begin else 1, 40))))[:room]
        params = SamplingParams(
            n=draw.choice([1, 1, 1, 1, 2, 5]),
            best_of=draw.choice([None, None, None, 5]),
            max_tokens=draw.choice([0, 1, 5, 20, 40]),
            ignore_eos=draw.random() < 0.7,
            repetition_detection=draw.choice([None, None, Repetition(max_pattern_size=3, min_count=2)]),
            prompt_logprobs=draw.choice([None, None, None, None, 0]),
            constraint=draw.choice([None, None, None, Constraint.json_object()]),
        )
        terms = Terms(
            tenant=draw.choice(self.names),
            namespace=draw.choice([None, None, None, "group"]),
            priority=draw.randint(-2, 2),
            first_token_s=draw.choice([None, 0.01, 0.3]),
            next_token_s=draw.choice([None, None, 0.004]),
        )
        request = (
            self._searching(prompt, terms) if draw.random() < 0.25 else Request(prompt, params, self.limits, terms)
        )
        if request is None:
            return
        number = len(self.requests)
        try:
            self.events += self.loop.add(number, request)
        except (Overloaded, RequestError):
            self.refused += 1
        else:
            self.requests[number] = request
        self.scheduler.check()

    def _searching(self, prompt, terms):
        """A request that searches, one way or another; None when what was drawn does not fit."""
        draw = self.draw
        penalty, params = None, SamplingParams()
        budget = Budget(nodes=draw.choice([5, 40]), blocks=draw.choice([None, 0, 3]))
        kind = draw.choice(["choose", "beam", "best-first"])
        form = draw.choice([None, None, Constraint.json_object()])  # all is legal here, and ends must be complete
        some = draw.choice([Budget(), Budget(), Budget(nodes=9), Budget(finished=2)])
        if kind == "choose":
            options = {tuple(draw.randrange(4, 7) for _ in range(draw.choice([1, 2, 3, 20, 40]))) for _ in range(8)}
            how = {"options": tuple(sorted(options)), "at_once": draw.choice([1, 3]), "score_all": draw.random() < 0.3}
            search = Search(choose=Choose(**how))
        elif kind == "beam":
            width, groups = draw.choice([(1, 1), (3, 1), (6, 1), (4, 2)])
            early = draw.choice([True, False, "never"])
            search = Search(
                beam=Beam(width=width, groups=groups, diversity=float(groups > 1), early_stopping=early, budget=some)
            )
            params = SamplingParams(n=draw.randint(1, width), max_tokens=draw.choice([1, 5, 20]), constraint=form)
        else:
            phrases = Penalty(coverage=1.0, phrases=((draw.randrange(4, 9),), (4, 5)))
            repeats = Penalty(repetition=0.5, rerank=draw.random() < 0.3)
            penalty = draw.choice([None, Penalty(length="power"), repeats, phrases])
            search = Search(best_first=BestFirst(at_once=draw.choice([1, 4]), budget=budget), penalty=penalty)
            params = SamplingParams(
                n=draw.choice([1, 3]), min_tokens=draw.choice([1, 3]), max_tokens=4, constraint=form
            )
        try:
            return Request(prompt, params, self.limits, terms, search)
        except RequestError:
            self.refused += 1
            return None

    def leave(self):
        number = self.draw.randrange(len(self.requests) + 1)
        index = self.draw.choice([None, None, 0, 1])
        self.events += self.loop.cancel(number, index)
        self.scheduler.check()

    def pin(self):
        tokens = self.draw.choice([*self.beginnings, *self.said])
        terms = Terms(tenant=self.draw.choice(self.names), namespace=self.draw.choice([None, "group"]))
        self.loop.pin(terms, tokens, self.draw.choice([0.01, 0.5, 1e6]))
        self.scheduler.check()

    def crash(self):
        """The engine is gone, with cache and runner; another one goes on with every request that had not ended."""
        unfinished = {}
        for number, entry in self.scheduler._roster.entries.items():
            indices = entry.living if entry.group is None else range(entry.request.params.num_drawn)
            unfinished[number] = {index: tuple(self.tokens(number, index)) for index in indices}
        self.restarted |= set(unfinished)
        self.start()
        for number, so_far in unfinished.items():
            self.events += self.loop.add(number, self.requests[number], so_far)
            self.scheduler.check()

    def turn(self):
        new = self.loop.turn()
        self.events += new
        for event in new:
            if isinstance(event, Token):
                self.said_by.setdefault((event.request, event.index), []).append(event.choice.token)
            if isinstance(event, Ended) and len(self.said) < 40:
                request = self.requests[event.request]
                self.said.append((*request.prompt, *self.tokens(event.request, 0)))
        for sequence in self.scheduler._sequences.values():
            if sequence.request.search is not None:
                lines = self.lines_of.setdefault(sequence.request_id, {})
                lines.setdefault(sequence.index, set()).add(tuple(sequence.tokens))
        self.scheduler.check()
        self.check_shares()

    # -- laws ----------------------------------------------------------------------------------------------------

    def check_shares(self):
        cache = self.cache
        for name in self.names:
            cap = cache.tenants[name].max_blocks
            assert cap is None or cache.pool.charged.get(name, 0) <= cap, f"{name} has more blocks than it may"
        if self.draw.random() < 0.9:  # counted in one long pass
            return
        total, by_tenant = self.scheduler.gauges()
        assert total.total == cache.pool.num_blocks and total.free == cache.pool.num_free
        assert {name: each.total for name, each in by_tenant.items()} == cache.pool.charged

    def tokens(self, request, index):
        return self.said_by.get((request, index), [])

    def run(self):
        draw = self.draw
        rate = draw.choice([0.05, 0.3, 0.8])
        for _ in range(draw.choice([10, 40, 80])):
            if draw.random() < rate and len(self.requests) < 20:
                self.arrive()
            if draw.random() < 0.04:
                self.leave()
            if draw.random() < 0.05:
                self.pin()
            if draw.random() < self.crash_rate:
                self.crash()
            if draw.random() < 0.1:
                self.clock.advance(draw.choice([0.001, 0.1, 1.0]))
            self.turn()
        self.come_to_rest()
        self.check_ends()
        self.check_restore()
        return self

    def check_restore(self):
        """What is cached can be brought back, and is found there as it was here."""
        records, new = export(self.cache), KVCache(self.cache_settings, self.tenants)
        if self.cache.has_prefix:
            moves = dict(restore(new, records, VOCAB))
            new.check([])
            assert len(moves) == len(records)
            for record in records:
                assert new.pool.owner(moves[record.block]) == record.tenant

    def come_to_rest(self):
        """Nothing arrives any more: everything must end, within a bound."""
        left = sum(
            (len(r.prompt) + r.max_tokens + 4) * (r.params.num_drawn if r.search is None else 300)
            for n, r in self.requests.items()
            if n in self.scheduler._roster.entries
        )
        for _ in range(40 * left + 10):
            if self.loop.is_idle:
                break
            self.turn()
        assert self.loop.is_idle, "the engine does not come to rest"
        assert self.runner.in_flight == 0
        assert self.cache.pool.num_held == len(self.cache.tree), "blocks were lost"
        self.scheduler.pin(Terms(), (1,), 1e9, 1e9)  # time passes
        assert self.cache.eviction.num_pinned == 0 and self.cache.eviction.num_idle == len(self.cache.tree)

    def check_ends(self):
        by_request = {number: [] for number in self.requests}
        for event in self.events:
            by_request[event.request].append(event)
        steps_with_errors = self.fail_rate > 0
        for number, request in self.requests.items():
            own = by_request[number]
            assert isinstance(own[0], Arrived) and isinstance(own[-1], Ended)
            assert sum(isinstance(e, Ended) for e in own) == 1, "a request ends once"
            finished = {e.index: e for e in own if isinstance(e, Finished)}
            assert len(finished) == sum(isinstance(e, Finished) for e in own) == request.params.num_drawn
            account = own[-1].account
            is_whole = number not in self.restarted
            assert not is_whole or account.preemptions == sum(isinstance(e, Preempted) for e in own)
            first = next((e for e in own if isinstance(e, Admitted)), None)
            if is_whole:
                assert account.cached == (0 if first is None else first.cached) < len(request.prompt)
            assert all(seconds >= 0 for _, seconds in account.stalls)
            if request.search is not None:
                self.check_search(number, request, finished, own[-1])
                continue
            for index in range(request.params.num_drawn):
                got, reason = self.tokens(number, index), finished[index].reason
                want = alone(request, index)
                if reason in ("stop", "length", "repetition"):
                    assert got == want, f"request {number}.{index} has other tokens than alone"
                else:
                    assert got == want[: len(got)]
                assert reason != "error" or steps_with_errors or self.bad_rate, "nothing went wrong"
            if request.params.prompt_logprobs is not None and {e.reason for e in finished.values()} <= {
                "stop",
                "length",
                "repetition",
            }:
                scored = [None, *(token for token in request.prompt[1:])]
                assert [p and p.token for p in own[-1].prompt_logprobs] == scored
        self.check_spread()
        self.check_namespaces()
        tokens = sum(len(said) for said in self.said_by.values())
        preempted = sum(isinstance(e, Preempted) for e in self.events)
        searched = sum(len(lines) for by_index in self.lines_of.values() for lines in by_index.values())
        assert preempted <= tokens + searched + 5 * len(self.requests), "sequences take turns and get nowhere"

    def check_search(self, number, request, finished, ended):
        """A search finds what it would have found alone, and tells nothing that it has to take back."""
        reasons = {event.reason for event in finished.values()}
        alone, _ = search_alone(request, LIKELIHOOD)
        if ended.search is None:
            assert len(reasons) == 1 and reasons < {"cancelled", "error"}
            assert reasons != {"error"} or self.fail_rate or self.bad_rate, "nothing went wrong"
            if alone.found:
                told = self.tokens(number, 0)
                assert told == list(alone.found[0].token_ids[: len(told)])
            return
        assert ended.search == alone, f"search {number} comes to something else than alone"
        for index, event in finished.items():
            found = alone.found[index] if index < len(alone.found) else None
            assert self.tokens(number, index) == ([] if found is None else list(found.token_ids))
            assert event.reason == ("length" if found is None else found.finish_reason)

    def check_spread(self):
        """Bad numbers reach nobody who came after they were noticed. A request that draws nothing may never notice."""
        if self.fail_rate:
            return
        failed = {e.request for e in self.events if isinstance(e, Finished) and e.reason == "error"}
        arrived = {e.request: place for place, e in enumerate(self.events) if isinstance(e, Arrived)}
        ended = {e.request: place for place, e in enumerate(self.events) if isinstance(e, Ended)}
        for number in failed - self.went_bad:
            known = (bad not in failed or arrived[number] < ended[bad] for bad in self.went_bad)
            assert any(known), "bad numbers stayed in the cache"

    def check_namespaces(self):
        """What was found had been computed before, under the same namespace."""
        for event in self.events:
            if isinstance(event, Admitted) and event.cached:
                request = self.requests[event.request]
                owns = {line[: event.cached] for line in self._lines(event.request, event.index)}
                assert any(
                    _whose(other.terms) == _whose(request.terms)
                    and any(line[: event.cached] in owns for line in self._lines(n))
                    for n, other in self.requests.items()
                    if n != event.request
                    or n in self.restarted
                    or other.search is not None
                    or any(isinstance(e, Preempted) and e.request == n for e in self.events)
                ), "something was found that nobody computed"

    def _lines(self, number, index=None):
        """The lines of tokens of a request, or of one of its sequences."""
        request = self.requests[number]
        if request.search is not None:
            lines = self.lines_of.get(number, {})
            return [line for at in lines for line in lines[at] if index is None or at == index]
        indices = range(request.params.num_drawn) if index is None else [index]
        return [(*request.prompt, *self.tokens(number, at)) for at in indices]


def _whose(terms):
    return (terms.tenant, None) if terms.namespace is None else (None, terms.namespace)


if __name__ == "__main__":
    simulation = Simulation(int(sys.argv[1]))
    print(
        f"seed {simulation.seed}: {simulation.settings}, {simulation.door}, {simulation.cache.pool.num_blocks} blocks"
    )
    try:
        simulation.run()
    finally:
        for step in simulation.runner.steps[-10:]:
            rows = " ".join(f"{w.sequence}:{w.start}+{w.count}" for w in step.works)
            print(f"step {step.number}: {rows}  {step.why}")
    print(f"{len(simulation.requests)} requests, {len(simulation.runner.steps)} steps: nothing is wrong")
