"""Requests that outlive the process that computes them: parent and worker in one world, with deaths drawn at random.

The worker is the real one over an EchoRunner, the pipe a list. A death takes what was not flushed; some tokens are
poison, and kill whoever computes them. Whatever happens, each stream must be what its request would have had alone.
"""

from collections import Counter
from types import SimpleNamespace

from hypothesis import given, settings
from hypothesis import strategies as st
from simulation import RULE, VOCAB, alone

from openwork.cluster.frames import DOWN, UP, Frames, frame
from openwork.cluster.ledger import Ledger
from openwork.cluster.suspects import KILLS, TURNS
from openwork.cluster.wire import Accepted, Planned, Rejected, Submit, Turned, Withdraw, Withdrawn
from openwork.cluster.worker import Worker
from openwork.core.event import Admitted, Arrived, Ended, Finished, Preempted, Prefilled, Token
from openwork.core.request import Limits, Request, SamplingParams
from openwork.core.settings import CacheSettings, ScheduleSettings
from openwork.kv.cache import KVCache
from openwork.schedule.scheduler import Scheduler
from openwork.testing.echo import EchoRunner, VirtualClock

POISON = VOCAB  # no answer holds it
LIMITS = Limits(VOCAB + 1, 128)


class Died(Exception):
    pass


class Mortal(EchoRunner):
    def submit(self, step):
        if any(POISON in work.tokens for work in step.works):
            raise Died
        return super().submit(step)


class Line:
    """A pipe that is a list; what is flushed is through, as bytes and back."""

    def __init__(self):
        self.posted, self.through = [], []

    def post(self, message):
        self.posted.append(message)

    def flush(self):
        for message in self.posted:
            self.through += Frames(UP).feed(frame(message, UP))
        self.posted = []


class World:
    def __init__(self, draw):
        self.draw = draw
        self.clock = VirtualClock()
        self.accepted = []
        self.ledger = Ledger(self.accepted.append)
        self.seen = {}
        self.entries = {}
        self.cancelled = set()
        self.num_deaths = 0
        self.headway, self.stale = Counter(), Counter()  # turns with tokens, and kills, since the last of the other
        self.live()

    def live(self):
        cache = CacheSettings(self.draw(st.sampled_from([10, 16, 40]), label="blocks"))
        scheduler = Scheduler(ScheduleSettings(20, 8), KVCache(cache))
        self.line, self.down = Line(), []
        runner = Mortal(cache, RULE, self.clock)
        wired = SimpleNamespace(scheduler=scheduler, runner=runner, clock=self.clock, guide=None)
        self.worker = Worker(self.line, wired)
        self.say(self.ledger.messages())

    def say(self, messages):
        self.down += messages

    # -- what happens --------------------------------------------------------------------------------------------

    def submit(self, is_poison):
        prompt = self.draw(st.lists(st.integers(0, 40), min_size=1, max_size=30))
        if is_poison:
            prompt.insert(self.draw(st.integers(0, len(prompt))), POISON)
        params = SamplingParams(
            n=self.draw(st.sampled_from([1, 1, 1, 3])),
            max_tokens=self.draw(st.integers(0, 12)),
            prompt_logprobs=self.draw(st.sampled_from([None, None, 0])),
        )
        events = []
        entry = self.ledger.add(Request(tuple(prompt), params, LIMITS), events.extend)
        self.seen[entry.id], self.entries[entry.id] = events, entry
        self.say(self.ledger.messages())

    def cancel(self):
        if self.entries:
            id = self.draw(st.sampled_from(sorted(self.entries)))
            self.cancelled.add(id)
            self.say(self.ledger.cancel(self.entries[id], None, "cancelled", self.clock.now()))
            self.say(self.ledger.messages())

    def turn(self):
        """The worker takes what came and turns once; it may die of it."""
        said, self.down = self.down, []
        try:
            for message in said:
                for same in Frames(DOWN).feed(frame(message, DOWN)):
                    self.worker.apply(same)
            self.worker.turn()
        except Died:
            self.die("itself")
            return
        if self.draw(st.booleans()):
            self.line.flush()
        self.hear()

    def die(self, cause):
        self.num_deaths += 1
        self.hear()
        for id in self.ledger.entries:
            self.stale[id] = 1 if self.headway[id] >= TURNS else self.stale[id] + 1
        self.headway.clear()
        self.ledger.die(cause, self.clock.now())
        self.live()

    def may_be_killed(self):
        """Whether no innocent could be taken for guilty: each got on since the last kill, or was not killed often."""
        return all(self.headway[id] >= TURNS or self.stale[id] < KILLS - 1 for id in self.ledger.entries)

    def hear(self):
        said, self.line.through = self.line.through, []
        for message in said:
            match message:
                case Planned():
                    self.ledger.plan(message)
                case Turned():
                    self.ledger.turn(message)
                    self.headway.update({each.event.request for each in message.events if type(each.event) is Token})
                case Accepted(id=id):
                    self.ledger.accept(id)
                case Rejected(id=id):
                    raise AssertionError("nothing here can be refused")
                case Withdrawn(id=id):
                    self.ledger.give_back(id, self.clock.now())
        self.say(self.ledger.messages())

    # -- what must hold ------------------------------------------------------------------------------------------

    def check_alone(self):
        """While somebody is on trial nobody else is handed over, and nobody twice."""
        handed = [m.id for m in self.down if isinstance(m, Submit)]
        assert len(set(handed)) == len(handed)
        assert all(not isinstance(m, Withdraw) or m.id in self.entries for m in self.down)
        inside = [e.id for e in self.ledger.entries.values() if e.place in ("sent", "inside")]
        assert not self.ledger.is_trying or len(inside) <= 1

    def check_end(self, poisons):
        assert not self.ledger.entries
        for id, entry in self.entries.items():
            events, request = self.seen[id], entry.request
            if not events:
                assert id in self.cancelled and not entry.has_begun
                continue
            assert isinstance(events[0], Arrived) and isinstance(events[-1], Ended)
            assert sum(isinstance(e, (Arrived, Ended)) for e in events) == 2
            assert [e.time for e in events] == sorted(e.time for e in events)
            reasons = {}
            for e in events:
                if isinstance(e, Finished):
                    assert e.index not in reasons
                    reasons[e.index] = e.failure or e.reason
            assert sorted(reasons) == list(range(request.params.n))
            is_guilty = "quarantined" in reasons.values()
            assert is_guilty <= (id in poisons)
            assert is_guilty or id in self.cancelled or id not in poisons
            for index, reason in reasons.items():
                tokens = [e.choice.token for e in events if isinstance(e, Token) and e.index == index]
                whole = alone(request, index)
                assert tokens == (whole if reason in ("length", "stop") else whole[: len(tokens)])
                assert reason in ("length", "stop") or is_guilty or id in self.cancelled
            self.check_order(events)
            if set(reasons.values()) <= {"length", "stop"} and request.params.prompt_logprobs is not None:
                scores = events[-1].prompt_logprobs
                assert [s and s.token for s in scores] == [None, *request.prompt[1:]]

    def check_order(self, events):
        admitted, computed, steps = set(), {}, [-1]
        for e in events:
            if isinstance(e, Admitted):
                assert e.index not in admitted
                admitted.add(e.index)
                assert e.step >= steps[-1]
                steps.append(e.step)
            elif isinstance(e, Preempted):
                admitted.discard(e.index)
            elif isinstance(e, Prefilled):
                assert e.computed > computed.get(e.index, 0)
                computed[e.index] = e.computed
            elif isinstance(e, Token):
                admitted.add(e.index)  # those that split off were never admitted by themselves


def run(data, kills, poison_rate):
    world, poisons = World(data.draw), set()
    for _ in range(data.draw(st.integers(1, 40))):
        action = data.draw(st.sampled_from(["submit", "turn", "turn", "turn", "cancel", *kills]))
        if action == "submit" and len(world.entries) < 6:
            is_poison = data.draw(st.integers(1, 100)) <= poison_rate
            if is_poison:
                poisons.add(len(world.entries))
            world.submit(is_poison)
        elif action == "cancel":
            world.cancel()
        elif action == "die" and world.may_be_killed():
            world.die("outside")
        else:
            world.turn()
        world.check_alone()
    for _ in range(2000):
        if not world.ledger.entries:
            break
        world.turn()
        world.line.flush()
        world.hear()
        world.check_alone()
    world.check_end(poisons)
    return world


def test_deaths_that_nobody_is_to_blame_for(is_long):
    @given(st.data())
    @settings(max_examples=5000 if is_long else 120)
    def test(data):
        run(data, ["die"], 0)

    test()


def test_poison(is_long):
    @given(st.data())
    @settings(max_examples=5000 if is_long else 120)
    def test(data):
        world = run(data, [], 30)
        ended = {id: [e for e in events if isinstance(e, Finished)] for id, events in world.seen.items()}
        guilty = [id for id, ends in ended.items() if any(end.failure == "quarantined" for end in ends)]
        assert world.num_deaths <= 3 * len(guilty) + 2 * len(world.cancelled)

    test()
