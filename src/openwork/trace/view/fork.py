"""What if it had said something else: a request that goes on from a place in another, with another token there.

It is asked of the engine like any request: what was said up to the place, and the other token, become its prompt; the
parameters, seed included, stay. By the numeric contract nothing changes in what came before. It computes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from openwork.core.errors import RequestError
from openwork.core.event import Event, Finished, Token
from openwork.core.request import Limits, Request
from openwork.core.terms import Terms
from openwork.trace.view.journey import Journey
from openwork.trace.view.search import TextOf

MOST_TOKENS = 256


def fork_request(
    journey: Journey, sequence: int, position: int, token: int, limits: Limits, terms: Terms | None = None
) -> Request:
    """The request of a branch at ``position``, an absolute one behind the prompt. Raises RequestError."""
    request, lines = journey.request, journey.story.lines
    if not journey.story.has_tokens:
        raise RequestError("keeps no prompts, so nothing can go on from there", param="recording")
    if request.search is not None or request.params.constraint is not None:
        raise RequestError("was a search, or had a constraint, which cannot begin in its middle", param="request")
    indices = journey.indices
    if not 0 <= sequence < len(indices):
        raise RequestError(f"is {sequence}; there are {len(indices)}, from 0", param="sequence")
    said = lines[indices[sequence]].tokens
    first = len(request.prompt)
    if not first <= position < first + len(said):
        raise RequestError(f"is {position}; answers stand at {first} to {first + len(said) - 1}", param="position")
    if not 0 <= token < limits.vocab_size:
        raise RequestError(f"is {token}; ids are 0 to {limits.vocab_size - 1}", param="token")
    before = (*request.prompt, *said[: position - first], token)
    wanted = request.max_tokens - (position + 1 - first)
    room = limits.context - len(before)
    most = min(MOST_TOKENS, max(1, wanted), room)
    if most < 1:
        raise RequestError("leaves no room in the context window", param="position")
    least = min(most, max(0, request.params.min_tokens - (position + 1 - first)))
    params = replace(request.params, n=1, stop=(), max_tokens=most, min_tokens=least, logprobs=0, prompt_logprobs=None)
    return Request(before, params, limits, terms=terms or Terms())


def fork_document(token: int, events: Iterable[Event], text_of: TextOf) -> dict[str, Any]:
    """What came of a branch, the token it began with first."""
    ids, logprobs, reason = [token], [], "cancelled"
    for event in events:
        if isinstance(event, Token):
            ids.append(event.choice.token)
            if event.choice.logprob is not None:
                logprobs.append(event.choice.logprob.logprob)
        elif isinstance(event, Finished):
            reason = event.reason
    return {
        "ids": ids,
        "texts": [text_of(each) for each in ids],
        "logprob": sum(logprobs) if logprobs else None,
        "finish_reason": reason,
        "marks": {"ids": "measured", "logprob": "measured"},
    }
