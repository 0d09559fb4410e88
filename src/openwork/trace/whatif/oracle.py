"""What-if: the same arrivals under other settings, with step costs measured from the recording; what would have been.

Nothing simulated is given out alone. Beside each figure stand the one that was measured, the one simulated under the
recorded settings, and an interval: what comes of fits that the same steps might as well have led to, of the same slow
moments at other times, and of how far simulations of the recorded settings stray from what was measured. The document:

    kind, version   "openwork.what-if", 2
    recorded        the settings under which it was recorded; ``asked`` those that were asked for
    assumed         clients: "times" (requests come when they came) | "answers" (who goes on from an answer waits for
                    it), conversations: how many do; disturbances: "same" | "none"
    cost            rates {part: seconds} (see trace/cost.py), pause_s, steps, error, most_rows, disturbed (part of the
                    time of steps beyond twice what they should take)
    figures[]       name, measured, as_recorded (simulated under the recorded settings), what_if (simulated), interval
                    [low, high], is_good, off (as_recorded / measured - 1), change (what_if / as_recorded - 1); null
                    where there is none
    by_tenant       name -> figures[]
    notes[]         what could not be taken into account
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from functools import cached_property
from random import Random
from typing import Any, Literal

from openwork.core.errors import RequestError
from openwork.trace.cost import PARTS, fit, usual
from openwork.trace.entry import Entry
from openwork.trace.whatif import tempo
from openwork.trace.whatif.arrivals import Recorded, collect
from openwork.trace.whatif.change import Change, Settings
from openwork.trace.whatif.conversation import Follows, conversations
from openwork.trace.whatif.figures import Figures
from openwork.trace.whatif.simulate import Machine, simulate

VERSION = 2
Clients = Literal["times", "answers"]
NAMES = (
    "requests",
    "refused",
    "output_tokens",
    "duration_s",
    "output_tok_s",
    "first_token_p50_s",
    "first_token_p99_s",
    "gap_p50_s",
    "gap_p99_s",
    "gap_max_s",
    "preemptions",
    "hit_rate",
    "evicted",
    "steps",
)
MOST_DRAWN = 5  # simulations beside the one of the same moments
TOKENS_DRAWN = 200_000  # that they may come to, all together: of a long recording fewer are drawn, two at least
GOOD = 0.5  # of a figure, that its interval may be wide, and it is still worth acting on
FEW = 3  # of what is counted, the same


class Oracle:
    """Answers about one recording: what is common to its answers is simulated once. Raises RequestError."""

    def __init__(self, recorded: Recorded, clients: Clients = "times", is_calm: bool = False) -> None:
        if recorded.began is None or not recorded.arrivals:
            raise RequestError(
                "the recording holds no request from its beginning on",
                "The oldest parts are gone: record more.",
                param="record",
            )
        self._recorded = recorded
        self._began = recorded.began
        self._clients = clients
        self._is_calm = is_calm
        self.settings = Settings.of(recorded.began)
        self._prior = usual(recorded.began)
        self.cost = fit(recorded.laps, self._prior)
        self._same = Machine(self.cost, tempo.as_it_was(recorded.laps, self.cost, is_calm))

    @cached_property
    def _conversations(self) -> dict[int, Follows]:
        return conversations(self._recorded.arrivals)

    @cached_property
    def _drawn(self) -> list[Machine]:
        """The machine as the same steps might as well have shown it."""
        laps, machines = self._recorded.laps, []
        tokens = sum(len(line) for arrival in self._recorded.arrivals for line in arrival.tokens.values())
        until_s = 2 * max((lap.start_s + lap.took_s for lap in laps), default=0.0)
        for number in range(max(2, min(MOST_DRAWN, TOKENS_DRAWN // max(1, tokens)))):
            draw = Random(number)  # the same question has the same answer
            cost = replace(fit(laps, self._prior, draw), pause_s=self.cost.pause_s)
            machines.append(Machine(cost, tempo.as_it_might_be(laps, cost, draw, until_s, self._is_calm)))
        return machines

    @cached_property
    def _as_recorded(self) -> tuple[Figures, list[Figures]]:
        return self._simulated(self.settings)

    def _simulated(self, settings: Settings) -> tuple[Figures, list[Figures]]:
        follows = self._conversations if self._clients == "answers" else {}
        settings = self._guessing(settings)
        same = simulate(self._recorded, self._same, settings, follows)
        return same, [simulate(self._recorded, machine, settings, follows) for machine in self._drawn]

    def _guessing(self, settings: Settings) -> Settings:
        """Guesses follow from the tokens: without them there are none."""
        guesses = settings.schedule.speculation
        if guesses is None or (self._began.has_tokens and guesses.draft_model is None):
            return settings
        return replace(settings, schedule=replace(settings.schedule, speculation=None))

    def answer(self, change: Change) -> dict[str, Any]:
        """The document. Raises OpenworkError for impossible settings."""
        asked = change.of(self.settings)
        measured = self._recorded.counting.figures()
        before, after = self._as_recorded, self._simulated(asked)
        return {
            "kind": "openwork.what-if",
            "version": VERSION,
            "recorded": self.settings.flat(),
            "asked": asked.flat(),
            "assumed": {
                "clients": self._clients,
                "conversations": len(self._conversations),
                "disturbances": "none" if self._is_calm else "same",
            },
            "cost": {
                "rates": dict(zip(PARTS, self.cost.rates, strict=True)),
                "pause_s": self.cost.pause_s,
                "steps": self.cost.steps,
                "error": self.cost.error,
                "most_rows": self.cost.most_rows,
                "disturbed": tempo.disturbed(self._recorded.laps, self.cost),
            },
            "figures": _compared(measured, before, after),
            "by_tenant": {
                name: _compared(_of(measured, name), _each_of(before, name), _each_of(after, name))
                for name in measured.by_tenant
            },
            "notes": [*self._recorded.notes, *self._notes(asked)],
        }

    def _notes(self, asked: Settings) -> list[str]:
        recorded, began, notes = self._recorded, self._began, []
        if recorded.num_left_out:
            notes.append(
                f"{recorded.num_left_out} requests were refused then; what they would have been answered is not known."
            )
        if recorded.processes > 1:
            notes.append(f"There were {recorded.processes} engine processes; each ends and begins when it did.")
        speculation = asked.schedule.speculation
        if speculation is not None and (not began.has_tokens or speculation.draft_model is not None):
            why = "a draft model's guesses are" if began.has_tokens else "without prompts in the recording that is"
            notes.append(f"Tokens would be guessed ahead; {why} not simulated.")
        if not began.has_tokens and any(arrival.request.search is not None for arrival in recorded.arrivals):
            notes.append("Searches were recorded without tokens.")
        if asked.schedule.max_step_tokens > self.settings.schedule.max_step_tokens:
            notes.append(
                f"Steps may become larger than any that was recorded ({self.cost.most_rows} rows): what those cost is "
                "taken from smaller ones."
            )
        if self._conversations and self._clients == "times":
            notes.append(
                f"{len(self._conversations)} requests go on from an earlier answer, and come here when they came: "
                "--clients answers lets them wait for it."
            )
        return notes


def what_if(entries: Iterable[Entry], change: Change) -> dict[str, Any]:
    """The document. Raises RequestError when the recording holds too little, OpenworkError for impossible settings."""
    return Oracle(collect(entries)).answer(change)


_Simulated = tuple[Figures, list[Figures]]


def _of(figures: Figures, tenant: str) -> Figures:
    return figures.by_tenant.get(tenant, Figures())


def _each_of(simulated: _Simulated, tenant: str) -> _Simulated:
    return _of(simulated[0], tenant), [_of(each, tenant) for each in simulated[1]]


def _compared(measured: Figures, before: _Simulated, after: _Simulated) -> list[dict[str, Any]]:
    found = []
    for name in NAMES:
        was, simulated, would = (getattr(each, name) for each in (measured, before[0], after[0]))
        checks = [getattr(each, name) for each in (before[0], *before[1])]
        interval = _interval(name, was, checks, [would, *(getattr(each, name) for each in after[1])])
        found.append(
            {
                "name": name,
                "measured": was,
                "as_recorded": simulated,
                "what_if": would,
                "interval": interval,
                "is_good": _is_good(name, would, interval),
                "off": _ratio(simulated, was),
                "change": _ratio(would, simulated),
            }
        )
    return found


def _interval(
    name: str, measured: float | None, checks: list[float | None], drawn: list[float | None]
) -> list[float] | None:
    """Around the first of ``drawn``: the others, and as far as ``checks`` stray from what they should have come to."""
    would, known = drawn[0], [each for each in drawn if each is not None]
    if would is None:
        return None
    strays = [each for each in checks if each is not None]
    if measured is not None and is_counted(name):
        known += [max(0.0, would + measured - each) for each in strays]
    elif measured is not None:
        known += [would * measured / each for each in strays if each > 0]
    return [min(known), max(known)]


def is_counted(name: str) -> bool:
    """Whether a figure is a number of things, or a part of them, and no time."""
    return not name.endswith("_s")


def _is_good(name: str, would: float | None, interval: list[float] | None) -> bool:
    if would is None or interval is None:
        return False
    low, high = interval
    least = 0.05 if name == "hit_rate" else FEW if is_counted(name) else 0.0
    return high - low <= max(GOOD * would, least)


def _ratio(one: float | None, other: float | None) -> float | None:
    return None if one is None or not other else one / other - 1
