"""Whereabouts: where the blocks of a replayed scheduler were, and who moved them, written into a Course.

Samples of everything lie over the whole recording, a bounded number of them; within a window of steps every move and
every step is kept. It guarantees that a block which was given back has its cause. It does not know why a step was so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise

from openwork.core.event import Finished, Preempted
from openwork.core.step import Step
from openwork.trace.course import Course, Sample
from openwork.trace.entry import Entry, Planned
from openwork.trace.replay.schedule import Rerun
from openwork.trace.watch import Move, WatchedCache

MOST_SAMPLES = 256  # of where the blocks are, over a whole recording


class Whereabouts:
    """``watch`` every line of a process that runs over a WatchedCache."""

    def __init__(self, course: Course, window: range) -> None:
        self._course = course
        self._window = window
        self._cache: WatchedCache | None = None  # of the process in hand
        self._every = 1  # steps between two samples

    def outlive(self, process: Rerun | None) -> None:
        """What the last process had cached is gone, as far as both were replayed."""
        cache = None if process is None else process.cache
        assert cache is None or isinstance(cache, WatchedCache)
        if cache is not None and self._cache is not None:
            cache.outlive(self._cache)
        self._cache = cache

    def watch(self, entry: Entry, process: Rerun, at: int, places: Mapping[int, int]) -> None:
        """A line, told again: it belongs to the step in place ``at``; ``places`` are those of the requests."""
        cache = process.cache
        assert isinstance(cache, WatchedCache)
        moves = cache.take_moves()
        course, is_planned = self._course, isinstance(entry, Planned)
        for move in moves:
            if move.what == "evict":
                course.evicted[move.tenant, move.owner] += 1
            if course.steps:
                course.steps[at].moves[move.what] += 1
        if is_planned and self._window and at == self._window.start:
            blocks = range(cache.pool.num_blocks)
            course.detail.start = [(cache.state(block), cache.pool.owner(block)) for block in blocks]
        elif at in self._window and course.steps:
            ends = [event for event in process.events if isinstance(event, (Preempted, Finished))]
            for move in moves:
                course.detail.moves.append((at, _placed(move, ends, places)))
        if is_planned and process.step is not None and (at in self._window or not at % self._every):
            self._sample(process.step, process, at)

    def _sample(self, step: Step, process: Rerun, at: int) -> None:
        samples = self._course.samples
        tables = [work.blocks for work in step.works]
        entries, distinct = sum(map(len, tables)), len({block for table in tables for block in table})
        runs = sum(1 + sum(two != one + 1 for one, two in pairwise(table)) for table in tables if table)
        gauges = process.scheduler.gauges()
        samples.append(Sample(at, *gauges, entries, distinct, runs, len(self._course.detail.moves)))
        if len(samples) > MOST_SAMPLES + len(self._window):
            self._every *= 2
            self._course.samples = [s for s in samples if not s.step % self._every or s.step in self._window]


def _placed(move: Move, ends: list[Preempted | Finished], places: Mapping[int, int]) -> Move:
    """A move with the place of its request, and with why a sequence gave its blocks back."""
    place = None if move.request is None else places.get(move.request)
    if move.cause or move.what != "give":
        return replace(move, request=place)
    own = [event for event in ends if (event.request, event.index) == (move.request, move.index)]
    cause = "let go" if not own else "preempted" if isinstance(own[0], Preempted) else "finished"
    return replace(move, request=place, cause=cause)
