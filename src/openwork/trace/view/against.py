"""Another recording beside this one: its requests, and the one that was asked the most alike.

The same prompt on another machine, with another version, in other number formats, before and after an upgrade.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from openwork.trace.story import Story
from openwork.trace.view.journey import Journey


@dataclass(frozen=True, slots=True, kw_only=True)
class Beside:
    """Where the other run of a difference comes from, as a View by its id: the same recording, or another one."""

    here: Callable[[str], Any]
    there: Callable[[str], Any] | None = None
    stories: Callable[[], Iterable[Story]] = tuple  # of the other recording
    label: str = ""  # of the other recording
    first: str | None = None  # the request that is shown first; None: the one that was asked the most alike


def against_document(journey: Journey, beside: Beside) -> dict[str, Any]:
    """The other recording's requests; ``beside`` is the one to be shown first, None where there is none."""
    others = [story for story in beside.stories() if story.request is not None and story.lines and not story.error]
    return {
        "label": beside.label,
        "requests": [story.as_record() for story in others],
        "beside": beside.first or next(iter(most_alike(journey, others)), None),
    }


def most_alike(journey: Journey, stories: Iterable[Story]) -> list[str]:
    """The ids of those that said something, the one whose prompt and parameters are most like this one's first."""
    others = [story for story in stories if story.request is not None and story.lines]
    return [story.id for story in sorted(others, key=lambda story: _alike(journey, story), reverse=True)]


def _alike(journey: Journey, story: Story) -> tuple[int, bool, bool, bool]:
    one, other = journey.request, story.request
    assert other is not None
    pairs = enumerate(zip(one.prompt, other.prompt, strict=False))
    shared = next((place for place, (a, b) in pairs if a != b), min(len(one.prompt), len(other.prompt)))
    return shared, one.prompt == other.prompt, one.params == other.params, journey.story.id == story.id
