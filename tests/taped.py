"""A tape in memory: everything that a scheduler is told and answers, as the lines of a recording.

``tape(scheduler, settings...)`` puts itself before the methods of one scheduler and keeps a line for each call.
"""

from recorded import lines_read
from simulation import Simulation

from openwork.core.errors import OpenworkError
from openwork.core.settings import RecordSettings
from openwork.decode.ngram import Ngram
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
from openwork.trace.log import FlightRecorder
from openwork.trace.recording import Recording


class Tape(list):
    """The lines, one process after the other."""

    def __init__(self, unix_s=1_700_000_000.0, record=None):
        super().__init__()
        self.unix_s = unix_s
        self.name = str
        self.record = record  # RecordSettings of a flight recorder that hears the same
        self.recorder = None

    def on(self, scheduler, cache, schedule, admission, time=0.0, tenants=None, vocab_size=50, model="echo"):
        """Record one scheduler from now on: an engine process began."""
        known = dict(scheduler.cache.tenants._known) if tenants is None else tenants
        about = (model, "test", "float32", "float32", 1, vocab_size, True)
        began = Began(time, self.unix_s + time, *about, cache, schedule, admission, known)
        self.append(began)
        self.scheduler = scheduler
        if self.record is not None:
            self.close()
            self.recorder = FlightRecorder(self.record, began)
        if self.recorder is not None:
            self.recorder.attend(scheduler)
            scheduler.hear(self.recorder.decided)
        for name in ("add", "cancel", "pin", "plan", "commit", "fail"):
            setattr(scheduler, name, getattr(self, f"_{name}")(getattr(scheduler, name)))

    def close(self):
        if self.recorder is not None:
            self.recorder.closed()

    def keep(self, entry, say=None):
        self.append(entry)
        if self.recorder is not None and say is not None:
            say(self.recorder)

    def replaced(self, time, tenants):
        self.append(Replaced(time, dict(tenants)))

    def _add(self, add):
        def taped(number, request, now, so_far=None):
            given = None if so_far is None else {index: tuple(tokens) for index, tokens in so_far.items()}
            try:
                events = add(number, request, now, so_far)
            except OpenworkError as error:
                self._submitted(Submitted(now, number, self.name(number), request, given, str(error)))
                raise
            self._submitted(Submitted(now, number, self.name(number), request, given))
            return events

        return taped

    def _submitted(self, entry):
        about = (entry.time, entry.number, entry.name, entry.request, entry.so_far, entry.error)
        self.keep(entry, lambda recorder: recorder.submitted(*about))

    def _cancel(self, cancel):
        def taped(number, now, index=None, reason="cancelled"):
            events = cancel(number, now, index, reason)
            say = (lambda recorder: recorder.cancelled(now, number, index, reason, events)) if events else None
            self.keep(Cancelled(now, number, index, reason, tuple(events)), say)
            return events

        return taped

    def _pin(self, pin):
        def taped(terms, tokens, now, until):
            entry, num_tokens = Pinned(now, terms, tuple(tokens), until), pin(terms, tokens, now, until)
            self.keep(entry, lambda recorder: recorder.pinned(now, terms, tuple(tokens), until))
            return num_tokens

        return taped

    def _plan(self, plan):
        def taped(now):
            step, events = plan(now)
            if step is not None:
                sequences = self.scheduler.sequences_of(step)
                owners = tuple((each.request_id, each.index) for each in sequences)
                entry = Planned(now, step, tuple(events), owners, lines_read(step, sequences))
                self.keep(entry, lambda recorder: recorder.planned(now, step, sequences, events))
            elif not self.scheduler.is_idle:
                guess = self.scheduler.awaits_guess
                self.keep(Waited(now, tuple(events), guess), lambda recorder: recorder.waited(now, events, guess))
            return step, events

        return taped

    def _commit(self, commit):
        def taped(step, result, now):
            events = commit(step, result, now)
            self.keep(Ran(now, result, tuple(events)), lambda recorder: recorder.ran(now, step, result, events))
            return events

        return taped

    def _fail(self, fail):
        def taped(step, message, now):
            events = fail(step, message, now)
            entry = Failed(now, step.number, message, tuple(events))
            self.keep(entry, lambda recorder: recorder.failed(now, step, message, events))
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

    record = None

    def __post_init__(self):
        self.tape = Tape(record=self.record)
        super().__post_init__()

    def _guesser(self, sequence):
        return Ngram(sequence.prompt_len)  # what a replay guesses too

    def start(self):
        super().start()
        self.tape.on(self.scheduler, self.cache_settings, self.settings, self.door, self.clock.now())


def drawn(seed):
    """The recording of a drawn world."""
    return list(Taped(seed).run().tape)


def drawn_to(directory, seed, keeps_prompts, kind=Taped):
    """The same, in files."""
    world = type("Filed", (kind,), {"record": RecordSettings(directory=str(directory), keeps_prompts=keeps_prompts)})(
        seed
    )
    world.run().tape.close()
    return Recording.open(directory)
