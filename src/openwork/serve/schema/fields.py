"""The fields that every way of generating has in common, their ranges, and what becomes of them.

Ranges are part of a field's meaning and stand here; how many of something there may be is the operator's and stands in
Bounds. A field that is left out, or null, is as the checkpoint recommends.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from openwork.serve.schema.decoding import Decoding
from openwork.serve.schema.format import ResponseFormat, Schema, StructuredOutputs
from openwork.serve.schema.reading import Body

MAX_ID = 2**31 - 1
Id = Annotated[int, Meta(ge=0, le=MAX_ID)]
Count = Annotated[int, Meta(ge=0, le=MAX_ID)]
Positive = Annotated[int, Meta(ge=1, le=MAX_ID)]
Temperature = Annotated[float, Meta(ge=0, le=2, description="0 is greedy")]
Fraction = Annotated[float, Meta(gt=0, le=1)]
Penalty = Annotated[float, Meta(ge=-2, le=2)]
Bias = Annotated[float, Meta(ge=-100, le=100)]
Run = Annotated[int, Meta(ge=1, le=1024)]
Label = Annotated[str, Meta(max_length=512)]
Name = Annotated[str, Meta(pattern=r"\A[A-Za-z0-9_-]{1,64}\Z")]
Salt = Annotated[str, Meta(pattern=r"\A[A-Za-z0-9._~+/=-]{1,128}\Z")]
Seed = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
Metadata = Annotated[
    dict[Annotated[str, Meta(max_length=64)], Annotated[str, Meta(max_length=512)]], Meta(max_length=16)
]
ServiceTier = Literal["auto", "default"]


class RepetitionBody(Body, frozen=True, kw_only=True):
    """A text ends when it ends with one run of tokens ``min_count`` times in a row."""

    max_pattern_size: Run
    min_pattern_size: Run | None = None
    min_count: Annotated[int, Meta(ge=2, le=1024)] | None = None


class Sampling(Body, frozen=True, kw_only=True):
    """How tokens are chosen, and when to stop: OpenAI's fields first, then those that engines share."""

    temperature: Temperature | None = None
    top_p: Fraction | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    logit_bias: dict[str, Bias] | None = None
    seed: Seed | None = None
    stop: str | list[str] | None = None

    top_k: Annotated[int, Meta(ge=-1, le=2**63 - 1, description="-1 and 0 keep all")] | None = None
    min_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    repetition_penalty: Annotated[float, Meta(ge=0.01, le=100)] | None = None
    stop_token_ids: list[Id] | None = None
    ignore_eos: bool | None = None
    min_tokens: Count | None = None
    skip_special_tokens: bool | None = None
    repetition_detection: RepetitionBody | None = None


class StreamOptions(Body, frozen=True, kw_only=True):
    include_usage: bool | None = None
    include_obfuscation: Literal[False] | None = None


class Asked(Sampling, frozen=True, kw_only=True):
    """Who is to answer, and on what terms."""

    model: Annotated[str, Meta(min_length=1, max_length=4096)]
    stream: bool | None = None
    timings: Annotated[bool, Meta(description="also say where the time went")] | None = None
    cache_salt: Salt | None = None
    priority: Annotated[int, Meta(ge=-1000, le=1000)] | None = None

    # These change nothing here, and are accepted because clients send them unasked.
    user: Label | None = None
    metadata: Metadata | None = None
    service_tier: ServiceTier | None = None


class Generating(Asked, frozen=True, kw_only=True):
    """What completions and chat have in common."""

    n: Positive | None = None
    stream_options: StreamOptions | None = None
    prompt_logprobs: Count | None = None
    return_token_ids: bool | None = None

    # What the text has to be; at most one of them constrains.
    response_format: ResponseFormat | None = None
    structured_outputs: StructuredOutputs | None = None
    guided_json: Schema | str | None = None
    guided_regex: str | None = None
    guided_choice: list[str] | None = None
    guided_grammar: str | None = None

    decoding: Annotated[Decoding, Meta(description="look for a whole answer: docs/search.md")] | None = None
