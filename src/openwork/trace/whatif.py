"""What-if: the same arrivals under other settings, with step costs measured from the recording; what would have been.

Nothing simulated is given out alone. Beside each figure stand the one that was measured, the one simulated under the
recorded settings, and how far those two lie apart: that is how far the answer may be trusted. The document:

    kind, version   "openwork.what-if", 1
    recorded        the settings under which it was recorded; ``asked`` those that were asked for
    cost            the fit: base_s, single_row_s, ..., between_s, steps, error, total_error (see StepCost)
    figures[]       name, measured, as_recorded (simulated under the recorded settings), what_if (simulated), off
                    (as_recorded / measured - 1), change (what_if / as_recorded - 1); null where there is none
    by_tenant       name -> figures[]
    notes[]         what could not be taken into account
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any

from openwork.core.errors import RequestError
from openwork.core.settings import AdmissionSettings, CacheSettings, First, Order, ScheduleSettings
from openwork.trace import cost
from openwork.trace.arrivals import Recorded, collect
from openwork.trace.entry import Began, Entry
from openwork.trace.figures import Figures
from openwork.trace.simulate import simulate

VERSION = 1
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """Other settings; None leaves one as it was recorded. ``unbounded`` names those that are to have no bound."""

    prefix: bool | None = None
    blocks: int | None = None
    blocks_factor: float | None = None  # times as many as there were
    max_step_tokens: int | None = None
    max_running: int | None = None
    order: Order | None = None
    is_fair: bool | None = None
    first: First | None = None
    next_token_s: float | None = None
    stretch: float | None = None
    patience_s: float | None = None
    unbounded: frozenset[str] = frozenset()  # of "stretch", "next_token_s"

    def cache(self, was: CacheSettings) -> CacheSettings:
        """The cache that is asked for. Raises RequestError."""
        blocks = was.num_blocks if self.blocks is None else self.blocks
        if self.blocks_factor is not None:
            blocks = round(was.num_blocks * self.blocks_factor)
        if blocks < 1:
            raise RequestError(f"comes to {blocks}; there must be at least one block", param="kv_blocks")
        return replace(was, num_blocks=blocks, prefix=was.prefix if self.prefix is None else self.prefix)

    def schedule(self, was: ScheduleSettings) -> ScheduleSettings:
        """The schedule that is asked for. Raises OpenworkError, saying what it must be."""
        names = (
            "max_step_tokens",
            "max_running",
            "order",
            "is_fair",
            "first",
            "next_token_s",
            "stretch",
            "patience_s",
        )
        asked = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        return replace(was, **{**asked, **dict.fromkeys(self.unbounded)})


def what_if(entries: Iterable[Entry], change: Change) -> dict[str, Any]:
    """The document. Raises RequestError when the recording holds too little, OpenworkError for impossible settings."""
    return answer(collect(entries), change)


def answer(recorded: Recorded, change: Change) -> dict[str, Any]:
    """What would have come of what was recorded, and how far that may be trusted."""
    began = recorded.began
    if began is None or not recorded.arrivals:
        raise RequestError(
            "the recording holds no request from its beginning on",
            "The oldest parts are gone: record more.",
            param="record",
        )
    costs = cost.fit(recorded.works, recorded.seconds, recorded.between)
    cache, schedule = change.cache(began.cache), change.schedule(began.schedule)
    measured = recorded.counting.figures()
    before = simulate(recorded, costs, began.cache, _guessing(began.schedule, began), began.admission)
    after = simulate(recorded, costs, cache, _guessing(schedule, began), began.admission)
    return {
        "kind": "openwork.what-if",
        "version": VERSION,
        "recorded": settings(began.cache, began.schedule, began.admission),
        "asked": settings(cache, schedule, began.admission),
        "cost": {name: value for name, value in asdict(costs).items() if name != "lucks"},
        "figures": _compared(measured, before, after),
        "by_tenant": {
            name: _compared(*(each.by_tenant.get(name, Figures()) for each in (measured, before, after)))
            for name in measured.by_tenant
        },
        "notes": [*recorded.notes, *_notes(recorded, began)],
    }


def _guessing(schedule: ScheduleSettings, began: Began) -> ScheduleSettings:
    """Guesses follow from the tokens: without them there are none."""
    return schedule if began.has_tokens else replace(schedule, speculation=None)


def settings(cache: CacheSettings, schedule: ScheduleSettings, admission: AdmissionSettings) -> dict[str, Any]:
    """Settings as one flat record."""
    return {
        "num_blocks": cache.num_blocks,
        "block_size": cache.block_size,
        "prefix": cache.prefix,
        **asdict(schedule),
        **asdict(admission),
    }


def _compared(measured: Figures, before: Figures, after: Figures) -> list[dict[str, Any]]:
    found = []
    for name in NAMES:
        was, simulated, would = (getattr(each, name) for each in (measured, before, after))
        found.append(
            {
                "name": name,
                "measured": was,
                "as_recorded": simulated,
                "what_if": would,
                "off": _ratio(simulated, was),
                "change": _ratio(would, simulated),
            }
        )
    return found


def _ratio(one: float | None, other: float | None) -> float | None:
    return None if one is None or not other else one / other - 1


def _notes(recorded: Recorded, began: Began) -> list[str]:
    notes = []
    if recorded.num_left_out:
        notes.append(
            f"{recorded.num_left_out} requests were refused then; what they would have been answered is not known."
        )
    if recorded.processes > 1:
        notes.append(
            f"There were {recorded.processes} engine processes; the time between two of them is not simulated."
        )
    if not began.has_tokens and began.schedule.speculation is not None:
        notes.append("Tokens were guessed ahead then; without prompts in the recording that is not simulated.")
    if not began.has_tokens and any(arrival.request.search is not None for arrival in recorded.arrivals):
        notes.append("Searches were recorded without tokens.")
    return notes
