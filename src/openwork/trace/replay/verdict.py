"""Verdict: what came of a replay of bits: how much was compared, and the first thing that is not as it was recorded."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Generic, TypeVar

Found = TypeVar("Found")  # a kind of difference, a dataclass


@dataclass(frozen=True, slots=True)
class Verdict(Generic[Found]):
    """``tokens`` of an answer were compared; ``unhashed`` rows among them had no hash, so the choice alone was."""

    id: str
    tokens: int
    unhashed: int
    first_difference: Found | None

    @property
    def equal(self) -> bool:
        return self.first_difference is None

    def as_record(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        return {"id": self.id, "equal": self.equal, **asdict(self)}
