"""Bounds: how large one request may be, and how long it may take. Reported as they are at /v1/limits.

They are checked before the engine is asked. What the model and its cache allow besides (context, vocabulary) is in the
engine's Facts, and ranges that belong to a field's meaning, such as temperature, stand beside the field in ``schema``.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

from openwork.core.errors import OpenworkError


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """Raises OpenworkError unless every bound is above 0."""

    json_depth: int = 64
    messages: int = 2048
    content_parts: int = 1024  # of one message
    prompts: int = 64
    n: int = 16
    sequences: int = 64  # prompts x n, best_of counted as n
    stop_strings: int = 16
    stop_bytes: int = 256
    stop_token_ids: int = 128
    logprobs: int = 20
    logit_bias: int = 1024
    tools: int = 128
    options: int = 10_000  # of a choice
    search_nodes: int = 100_000  # places that one search may look at
    tree: int = 10_000  # places of its tree that an answer shows
    label_bytes: int = 128  # user, cache_salt and other names that only label
    queued_texts: int = 512  # texts that wait to be tokenised
    stored_responses: int = 1024
    stored_bytes: int = 64 << 20
    request_s: float = 600.0
    keep_alive_s: float = 15.0  # a stream with nothing to say sends a comment this often

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < float("inf"):
                raise OpenworkError(f"the bound {each.name} is {value!r}", "It must be a number above 0.")
