"""From the fields of a body to SamplingParams, and from token ids to a Request: every refusal names the field.

What a client leaves out is as the checkpoint recommends. Without a seed one is drawn, so that two answers differ; the
engine itself draws nothing.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import TypeVar

import msgspec

from openwork.core.errors import RequestError
from openwork.core.repetition import Repetition
from openwork.core.request import Limits, Request, SamplingParams
from openwork.core.search import Search
from openwork.core.terms import Terms
from openwork.engine.face import Facts
from openwork.serve.bounds import Bounds
from openwork.serve.callers import Caller
from openwork.serve.errors import ApiError, bad_request, from_exception
from openwork.serve.schema.fields import Asked, Generating, RepetitionBody, Sampling

COLDEST = 1e-5  # below it the difference of two logits no longer fits a float: it is greedy
_ID = re.compile(r"[0-9]{1,10}")
Value = TypeVar("Value")


def sampling_params(
    body: Sampling,
    facts: Facts,
    bounds: Bounds,
    *,
    n: int,
    max_tokens: int | None,
    logprobs: int | None,
    prompt_logprobs: int | None,
) -> SamplingParams:
    """What is left out is as the checkpoint recommends; for a search, which bends nothing, plain.

    Raises ApiError 400, naming the field.
    """
    is_search = body.decoding is not None if isinstance(body, Generating) else False
    defaults, vocab_size = SamplingParams() if is_search else facts.defaults, facts.limits.vocab_size

    def given(name: str) -> float:
        value = getattr(body, name)
        recommended: float = getattr(defaults, name)
        return recommended if value is None else value

    for name, wanted in (("logprobs", logprobs), ("prompt_logprobs", prompt_logprobs)):
        if wanted is not None and wanted > bounds.logprobs:
            raise bad_request(f"{name} is {wanted}; at most {bounds.logprobs} are given.", name)
    temperature = given("temperature")
    top_k = defaults.top_k if body.top_k is None else max(body.top_k, 0)
    return _ours(
        lambda: SamplingParams(
            temperature=temperature if temperature >= COLDEST else 0.0,
            top_k=min(top_k, vocab_size),
            top_p=given("top_p"),
            min_p=given("min_p"),
            presence_penalty=given("presence_penalty"),
            frequency_penalty=given("frequency_penalty"),
            repetition_penalty=given("repetition_penalty"),
            logit_bias=_biases(body, vocab_size, bounds),
            seed=(0 if is_search else secrets.randbits(63)) if body.seed is None else body.seed % 2**64,
            n=n,
            max_tokens=max_tokens,
            min_tokens=body.min_tokens or 0,
            stop=_stops(body.stop, bounds),
            stop_token_ids=_stop_ids(body, vocab_size, bounds),
            ignore_eos=bool(body.ignore_eos),
            logprobs=logprobs,
            prompt_logprobs=prompt_logprobs,
            skip_special_tokens=body.skip_special_tokens is not False,
            repetition_detection=_repetition(body.repetition_detection),
        )
    )


def terms_of(body: Asked, caller: Caller) -> Terms:
    """Raises ApiError 400 when a caller without the right to it says how urgent it is."""
    if body.priority is not None and not caller.may_prioritise:
        raise bad_request("priority may not be set with this key.", "priority", "unsupported_parameter")
    return _ours(lambda: caller.terms(cache_salt=body.cache_salt, priority=body.priority or 0))


def check_common(body: Generating, bounds: Bounds) -> None:
    """What holds for every body that generates. Raises ApiError 400."""
    if body.stream_options is not None and not body.stream:
        raise bad_request("stream_options needs stream.", "stream_options")
    if body.stream and body.prompt_logprobs is not None:
        raise bad_request("prompt_logprobs are not streamed.", "prompt_logprobs")
    check_label(body.user, "user", bounds)


def check_label(label: str | None, param: str, bounds: Bounds) -> None:
    if label is not None and len(label.encode()) > bounds.label_bytes:
        raise bad_request(f"{param} may have {bounds.label_bytes} bytes.", param)


def check_fan_out(num_prompts: int, n: int, bounds: Bounds, param: str = "n") -> None:
    """Raises ApiError 400 for more prompts or sequences than one call may have."""
    if n > bounds.n:
        raise bad_request(f"{param} is {n}; at most {bounds.n} are allowed.", param)
    if num_prompts > bounds.prompts:
        raise bad_request(f"prompt has {num_prompts} entries; at most {bounds.prompts} are allowed.", "prompt")
    if num_prompts * n > bounds.sequences:
        raise bad_request(
            f"{num_prompts} prompts with {n} sequences each are {num_prompts * n}; at most {bounds.sequences} are "
            "allowed. Send several requests.",
            param,
        )


def request_of(
    ids: Sequence[int],
    params: SamplingParams,
    limits: Limits,
    terms: Terms,
    param: str,
    wanted: int | None,
    names: Mapping[str, str] = MappingProxyType({}),
    search: Search | None = None,
) -> Request:
    """A request that fits the window. ``wanted`` is the number of new tokens that the client asked for itself.

    ``param`` is the field of the prompt, ``names`` are those of others that we call by another name.
    """
    num_new = wanted if wanted is not None else 1
    if len(ids) + num_new > limits.context:
        raise too_long(limits.context, f"you requested {len(ids) + num_new} tokens", param, len(ids), num_new)
    return _ours(lambda: Request(tuple(ids), params, limits, terms, search), {"prompt": param, **names})


def too_long(context: int, what: str, param: str, num_prompt: int | None = None, num_new: int = 0) -> ApiError:
    """The refusal of what cannot fit, in the words that client tools look for."""
    where = "messages" if param.startswith("messages") else "prompt" if param.startswith("prompt") else "input"
    counts = "" if num_prompt is None else f" ({num_prompt} in the {where}, {num_new} in the completion)"
    return bad_request(
        f"This model's maximum context length is {context} tokens. However, {what}{counts}. Please reduce the length "
        f"of the {where} or completion.",
        param,
        "context_length_exceeded",
    )


def _ours(make: Callable[[], Value], names: Mapping[str, str] = MappingProxyType({})) -> Value:
    try:
        return make()
    except RequestError as error:
        raise renamed(error, names) from None


def renamed(error: RequestError, names: Mapping[str, str]) -> ApiError:
    """What is wrong, told of the field as the client knows it."""
    told = from_exception(error)
    named = names.get(error.param)
    if named is not None:
        told.message, told.param = named + told.message.removeprefix(error.param), named
    return told


def _repetition(given: RepetitionBody | None) -> Repetition | None:
    if given is None:
        return None
    fields = {name: value for name, value in msgspec.structs.asdict(given).items() if value is not None}
    return Repetition(**fields)


def _stops(given: str | list[str] | None, bounds: Bounds) -> tuple[str, ...]:
    strings = [] if given is None else [given] if isinstance(given, str) else given
    if len(strings) > bounds.stop_strings:
        raise bad_request(f"stop has {len(strings)} strings; at most {bounds.stop_strings} are allowed.", "stop")
    for place, text in enumerate(strings):
        param = "stop" if isinstance(given, str) else f"stop[{place}]"
        if not text or len(text.encode()) > bounds.stop_bytes:
            raise bad_request(f"{param} must have 1 to {bounds.stop_bytes} bytes.", param)
    return tuple(strings)


def _stop_ids(body: Sampling, vocab_size: int, bounds: Bounds) -> tuple[int, ...]:
    ids = body.stop_token_ids or []
    if len(ids) > bounds.stop_token_ids:
        raise bad_request(f"stop_token_ids has {len(ids)}; at most {bounds.stop_token_ids}.", "stop_token_ids")
    for place, token in enumerate(ids):
        if token >= vocab_size:
            param = f"stop_token_ids[{place}]"
            raise bad_request(f"{param} is {token}; ids are 0 to {vocab_size - 1}.", param)
    return tuple(ids)


def _biases(body: Sampling, vocab_size: int, bounds: Bounds) -> dict[int, float]:
    given = body.logit_bias or {}
    if len(given) > bounds.logit_bias:
        raise bad_request(f"logit_bias has {len(given)} entries; at most {bounds.logit_bias}.", "logit_bias")
    biases: dict[int, float] = {}
    for key, bias in given.items():
        if not _ID.fullmatch(key) or int(key) >= vocab_size:
            raise bad_request(f"logit_bias: the keys must be token ids from 0 to {vocab_size - 1}.", "logit_bias")
        if int(key) in biases:
            raise bad_request(f"logit_bias: token {int(key)} is there twice.", "logit_bias")
        biases[int(key)] = bias
    return biases
