"""What is recorded, kept in memory beside what is written, so that the one can be held against the other."""

from dataclasses import replace

from simulation import VOCAB, Simulation

from openwork.core.request import Limits
from openwork.core.settings import AdmissionSettings, CacheSettings, RecordSettings, ScheduleSettings
from openwork.trace.entry import Began, Cancelled, Failed, Pinned, Planned, Ran, Replaced, Submitted, Waited
from openwork.trace.log import FlightRecorder

LIMITS = Limits(50, 160, frozenset({3}))


def began(time=0.0, vocab_size=50, **more):
    about = ("echo", "test", "float32", "float32", 1, vocab_size, True)
    settings = (CacheSettings(10), ScheduleSettings(32, 8), AdmissionSettings())
    return Began(time, 1_700_000_000.0 + time, *about, *settings, **more)


def lines_read(step, sequences):
    """Of each work whose rows a search reads, what its sequence has behind the prompt; else None."""
    lines = tuple(
        tuple(each.tokens[each.prompt_len :])
        if each.request.search is not None and (work.expand or work.score)
        else None
        for work, each in zip(step.works, sequences, strict=True)
    )
    return lines if any(line is not None for line in lines) else ()


class Kept:
    """A recorder that keeps entries in ``entries`` and hands everything on to a FlightRecorder."""

    def __init__(self, directory, about=None, told=None, **settings):
        self.told = [] if told is None else told
        settings = RecordSettings(directory=str(directory), **{"keeps_prompts": True, **settings})
        self.log = FlightRecorder(settings, about or began(), self.told.append)
        self.entries = [self.log._began]

    def attend(self, scheduler):
        self.log.attend(scheduler)

    def submitted(self, time, number, name, request, so_far, error):
        kept = None if so_far is None else {index: tuple(tokens) for index, tokens in so_far.items()}
        own = str(number) if self.log.run == 0 else f"{self.log.run}-{number}"
        self.entries.append(Submitted(time, number, own if name is None else name, request, kept, error))
        self.log.submitted(time, number, name, request, so_far, error)

    def cancelled(self, time, number, index, reason, events):
        self.entries.append(Cancelled(time, number, index, reason, tuple(events)))
        self.log.cancelled(time, number, index, reason, events)

    def pinned(self, time, terms, tokens, until):
        self.entries.append(Pinned(time, terms, tuple(tokens), until))
        self.log.pinned(time, terms, tokens, until)

    def replaced(self, time, tenants):
        self.entries.append(Replaced(time, dict(tenants)))
        self.log.replaced(time, tenants)

    def planned(self, time, step, sequences, events):
        owners = tuple((sequence.request_id, sequence.index) for sequence in sequences)
        self.entries.append(Planned(time, step, tuple(events), owners, lines_read(step, sequences)))
        self.log.planned(time, step, sequences, events)

    def waited(self, time, events, for_guess):
        self.entries.append(Waited(time, tuple(events), for_guess))
        self.log.waited(time, events, for_guess)

    def decided(self, time, number, generation, worths):
        self.log.decided(time, number, generation, worths)

    def ran(self, time, step, result, events):
        self.entries.append(Ran(time, result, tuple(events)))
        self.log.ran(time, step, result, events)

    def failed(self, time, step, message, events):
        self.entries.append(Failed(time, step.number, message, tuple(events)))
        self.log.failed(time, step, message, events)

    def closed(self):
        self.log.closed()


class Recorded(Simulation):
    """A simulated engine that is recorded, each of its lives in turn."""

    def __init__(self, seed, directory, **how):
        self.kept, self.directory, self.how = [], directory, how
        super().__init__(seed)

    def recorder(self):
        about = began(self.clock.now(), VOCAB, tenants=self.tenants.known)
        about = replace(about, cache=self.cache_settings, schedule=self.settings, admission=self.door)
        self.kept.append(Kept(self.directory, about, **self.how))
        return self.kept[-1]

    @property
    def entries(self):
        return [entry for kept in self.kept for entry in kept.entries]


def simulated(seed, directory, **how):
    return Recorded(seed, directory, **how).run()
