"""Lamp: what lights a recording up, when there is something: a model, its words, and what the machine could do at most.

Without one a recording is shown as it was written, and whatever would take a model says why it is not there. It does
not know where a model was found.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from openwork.run.capture import Examiner
from openwork.trace.view.costs import Shape
from openwork.trace.view.search import TextOf


@dataclass(frozen=True, slots=True, kw_only=True)
class Lamp:
    """What lights a recording up: a model to compute rows again with, its words, and the machine's ceilings."""

    examiner: Examiner | None = None
    dark: str = "No model was opened, so rows cannot be computed again."  # said when there is no examiner
    text_of: TextOf = lambda token: None
    shape: Shape | None = None
    ceilings: Mapping[str, Any] | None = None
    examine_bytes: int = 1 << 30  # of keys and values of one examination
