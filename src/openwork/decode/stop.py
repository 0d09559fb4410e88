"""When a sequence is complete, as far as token ids can tell. Stop strings are text and belong to the edge."""

from __future__ import annotations

from collections.abc import Sequence

from openwork.core.request import Request
from openwork.core.step import Choice
from openwork.decode.strategy import Continue, Stop


def judge(request: Request, before: Sequence[int], choice: Choice) -> Continue | Stop:
    """Continue, or Stop with the reason, for the token that follows those ``before`` it, the prompt's first.

    An end token counts only from min_tokens on; before that it is not drawn either, unless a bias forces it. Under a
    constraint the model's end tokens always count: they are drawn only where the text is complete, and too early only
    where nothing else was allowed.
    """
    generated = len(before) - len(request.prompt)
    counts = choice.token in request.stop_ids and generated >= request.params.min_tokens
    if counts or (request.params.constraint is not None and choice.token in request.limits.eos_ids):
        return Stop(choice, "stop", choice.token)
    loop = request.params.repetition_detection
    if loop is not None and generated >= request.params.min_tokens:
        longest = loop.max_pattern_size * loop.min_count - 1
        if loop.is_in([*before[max(len(request.prompt), len(before) - longest) :], choice.token]):
            return Stop(choice, "repetition")
    if generated + 1 >= request.max_tokens:
        return Stop(choice, "length")
    return Continue(choice)
