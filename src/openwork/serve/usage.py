"""Usage and timing of a generation that is over, from the engine's own account.

What would tell on others is left out: whose need evicted what was cached, and when, and whether it is cached under
another namespace.
"""

from __future__ import annotations

from openwork.core.event import Ended
from openwork.serve.generation import Generation, Part
from openwork.serve.schema.usage import CompletionDetails, PromptDetails, Timing, Usage


def usage_of(generation: Generation, reasoning_tokens: int = 0) -> Usage:
    prompt = sum(len(part.request.prompt) for part in generation.parts)
    cached = sum(part.ended.account.cached for part in generation.parts if part.ended is not None)
    guessed = [part.ended.account.guessed for part in generation.parts if part.ended is not None]
    right = sum(each.accepted for each in guessed)
    new = sum(_num_new(part) for part in generation.parts)
    return Usage(
        prompt_tokens=prompt,
        completion_tokens=new,
        total_tokens=prompt + new,
        prompt_tokens_details=PromptDetails(cached_tokens=cached),
        completion_tokens_details=CompletionDetails(
            reasoning_tokens=reasoning_tokens,
            accepted_prediction_tokens=right,
            rejected_prediction_tokens=sum(each.drafted for each in guessed) - right,
        ),
    )


def _num_new(part: Part) -> int:
    """Tokens of the answer; where the best of many were wanted, of all that were drawn."""
    if part.request.params.best_of is not None:
        return part.num_generated
    return sum(len(each.token_ids) for each in part.output.completions)


def timings_of(generation: Generation) -> list[Timing]:
    """One for each prompt."""
    return [_timing(part, part.ended) for part in generation.parts if part.ended is not None]


def _timing(part: Part, ended: Ended) -> Timing:
    account, times = ended.account, part.output.timings
    return Timing(
        queued_s=account.queued_s,
        prefill_s=times.prefill_s,
        decode_s=times.decode_s,
        cached_tokens=account.cached,
        computed_tokens=account.rows,
        prefill_chunks=account.chunks,
        preemptions=account.preemptions,
        stalls=dict(account.stalls),
        drafted_tokens=account.guessed.drafted,
        accepted_tokens=account.guessed.accepted,
        verify_steps=account.guessed.verify_steps,
        cache_miss=_told_cause(account.miss.cause) if account.miss is not None else None,
    )


def _told_cause(cause: str) -> str:
    return "cold" if cause == "namespace" else cause
