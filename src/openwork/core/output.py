"""What a caller gets back: completions with their tokens, probabilities and times. Frozen records, no behaviour."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

FinishReason = Literal["stop", "length", "cancelled", "error"]
# What failed when a sequence finished with "error": its own numbers were not finite; its constraint left no token to
# choose; the whole step; the request ended the engine's process again and again; the engine is closed and could not
# finish it.
Failure = Literal["", "numbers", "grammar", "step", "quarantined", "closed"]


@dataclass(frozen=True, slots=True)
class Logprob:
    """The log-probability of one token at one position, and of the most likely tokens there.

    Natural logarithms of the model's own distribution, before penalties, temperature and filters.
    """

    token: int
    logprob: float
    rank: int  # how many tokens are at least as likely, this one included: 1 is the likeliest
    top: tuple[tuple[int, float], ...] = ()  # (token, logprob), likeliest first


@dataclass(frozen=True, slots=True)
class Timings:
    """Seconds on the engine's clock, and tokens per second. Prefill ends with the first token."""

    queued_s: float
    prefill_s: float
    decode_s: float
    prefill_tok_s: float  # prompt tokens over prefill_s
    decode_tok_s: float  # tokens after the first over decode_s; 0 when there are none


@dataclass(frozen=True, slots=True)
class Completion:
    """One generated sequence. ``stop_reason`` is the stop string or token id that ended it, if one did."""

    index: int
    text: str
    token_ids: tuple[int, ...]
    finish_reason: FinishReason
    stop_reason: str | int | None = None
    logprobs: tuple[Logprob, ...] | None = None


@dataclass(frozen=True, slots=True)
class Output:
    """All that one request produced. The short names speak of the first completion."""

    prompt: str | None  # None when the prompt was token ids
    prompt_ids: tuple[int, ...]
    completions: tuple[Completion, ...]
    timings: Timings
    kv_blocks: int  # blocks of KV cache that the request held at its end, each counted once
    prompt_logprobs: tuple[Logprob | None, ...] | None = None  # the first is None: nothing comes before it
    cached: int = 0  # prompt tokens whose keys and values were in the prefix cache already

    @property
    def text(self) -> str:
        return self.completions[0].text

    @property
    def token_ids(self) -> Sequence[int]:
        return self.completions[0].token_ids

    @property
    def finish_reason(self) -> FinishReason:
        return self.completions[0].finish_reason

    @property
    def logprobs(self) -> tuple[Logprob, ...] | None:
        return self.completions[0].logprobs


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of a stream: new text and tokens of one sequence. The last chunk of all carries the whole Output."""

    index: int
    text: str
    token_ids: tuple[int, ...]
    logprobs: tuple[Logprob, ...] | None = None
    finish_reason: FinishReason | None = None  # set on the last chunk of a sequence
    stop_reason: str | int | None = None  # as the Completion's
    output: Output | None = None
