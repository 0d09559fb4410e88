"""The door: what a request will need at most, and whether it is let in at all.

What can never be served is refused at once with a RequestError that names the parameter; what could be served later
with Overloaded. Whoever is let in is served to the end: running out of blocks later makes sequences wait, never fail.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from openwork.core.errors import Overloaded, RequestError
from openwork.core.request import Request
from openwork.core.settings import AdmissionSettings
from openwork.core.terms import Tenant
from openwork.schedule.roster import WaitingRoom


@dataclass(frozen=True, slots=True)
class Price:
    """What a request needs at its full length, with nothing cached.

    shared  |#### whole blocks of the prompt ####|
    own                                          |## the rest, once for each of its lines ##|

    What a search keeps beside the lines it computes is not in it: that gives way whenever somebody needs it.
    """

    blocks: int  # all its sequences together
    line: int  # one sequence alone: with fewer it cannot end
    logprobs: int  # log-probabilities that are given out, most likely tokens included


def price(request: Request, block_size: int) -> Price:
    """The price of a request in blocks and log-probabilities."""
    params, length = request.params, len(request.prompt)
    # The last token is never computed: nothing follows it.
    line = -(-max(length, length + request.max_tokens - 1) // block_size)
    shared = length // block_size
    scored = 0 if params.prompt_logprobs is None else (length - 1) * (1 + params.prompt_logprobs)
    drawn = 0 if params.top_logprobs is None else params.num_drawn * request.max_tokens * (1 + params.top_logprobs)
    return Price(shared + request.lines * (line - shared), line, scored + drawn)


class Door:
    """Holds a request against the settings, the tenant's bounds and what waits already."""

    def __init__(self, settings: AdmissionSettings, num_blocks: int, block_size: int) -> None:
        self._settings = settings
        self._num_blocks = num_blocks
        self._block_size = block_size

    def check(self, request: Request, tenant: Tenant, waiting: WaitingRoom | None) -> None:
        """Raises RequestError for what can never be served, Overloaded for what cannot be queued now.

        ``waiting`` None: it was let in before, and does not queue again.
        """
        cost = price(request, self._block_size)
        most = self._num_blocks if tenant.max_blocks is None else min(self._num_blocks, tenant.max_blocks)
        if cost.line > most:
            raise RequestError(
                f"with {len(request.prompt)} prompt and up to {request.max_tokens} new tokens needs {cost.line} blocks "
                f"of the cache; at most {most} may be used",
                "Ask for fewer tokens, or shorten the prompt.",
                param="max_tokens",
            )
        bounds = self._settings
        if bounds.max_blocks is not None and cost.blocks > bounds.max_blocks:
            raise RequestError(
                f"is {request.lines}, which needs {cost.blocks} blocks of the cache at full length; "
                f"one request may have {bounds.max_blocks}",
                "Ask for fewer sequences, fewer tokens, or send several requests.",
                param="n" if request.search is None else "width" if request.search.beam is not None else "at_once",
            )
        if bounds.max_logprobs is not None and cost.logprobs > bounds.max_logprobs:
            raise RequestError(
                f"and prompt_logprobs ask for up to {cost.logprobs} numbers; one request may have "
                f"{bounds.max_logprobs}",
                "Ask for fewer tokens, sequences or likely tokens beside each.",
                param="logprobs",
            )
        if waiting is not None:
            self._check_queue(request, tenant, waiting)

    def _check_queue(self, request: Request, tenant: Tenant, waiting: WaitingRoom) -> None:
        name, tokens = request.terms.tenant, len(request.prompt)
        own, own_tokens = waiting.num_new.get(name, 0), waiting.new_tokens.get(name, 0)
        for bound, has, adds, what, is_own in (
            (tenant.max_waiting, own, 1, "requests", True),
            (tenant.max_waiting_tokens, own_tokens, tokens, "prompt tokens", True),
            (self._settings.max_waiting, waiting.total_new, 1, "requests", False),
            (self._settings.max_waiting_tokens, waiting.total_new_tokens, tokens, "prompt tokens", False),
        ):
            if bound is not None and has and has + adds > bound:  # what comes to an empty queue may be larger
                whose = "your queue" if is_own else "the queue"
                raise Overloaded(
                    f"{whose} holds {has} {what}; {adds} more would be above its bound of {bound}",
                    "Try again when some of them have begun.",
                    is_own=is_own,
                )


def check_so_far(request: Request, lines: Mapping[int, Sequence[int]]) -> None:
    """Raises RequestError unless these can be unfinished sequences of a request, by index."""
    most = request.params.num_drawn
    for index, tokens in lines.items():
        if not 0 <= index < most or len(tokens) >= request.max_tokens:
            raise RequestError(
                f"has {len(tokens)} tokens for sequence {index}; there are {most} sequences of up to "
                f"{request.max_tokens}, and a finished one does not go on",
                param="so_far",
            )
        if not all(0 <= token < request.limits.vocab_size for token in tokens):
            raise RequestError(f"has a token outside 0 to {request.limits.vocab_size - 1}", param="so_far")
