"""Conversations: which recorded request goes on from the answer to which, as far as their tokens tell.

    prompt A ......| answer a1 a2 a3 ...|
    prompt B = A ......  a1 a2 a3 ... | what was said next      B follows A, so long after A had ended

Who waits for an answer before the next question comes later when the answer does. Lines are compared by whole blocks of
tokens, so an answer shorter than one tells nothing; nor does a client that sends earlier answers changed, or waits for
one that it does not send again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from openwork.core.terms import Namespace
from openwork.trace.whatif.arrivals import Arrival

BLOCK = 16


@dataclass(frozen=True, slots=True)
class Follows:
    """After which request, by place, and how long after it had ended."""

    place: int
    pause_s: float


def conversations(arrivals: Sequence[Arrival]) -> dict[int, Follows]:
    """By place, of those that go on from an earlier one's answer."""
    ended: dict[int, int] = {}  # line up to the last whole block of an answer -> place
    found: dict[int, Follows] = {}
    for place, arrival in enumerate(arrivals):
        lines = list(_lines(arrival.request.terms.realm, arrival.request.prompt))
        for line in reversed(lines):
            before = ended.get(line)
            at_s = None if before is None else arrivals[before].ended_s
            if before is not None and at_s is not None and at_s <= arrival.at_s:
                found[place] = Follows(before, arrival.at_s - at_s)
                break
        for tokens in arrival.tokens.values():
            whole = (len(arrival.request.prompt) + len(tokens)) // BLOCK
            if whole > len(lines):
                *_, last = _lines(arrival.request.terms.realm, (*arrival.request.prompt, *tokens))
                ended[last] = place
    return found


def _lines(realm: Namespace, tokens: Sequence[int]) -> Iterator[int]:
    """A hash of each beginning of whole blocks."""
    line = hash(realm)
    for at in range(0, len(tokens) - BLOCK + 1, BLOCK):
        line = hash((line, tuple(tokens[at : at + BLOCK])))
        yield line
