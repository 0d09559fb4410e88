"""POST /v1/completions: what is asked, and what is answered."""

from __future__ import annotations

from typing import Annotated, ClassVar

import msgspec
from msgspec import Meta

from openwork.serve.schema.decoding import Certificate
from openwork.serve.schema.fields import Count, Generating, Id, Positive
from openwork.serve.schema.format import UNSUPPORTED
from openwork.serve.schema.usage import Said, Timing, Usage

Prompt = str | list[str | Id | list[Id]]


class CompletionBody(Generating, frozen=True, kw_only=True):
    unsupported: ClassVar[dict[str, str]] = UNSUPPORTED | {"suffix": "Text is only continued at its end."}

    prompt: Prompt
    max_tokens: Annotated[Count, Meta(description="16 when left out; 0 only with echo")] | None = None
    best_of: Annotated[Positive, Meta(description="ranked by the mean log-probability of a token")] | None = None
    echo: bool | None = None
    logprobs: Count | None = None


class LegacyLogprobs(Said, frozen=True, kw_only=True):
    """Lists of equal length, one entry for each token. Offsets are characters of ``text``."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]


class PromptLogprob(Said, frozen=True, kw_only=True):
    logprob: float
    rank: int
    decoded_token: str


PromptLogprobs = list[dict[str, PromptLogprob] | None]  # by token id


class CompletionChoice(Said, frozen=True, kw_only=True):
    index: int
    text: str
    logprobs: LegacyLogprobs | None
    finish_reason: str | None
    stop_reason: str | int | None = None
    prompt_logprobs: PromptLogprobs | msgspec.UnsetType = msgspec.UNSET
    prompt_token_ids: list[int] | msgspec.UnsetType = msgspec.UNSET
    token_ids: list[int] | msgspec.UnsetType = msgspec.UNSET


class Completion(Said, frozen=True, kw_only=True):
    """A whole answer; in a stream, where ``usage`` is null until the last, one piece of it."""

    id: str
    object: str
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: Usage | msgspec.UnsetType | None = msgspec.UNSET
    timings: list[Timing] | msgspec.UnsetType = msgspec.UNSET
    search: list[Certificate] | msgspec.UnsetType = msgspec.UNSET  # of each prompt, where decoding was given
    system_fingerprint: str | msgspec.UnsetType = msgspec.UNSET
