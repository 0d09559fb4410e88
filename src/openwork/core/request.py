"""Request: what a caller asks of the engine. Frozen, validated once, the only thing an engine accepts.

Every limit is enforced here, in a constructor, so that no route can skip a check. Text is unknown at this floor: a
prompt is token ids, and stop strings are carried for the edge that knows text. A request has no clock and no identity;
the engine numbers it when it is submitted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from openwork.core.bounds import check_flag, check_real, check_whole
from openwork.core.constraint import Constraint
from openwork.core.errors import PromptTooLong, RequestError
from openwork.core.repetition import Repetition
from openwork.core.search import Search
from openwork.core.terms import Terms

MAX_N = 128
MAX_LOGPROBS = 20
MAX_STOP_STRINGS = 16
MAX_STOP_BYTES = 1024
MAX_STOP_IDS = 128
MAX_BIASES = 1024
MAX_SEED = 2**64 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingParams:
    """How tokens are chosen and when to stop.

    temperature          0 is greedy; else logits are divided by it. [0, 100]
    top_k                keep the k most likely tokens; 0 keeps all
    top_p                keep the smallest set of most likely tokens with at least this mass. (0, 1]
    min_p                keep tokens at least this fraction as likely as the likeliest. [0, 1]
    presence_penalty     subtracted once from tokens already generated. [-2, 2]
    frequency_penalty    subtracted once per time generated. [-2, 2]
    repetition_penalty   divides positive, multiplies negative logits of tokens in prompt or output. (0, 100]
    logit_bias           added to the logits of given ids. [-100, 100] each
    seed                 64 bits; the same request and seed give the same tokens, alone or in any batch
    n                    how many sequences to generate
    best_of              draw this many, and give the n whose tokens have the highest mean log-probability; None: n
    max_tokens           None: until the end of the context window
    min_tokens           no end token, stop id or stop string ends the text before this many
    stop, stop_token_ids text or tokens that end the generation; the stop string itself is not part of the text
    ignore_eos           the model's end tokens do not end the text
    repetition_detection end a text that has run into a loop, from min_tokens on; None: let it
    logprobs             log-probabilities of the chosen and of this many most likely tokens; None: none
    prompt_logprobs      the same for every prompt token after the first
    skip_special_tokens  leave special tokens out of the text
    constraint           what the text must be (docs/constraints.md); None: anything

    Order of work on a row of logits: bias, repetition, presence and frequency penalties, minimum length, constraint,
    temperature, min_p, top_k, top_p, draw. Log-probabilities are of the model's own distribution, before any of these.

    Raises RequestError, naming the parameter.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    seed: int = 0
    n: int = 1
    best_of: int | None = None
    max_tokens: int | None = None
    min_tokens: int = 0
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    ignore_eos: bool = False
    repetition_detection: Repetition | None = None
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    skip_special_tokens: bool = True
    constraint: Constraint | None = None

    def __post_init__(self) -> None:
        check_real("temperature", self.temperature, 0, 100)
        check_whole("top_k", self.top_k, 0, 2**31 - 1)
        check_real("top_p", self.top_p, 0, 1, open_low=True)
        check_real("min_p", self.min_p, 0, 1)
        check_real("presence_penalty", self.presence_penalty, -2, 2)
        check_real("frequency_penalty", self.frequency_penalty, -2, 2)
        check_real("repetition_penalty", self.repetition_penalty, 0, 100, open_low=True)
        check_whole("seed", self.seed, 0, MAX_SEED)
        check_whole("n", self.n, 1, MAX_N)
        if self.best_of is not None:
            check_whole("best_of", self.best_of, self.n, MAX_N)
        if self.max_tokens is not None:
            check_whole("max_tokens", self.max_tokens, 0, 2**31 - 1)
        check_whole("min_tokens", self.min_tokens, 0, 2**31 - 1)
        if self.max_tokens is not None and self.min_tokens > self.max_tokens:
            raise RequestError(f"is {self.min_tokens}, above max_tokens {self.max_tokens}", param="min_tokens")
        for name in ("logprobs", "prompt_logprobs"):
            if getattr(self, name) is not None:
                check_whole(name, getattr(self, name), 0, MAX_LOGPROBS)
        for name in ("ignore_eos", "skip_special_tokens"):
            check_flag(name, getattr(self, name))
        for name, kind in (("constraint", Constraint), ("repetition_detection", Repetition)):
            value = getattr(self, name)
            if value is not None and not isinstance(value, kind):
                raise RequestError(f"must be a {kind.__name__}, not {type(value).__name__}", param=name)
        object.__setattr__(self, "stop", _stop_strings(self.stop))
        object.__setattr__(self, "stop_token_ids", _stop_ids(self.stop_token_ids))
        object.__setattr__(self, "logit_bias", _biases(self.logit_bias))

    @property
    def is_greedy(self) -> bool:
        return self.temperature == 0

    @property
    def num_drawn(self) -> int:
        """Sequences that are computed."""
        return self.n if self.best_of is None else self.best_of

    @property
    def top_logprobs(self) -> int | None:
        """Likely tokens to give beside each that is chosen, with their log-probabilities; None: not even its own."""
        return 0 if self.logprobs is None and self.best_of is not None else self.logprobs

    @property
    def has_penalties(self) -> bool:
        """Whether choosing a token needs the tokens before it."""
        return self.presence_penalty != 0 or self.frequency_penalty != 0 or self.repetition_penalty != 1


@dataclass(frozen=True, slots=True)
class Limits:
    """What the loaded model and the memory allow a request to be."""

    vocab_size: int
    context: int  # longest sequence, prompt and output together
    eos_ids: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Request:
    """A prompt, how to continue it, the limits it was checked against, and the terms on which it is served.

    ``search`` finds the best of whole answers, where None draws token after token; params say the lengths, the ends and
    how many of the best are wanted.

    Raises RequestError for ids out of range or an empty prompt, PromptTooLong when nothing could be generated.
    """

    prompt: tuple[int, ...]
    params: SamplingParams
    limits: Limits
    terms: Terms = field(default_factory=Terms)
    search: Search | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "prompt", tuple(self.prompt))
        vocab, context = self.limits.vocab_size, self.limits.context
        if not self.prompt:
            raise RequestError("is empty", "Give at least one token.", param="prompt")
        for place, token in enumerate(self.prompt):
            if isinstance(token, bool) or not isinstance(token, int) or not 0 <= token < vocab:
                raise RequestError(f"token {place} is {token!r}; ids are 0 to {vocab - 1}", param="prompt")
        needed = len(self.prompt) + (0 if self.params.max_tokens == 0 else 1)
        if needed > context:
            raise PromptTooLong(
                f"has {len(self.prompt)} tokens, but the context window is {context} and one is needed for the answer",
                "Shorten the prompt, or give the cache more memory if the model allows a longer window.",
                param="prompt",
            )
        for name, ids in (("logit_bias", self.params.logit_bias), ("stop_token_ids", self.params.stop_token_ids)):
            for token in ids:
                if token >= vocab:
                    raise RequestError(f"names token {token}; ids are 0 to {vocab - 1}", param=name)
        if self.params.constraint is not None:
            self._check_constraint()
        if self.search is not None:
            self._check_search(self.search)

    def _check_constraint(self) -> None:
        if not self.limits.eos_ids:
            raise RequestError(
                "this model names no end token, so a constrained text could not end",
                "Add eos_token_id to its generation_config.json.",
                param="constraint",
            )

    def _check_search(self, search: Search) -> None:
        search.check(self.params, self.limits.vocab_size, bool(self.stop_ids))
        room = self.limits.context - len(self.prompt)
        if search.choose is not None and search.choose.depth > room:
            raise RequestError(
                f"need up to {search.choose.depth} tokens; behind this prompt the context window has {room}",
                "Shorten the prompt, or the longest option.",
                param="options",
            )
        if search.best_first is not None and self.params.min_tokens > room:
            raise RequestError(
                f"is {self.params.min_tokens}; behind this prompt the context window has {room}", param="min_tokens"
            )

    @property
    def max_tokens(self) -> int:
        """Tokens to generate at most: what was asked for, within the window."""
        room = self.limits.context - len(self.prompt)
        if self.search is not None and self.search.choose is not None:
            return self.search.choose.depth
        return room if self.params.max_tokens is None else min(self.params.max_tokens, room)

    @property
    def lines(self) -> int:
        """Sequences that are computed at the same time."""
        return self.params.num_drawn if self.search is None else self.search.lines

    @property
    def end_ids(self) -> frozenset[int]:
        """Every token that may end a line: under a constraint the model's own too, where the text is complete."""
        return self.stop_ids if self.params.constraint is None else self.stop_ids | self.limits.eos_ids

    @property
    def stop_ids(self) -> frozenset[int]:
        """Every token that ends the text: the caller's, and the model's unless they are ignored."""
        own = frozenset(self.params.stop_token_ids)
        return own if self.params.ignore_eos else own | self.limits.eos_ids


def _stop_strings(value: Any) -> tuple[str, ...]:
    strings = (value,) if isinstance(value, str) else value if isinstance(value, Sequence) else None
    if strings is None or len(strings) > MAX_STOP_STRINGS:
        raise RequestError(f"must be a string or at most {MAX_STOP_STRINGS} of them", param="stop")
    for text in strings:
        if not isinstance(text, str) or not text:
            raise RequestError(f"strings must not be empty, and be text; got {text!r}", param="stop")
        try:
            size = len(text.encode())
        except UnicodeEncodeError:
            raise RequestError("holds a lone surrogate, which is not valid Unicode text", param="stop") from None
        if size > MAX_STOP_BYTES:
            raise RequestError(f"strings may have {MAX_STOP_BYTES} bytes, one has {size}", param="stop")
    return tuple(strings)


def _stop_ids(value: Any) -> tuple[int, ...]:
    if isinstance(value, str) or not isinstance(value, Sequence) or len(value) > MAX_STOP_IDS:
        raise RequestError(f"must be a list of at most {MAX_STOP_IDS} token ids", param="stop_token_ids")
    for token in value:
        check_whole("stop_token_ids", token, 0, 2**31 - 1)
    return tuple(value)


def _biases(value: Any) -> dict[int, float]:
    if not isinstance(value, Mapping) or len(value) > MAX_BIASES:
        raise RequestError(f"must map at most {MAX_BIASES} token ids to numbers", param="logit_bias")
    for token, bias in value.items():
        check_whole("logit_bias", token, 0, 2**31 - 1)
        check_real("logit_bias", bias, -100, 100)
    return dict(value)
