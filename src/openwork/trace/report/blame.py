"""Blame: where waiting went. Every long wait for a token is cut at the steps that passed in it, and each piece laid to
what filled that step, or to what kept the one who waited out of it.

    wait    |-- step 7: its own row, beside 500 rows of a prompt of bob's --|-- step 8: preempted, carl holds most --|

It says who and why as far as the scheduler knew, and "machine" for what the size of a step does not explain. What is
laid to whom adds up to the waits that are long: those of at most twice the usual are left out.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from statistics import median

from openwork.trace.cost import StepCost
from openwork.trace.course import Asked, Course, Line, Stepped

LONG = 2.0  # times the usual gap, from which on a wait is long
MOST = 1.5  # times what a step, or the rows of prompts in it, are expected to cost: the rest is the machine's


@dataclass(slots=True)
class Blame:
    """Seconds that a tenant waited for one cause; ``worst`` is the longest of those waits."""

    cause: (
        str  # "prompts", "evicted", "lost", "preempted", "restart", "machine", or what kept it out of steps, as in Why
    )
    culprit: str | None  # a tenant
    victim: str
    seconds: float = 0.0
    waits: int = 0
    requests: set[int] = field(default_factory=set)  # those that waited, by place
    by: Counter[int] = field(default_factory=Counter)  # requests that were in the way, by rows or times
    worst_s: float = 0.0
    worst: tuple[int, int] | None = None  # (place of the request, place of the step it ended with)
    last: tuple[int, int] | None = None


class Blaming:
    """Lays the waits of a course. ``usual_s`` is the median gap between tokens."""

    def __init__(self, course: Course, cost: StepCost) -> None:
        self._course = course
        self._cost = cost
        self._landed = [step.planned_s if step.landed_s is None else step.landed_s for step in course.steps]
        self._sampled = [sample.step for sample in course.samples]
        self._found: dict[tuple[str, str | None, str], Blame] = {}
        self._holders: dict[tuple[int, str], str | None] = {}
        gaps = [gap for _, _, line in _lines(course) for gap, _, _ in self.gaps(line)]
        self.usual_s = median(gaps) if gaps else 0.0

    def gaps(self, line: Line) -> Iterator[tuple[float, int, int]]:
        """(seconds, place of the step of one token, of the next)."""
        for one, two in zip(line.tokens, line.tokens[1:], strict=False):
            yield self._landed[two] - self._landed[one], one, two

    def lay(self) -> list[Blame]:
        """All of it, the most seconds first."""
        for place, asked, line in _lines(self._course):
            for seconds, one, two in self.gaps(line):
                if seconds > LONG * self.usual_s:
                    self._gap(place, asked, line, one, two, seconds)
        for place, asked in enumerate(self._course.requests):
            self._queue(place, asked)
            self._own_prompt(place, asked)
        return sorted(self._found.values(), key=lambda blame: -blame.seconds)

    # -- between tokens ------------------------------------------------------------------------------------------

    def _gap(self, place: int, asked: Asked, line: Line, one: int, two: int, seconds: float) -> None:
        worked = set(line.worked[bisect_left(line.worked, one + 1) : bisect_right(line.worked, two)])
        for at in range(one + 1, two + 1):
            passed = max(0.0, self._landed[at] - self._landed[at - 1])
            step = self._course.steps[at]
            if step.process != self._course.steps[one].process:
                self._lay("restart", None, place, passed, seconds, two)
            elif at in worked:
                self._beside(place, asked, step, passed, seconds, two)
            else:
                self._left_out(place, asked, line, at, passed, seconds, two)

    def _beside(self, place: int, asked: Asked, step: Stepped, passed: float, seconds: float, end: int) -> None:
        """It had a row in the step, and others had prompts in it."""
        alone = self._cost.seconds(step.work.without_chunks)
        chunks = self._cost.seconds(step.work) - alone
        extra = max(0.0, passed - max(alone, self.usual_s))
        of_prompts = min(extra, MOST * chunks)
        others = [(other, rows) for other, rows in step.chunks if other != place]
        rows = sum(count for _, count in others)
        for other, count in others:
            self._prompt(other, place, of_prompts * count / rows, seconds, end, count)
        if not others:
            of_prompts = 0.0
        if extra - of_prompts > self.usual_s:
            self._lay("machine", None, place, extra - of_prompts, seconds, end)

    def _prompt(self, other: int, place: int, passed: float, seconds: float, end: int, rows: int) -> None:
        """Somebody's prompt was computed meanwhile: some of it for the second time, because it had been evicted."""
        asked = self._course.requests[other]
        if self._course.steps[end].process != asked.process:  # it goes on after its process had ended
            self._lay("lost", None, place, passed, seconds, end)
            return
        part = passed / max(1, asked.prompt - asked.cached)
        if asked.lost:
            self._lay("lost", None, place, part * asked.lost, seconds, end)
            passed -= part * asked.lost
        for tenant, again in asked.again.items():
            self._lay("evicted", tenant, place, part * again, seconds, end)
        passed -= part * asked.again.total()
        if passed > 0 and other != place:
            self._lay("prompts", other, place, passed, seconds, end, rows)

    def _left_out(self, place: int, asked: Asked, line: Line, at: int, passed: float, seconds: float, end: int) -> None:
        spans = [span for span in line.spans if span[0] <= self._landed[at]]
        if spans and spans[-1][1] == "preempted":
            whose = [by for step, _, by in asked.preempted if step <= at]
            culprit = self._holder(at, spans[-1][2], place)
            self._lay("preempted", culprit, place, passed, seconds, end, by=whose[-1] if whose else None)
            return
        causes = [cause for other, _, cause in self._course.steps[at].left_out if other == place]
        if causes:
            culprit = self._holder(at, causes[0], place)
            self._lay(causes[0], culprit, place, passed, seconds, end)

    # -- before the first token ----------------------------------------------------------------------------------

    def _queue(self, place: int, asked: Asked) -> None:
        if asked.joined_s is not None:
            return
        until = asked.admitted_s if asked.admitted_s is not None else asked.ended_s
        if until is None or asked.error or until - asked.arrived_s <= LONG * self.usual_s:
            return
        first = bisect_left(self._landed, asked.arrived_s)
        last = min(bisect_right(self._landed, until), len(self._landed) - 1)
        before, cause = asked.arrived_s, ""
        for at in range(first, last + 1):
            causes, of_others = self._causes(at)
            cause = causes.get(place) or of_others or cause or "rows"  # who is not named stands behind the others
            if at and self._course.steps[at].process != self._course.steps[at - 1].process:
                cause = "restart"
            now = min(self._landed[at], until)
            if now > before:
                self._lay(cause, self._holder(at, cause, place), place, now - before, until - asked.arrived_s, last)
                before = now

    def _causes(self, at: int) -> tuple[dict[int, str], str]:
        """Why each was left out of a step, by place of the request, and what the last of them waited for."""
        left_out = self._course.steps[at].left_out
        return {place: cause for place, _, cause in left_out}, left_out[-1][2] if left_out else ""

    def _own_prompt(self, place: int, asked: Asked) -> None:
        """Its first token waited for its own prompt: what had been cached once need not have been computed."""
        firsts = [line.tokens[0] for line in asked.lines.values() if line.tokens]
        if not firsts or asked.admitted_s is None:
            return
        end = min(firsts)
        took = self._landed[end] - asked.admitted_s
        if asked.again or asked.lost:
            self._prompt(place, place, took, took, end, 0)
        for at in range(max(1, bisect_left(self._landed, asked.admitted_s)), end + 1):
            step = self._course.steps[at]
            passed = self._landed[at] - max(self._landed[at - 1], asked.admitted_s)
            beyond = passed - max(MOST * self._cost.seconds(step.work), self.usual_s)
            if beyond > self.usual_s and step.process == asked.process:
                self._lay("machine", None, place, beyond, took, end)

    # -- who -----------------------------------------------------------------------------------------------------

    def _holder(self, at: int, cause: str, place: int) -> str | None:
        """The tenant that has most of what ran out at a step."""
        if cause == "restart":
            return None
        if cause == "tenant":
            return self._course.requests[place].tenant
        if (at, cause) not in self._holders:
            self._holders[at, cause] = self._most(at, cause)
        return self._holders[at, cause]

    def _most(self, at: int, cause: str) -> str | None:
        requests = self._course.requests
        if cause == "blocks" and self._sampled:
            sample = self._course.samples[max(0, bisect_right(self._sampled, at) - 1)]
            held = {name: gauges.private + gauges.shared for name, gauges in sample.by_tenant.items()}
            return max(held, key=lambda name: held[name], default=None)
        rows = Counter[str]()
        for other, count in self._course.steps[at].chunks:
            rows[requests[other].tenant] += count
        rows.update(self._course.steps[at].alone)
        return rows.most_common(1)[0][0] if rows else None

    def _lay(
        self,
        cause: str,
        culprit: int | str | None,
        place: int,
        passed: float,
        seconds: float,
        end: int,
        weight: int = 1,
        by: int | None = None,
    ) -> None:
        """``culprit`` is a tenant, or the place of a request."""
        requests, victim = self._course.requests, self._course.requests[place].tenant
        by = culprit if isinstance(culprit, int) else by
        tenant = requests[culprit].tenant if isinstance(culprit, int) else culprit
        found = self._found.setdefault((cause, tenant, victim), Blame(cause, tenant, victim))
        found.seconds += passed
        found.requests.add(place)
        if by is not None:
            found.by[by] += weight
        if found.last != (place, end):
            found.last = place, end
            found.waits += 1
            if seconds > found.worst_s:
                found.worst_s, found.worst = seconds, (place, end)


def _lines(course: Course) -> Iterator[tuple[int, Asked, Line]]:
    """Sequences that say one token after the other."""
    for place, asked in enumerate(course.requests):
        if not asked.is_search:
            for line in asked.lines.values():
                yield place, asked, line
