"""Guesses: what was guessed ahead in each step of a request, how much of it came true, and what came instead.

A guess is verified in the step that it was made for: those that are what was chosen anyway are accepted, the first that
is not ends the run, and the rows of it and of all behind it were computed for nothing. All of it is recorded.
"""

from __future__ import annotations

from typing import Any

from openwork.trace.view.journey import Journey
from openwork.trace.view.search import TextOf


def guesses(journey: Journey, text: TextOf) -> list[dict[str, Any]]:
    """In the order of the steps. ``first`` is the position of the first guess; ``instead`` stands behind the accepted.

    ``accepted`` is None where no result of the step was recorded; ``instead`` is None where all came true and the step
    brought nothing behind them, or was not recorded.
    """
    found = []
    for part in journey.parts:
        order = {work.sequence: place for place, work in enumerate(part.step.works)}
        for index, work in part.works:
            if not work.drafts:
                continue
            place = order[work.sequence]
            choices = part.outcomes[place].choices if place < len(part.outcomes) else ()
            accepted = len(choices) - 1 if choices else None
            instead = choices[-1].token if choices else None
            found.append(
                {
                    "run": part.run,
                    "step": part.step.number,
                    "index": index,
                    "first": work.start + work.num_sure,
                    "ids": list(work.drafts),
                    "texts": [text(token) for token in work.drafts],
                    "accepted": accepted,
                    "instead": None if instead is None else {"id": instead, "text": text(instead)},
                    "rows_for_nothing": None if accepted is None else len(work.drafts) - accepted,
                }
            )
    return found
