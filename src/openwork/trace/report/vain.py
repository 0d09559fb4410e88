"""Vain: what guessing ahead came to in a recording, for a report: guesses, those that came true, rows for nothing.

Counted from the lines themselves, so it is known without a replay too.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from openwork.trace.course import Course


def guesses_document(course: Course) -> dict[str, Any] | None:
    """None where nothing was guessed."""
    guessed, right = Counter[str](), Counter[str]()
    for step in course.steps:
        for place, _, _, count, came in step.guesses:
            if came is not None:
                tenant = course.requests[place].tenant
                guessed[tenant] += count
                right[tenant] += came
    if not guessed:
        return None
    total, true, rows = guessed.total(), right.total(), sum(step.rows for step in course.steps)
    settings = (began.schedule.speculation for _, began in course.processes)
    by = sorted({each.guess for each in settings if each is not None})
    vain = total - true
    return {
        "by": by,
        "guessed": total,
        "right": true,
        "rows_for_nothing": vain,
        "rows": rows,
        "by_tenant": {name: {"guessed": guessed[name], "right": right[name]} for name in sorted(guessed)},
        "text": [
            f"{total:,} tokens were guessed ahead, and {true:,} of them were right ({true / total:.0%}); "
            f"{vain:,} of {rows:,} rows ({vain / rows:.1%}) were computed for nothing."
        ],
    }
