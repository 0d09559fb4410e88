"""When a sequence is complete, as far as token ids can tell. Stop strings are text and belong to the edge."""

from __future__ import annotations

from openwork.core.request import Request
from openwork.core.step import Choice
from openwork.decode.strategy import Continue, Stop


def judge(request: Request, generated: int, choice: Choice) -> Continue | Stop:
    """Continue, or Stop with the reason, for the token that follows ``generated`` others.

    An end token counts only from min_tokens on; before that it is not drawn either, unless a bias forces it. Under a
    constraint the model's end tokens always count: they are drawn only where the text is complete, and too early only
    where nothing else was allowed.
    """
    counts = choice.token in request.stop_ids and generated >= request.params.min_tokens
    if counts or (request.params.constraint is not None and choice.token in request.limits.eos_ids):
        return Stop(choice, "stop", choice.token)
    if generated + 1 >= request.max_tokens:
        return Stop(choice, "length")
    return Continue(choice)
