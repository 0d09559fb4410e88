"""What is told beside every answer: how many tokens it took, and, when asked, where the time went."""

from __future__ import annotations

import msgspec


class Said(msgspec.Struct, frozen=True, kw_only=True):
    """A record that is sent to a client."""


class PromptDetails(Said, frozen=True, kw_only=True):
    cached_tokens: int


class CompletionDetails(Said, frozen=True, kw_only=True):
    reasoning_tokens: int
    accepted_prediction_tokens: int = 0  # guessed ahead and right
    rejected_prediction_tokens: int = 0  # guessed ahead for nothing


class Usage(Said, frozen=True, kw_only=True):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptDetails
    completion_tokens_details: CompletionDetails


class Timing(Said, frozen=True, kw_only=True):
    """An extension: the time of one prompt's request, in seconds on the engine's clock.

    ``computed_tokens`` counts positions, those after a preemption again; ``stalls`` how long sequences were left out of
    steps, by cause (docs/scheduling.md); ``drafted_tokens`` were guessed, ``accepted_tokens`` of them right, in
    ``verify_steps`` (docs/speculation.md); ``cache_miss`` says why no more of the prompt was found in the prefix cache.
    """

    queued_s: float
    prefill_s: float
    decode_s: float
    cached_tokens: int
    computed_tokens: int
    prefill_chunks: int
    preemptions: int
    stalls: dict[str, float]
    drafted_tokens: int
    accepted_tokens: int
    verify_steps: int
    cache_miss: str | None


class ErrorFields(Said, frozen=True, kw_only=True):
    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(Said, frozen=True, kw_only=True):
    error: ErrorFields
