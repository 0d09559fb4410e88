"""A tape in memory: everything that a scheduler is told and answers, as the lines of a recording.

``tape(scheduler, settings...)`` puts itself before the methods of one scheduler and keeps a line for each call.
"""

from simulation import Simulation

from openwork.core.errors import OpenworkError
from openwork.trace.entry import (
    Began,
    Cancelled,
    Failed,
    Pinned,
    Planned,
    Ran,
    Replaced,
    Submitted,
    Waited,
)


class Tape(list):
    """The lines, one process after the other."""

    def __init__(self, unix_s=1_700_000_000.0):
        super().__init__()
        self.unix_s = unix_s
        self.name = str

    def on(self, scheduler, cache, schedule, admission, time=0.0, tenants=None, vocab_size=50, model="echo"):
        """Record one scheduler from now on: an engine process began."""
        known = dict(scheduler.cache.tenants._known) if tenants is None else tenants
        about = (model, "test", "float32", "float32", 1, vocab_size, True)
        self.append(Began(time, self.unix_s + time, *about, cache, schedule, admission, known))
        for name in ("add", "cancel", "pin", "plan", "commit", "fail"):
            setattr(scheduler, name, getattr(self, f"_{name}")(getattr(scheduler, name)))

    def replaced(self, time, tenants):
        self.append(Replaced(time, dict(tenants)))

    def _add(self, add):
        def taped(number, request, now, so_far=None):
            given = None if so_far is None else {index: tuple(tokens) for index, tokens in so_far.items()}
            try:
                events = add(number, request, now, so_far)
            except OpenworkError as error:
                self.append(Submitted(now, number, self.name(number), request, given, str(error)))
                raise
            self.append(Submitted(now, number, self.name(number), request, given))
            return events

        return taped

    def _cancel(self, cancel):
        def taped(number, now, index=None, reason="cancelled"):
            self.append(Cancelled(now, number, index, reason))
            return cancel(number, now, index, reason)

        return taped

    def _pin(self, pin):
        def taped(terms, tokens, now, until):
            self.append(Pinned(now, terms, tuple(tokens), until))
            return pin(terms, tokens, now, until)

        return taped

    def _plan(self, plan):
        def taped(now):
            step, events = plan(now)
            if step is not None:
                self.append(Planned(now, step, tuple(events)))
            else:
                self.append(Waited(now, tuple(events)))
            return step, events

        return taped

    def _commit(self, commit):
        def taped(step, result, now):
            events = commit(step, result, now)
            self.append(Ran(now, result, tuple(events)))
            return events

        return taped

    def _fail(self, fail):
        def taped(step, message, now):
            events = fail(step, message, now)
            self.append(Failed(now, step.number, message, tuple(events)))
            return events

        return taped


def taped_llm(tape, llm):
    """Record the engine of an LLM."""
    loop = llm._engine._loop
    scheduler = loop.scheduler
    settings = scheduler._planner._settings
    about = (scheduler.cache_settings, settings, scheduler._door._settings)
    tape.on(scheduler, *about, time=loop.clock.now(), vocab_size=llm._limits.vocab_size, model=llm.info.model)


class Taped(Simulation):
    """A drawn world that is recorded."""

    def __post_init__(self):
        self.tape = Tape()
        super().__post_init__()

    def start(self):
        super().start()
        self.tape.on(self.scheduler, self.cache_settings, self.settings, self.door, self.clock.now())


def drawn(seed):
    """The recording of a drawn world."""
    return list(Taped(seed).run().tape)
