"""POST /v1/completions: prompts as texts or token ids, continued; or, with echo and no new tokens, only scored.

Choices are numbered over prompts x n. Of ``best_of`` sequences those with the highest mean log-probability of a token
are given, by the model's own distribution, before temperature and penalties.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import msgspec

from openwork.core.errors import RequestError
from openwork.core.output import Chunk, Completion
from openwork.core.search import Search
from openwork.engine.face import Facts
from openwork.serve import sse
from openwork.serve.answering import Plan
from openwork.serve.bounds import Bounds
from openwork.serve.callers import Caller
from openwork.serve.certificate import certificate_of
from openwork.serve.constraints import Wanted, read_constraint, refused_at
from openwork.serve.decoding import NAMES, Sought, check_lines, seek
from openwork.serve.errors import bad_request
from openwork.serve.generation import Generation, Part
from openwork.serve.logprobs import LegacyLines, prompt_logprobs
from openwork.serve.sampling import check_common, check_fan_out, request_of, sampling_params, terms_of
from openwork.serve.schema.completion import Completion as Answer
from openwork.serve.schema.completion import CompletionBody, CompletionChoice, LegacyLogprobs
from openwork.serve.schema.decoding import BestFirstBody, Certificate, ChooseBody
from openwork.serve.stamp import Mould, Stamp
from openwork.serve.texts import Texts, need_tokenizer
from openwork.serve.usage import timings_of, usage_of
from openwork.text.tokenizer import Tokenizer

DEFAULT_MAX_TOKENS = 16


async def plan_completion(body: CompletionBody, texts: Texts, facts: Facts, caller: Caller, bounds: Bounds) -> Plan:
    """Raises ApiError 400, naming the field."""
    prompts = _prompts(body)
    n = body.n or 1
    num_drawn = n if body.best_of is None else body.best_of
    check_common(body, bounds)
    check_fan_out(len(prompts), n, bounds)
    check_fan_out(len(prompts), num_drawn, bounds, "best_of")
    _check_together(body, n, num_drawn)
    ids = await _encoded(prompts, texts, facts, isinstance(body.prompt, str))
    tokenizer = (await texts.language()).tokenizer
    scored = [body.prompt_logprobs, body.logprobs if body.echo else None]
    wanted = await _tried(body, texts)
    params = sampling_params(
        body,
        facts,
        bounds,
        n=n,
        max_tokens=_max_tokens(body),
        logprobs=body.logprobs,
        prompt_logprobs=max((each for each in scored if each is not None), default=None),
    )
    if params.stop and tokenizer is None:
        raise bad_request("stop is text, but this model has no tokeniser. Give stop_token_ids.", "stop")
    names = {**NAMES, "constraint": "constraint" if wanted is None else wanted.param}
    drawn = num_drawn if num_drawn > n else None
    params = replace(params, constraint=None if wanted is None else wanted.constraint, best_of=drawn)
    terms = terms_of(body, caller)
    sought = await _sought(body, prompts, ids, texts, bounds)
    lines: list[tuple[Sequence[int], Search | None]] = [(each.prompt_ids, each.search) for each in sought]
    requests = [
        request_of(each, params, facts.limits, terms, _param(body, place), body.max_tokens, names, search)
        for place, (each, search) in enumerate(lines or [(each, None) for each in ids])
    ]
    shown = [_shown(each, known, tokenizer, body) for each, known in zip(prompts, ids, strict=True)]
    stamp = Stamp.new("cmpl-", "text_completion", facts)
    voice = CompletionVoice(body, stamp, tokenizer, shown, facts)
    return Plan(requests, tokenizer, voice, bool(body.stream), sought=sought, name=stamp.id)


class CompletionVoice:
    def __init__(
        self, body: CompletionBody, stamp: Stamp, tokenizer: Tokenizer | None, shown: Sequence[str], facts: Facts
    ) -> None:
        self._body = body
        self._stamp = stamp
        self._tokenizer = tokenizer
        self._shown = shown  # of each prompt, the text that is echoed
        self._n = body.n or 1
        self._eos_ids = facts.limits.eos_ids - set(body.stop_token_ids or ())
        self._has_usage = body.stream_options is not None and bool(body.stream_options.include_usage)
        self._lines: dict[int, LegacyLines] = {}
        self._is_plain = body.logprobs is None and not body.return_token_ids
        self._mould = Mould(stamp, b'"text":', b',"logprobs":null,"finish_reason":null', self._has_usage)

    def begin(self, generation: Generation) -> bytes:
        if not self._body.echo:
            return b""
        places = enumerate(self._shown)
        return b"".join(self._mould.cast(place * self._n + i, text) for place, text in places for i in range(self._n))

    def close(self) -> None:
        pass

    def hear(self, part: Part, chunk: Chunk) -> None:
        pass

    def progress(self, part: Part, computed: int, known: int) -> bytes:
        return sse.progress(computed, known)

    def chunk(self, part: Part, chunk: Chunk) -> bytes:
        index = part.place * self._n + chunk.index
        if self._is_plain and chunk.finish_reason is None:
            return self._mould.cast(index, chunk.text) if chunk.text else b""
        logprobs: LegacyLogprobs | None = None
        if self._body.logprobs is not None and chunk.logprobs is not None:
            line = self._lines.setdefault(index, self._lines.get(index) or self._line())
            logprobs = line.take(chunk.token_ids, chunk.logprobs)
        choice = CompletionChoice(
            index=index,
            text=chunk.text,
            logprobs=logprobs,
            finish_reason=chunk.finish_reason,
            stop_reason=self._stop_reason(chunk),
            token_ids=list(chunk.token_ids) if self._body.return_token_ids else msgspec.UNSET,
        )
        usage = None if self._has_usage else msgspec.UNSET
        return sse.event(Answer(choices=[choice], usage=usage, **self._stamp.fields()))

    def end(self, generation: Generation) -> bytes:
        if not self._has_usage and not self._body.timings and self._body.decoding is None:
            return sse.DONE
        timings = timings_of(generation) if self._body.timings else msgspec.UNSET
        search = self._search(generation)
        last = Answer(choices=[], usage=usage_of(generation), timings=timings, search=search, **self._stamp.fields())
        return sse.event(last) + sse.DONE

    def whole(self, generation: Generation) -> Answer:
        return Answer(
            choices=[choice for part in generation.parts for choice in self._choices(part)],
            usage=usage_of(generation),
            timings=timings_of(generation) if self._body.timings else msgspec.UNSET,
            search=self._search(generation),
            **self._stamp.fields(),
        )

    def _search(self, generation: Generation) -> list[Certificate] | msgspec.UnsetType:
        """What is certain of what was found behind each prompt."""
        found = [certificate_of(part, self._tokenizer) for part in generation.parts]
        return [each for each in found if each is not None] or msgspec.UNSET

    def _choices(self, part: Part) -> list[CompletionChoice]:
        first = part.place * self._n
        return [self._choice(part, each, first + place) for place, each in enumerate(part.output.completions)]

    def _choice(self, part: Part, each: Completion, index: int) -> CompletionChoice:
        body, echoed = self._body, self._shown[part.place] if self._body.echo else ""
        with_ids = bool(body.return_token_ids)
        asked = part.output.prompt_logprobs
        return CompletionChoice(
            index=index,
            text=echoed + each.text,
            logprobs=None if body.logprobs is None else self._logprobs(part, each),
            finish_reason=each.finish_reason,
            stop_reason=self._stop_reason(each),
            prompt_logprobs=msgspec.UNSET
            if body.prompt_logprobs is None or asked is None
            else prompt_logprobs(self._tokenizer, asked, body.prompt_logprobs),
            prompt_token_ids=list(part.request.prompt) if with_ids else msgspec.UNSET,
            token_ids=list(each.token_ids) if with_ids else msgspec.UNSET,
        )

    def _logprobs(self, part: Part, each: Completion) -> LegacyLogprobs:
        line = self._line()
        if not self._body.echo:
            return line.take(each.token_ids, each.logprobs or ())
        tokens = (*part.request.prompt, *each.token_ids)
        return line.take(tokens, (*(part.output.prompt_logprobs or ()), *(each.logprobs or ())))

    def _line(self) -> LegacyLines:
        top = self._body.logprobs or 0
        skip_special = self._body.skip_special_tokens is not False
        return LegacyLines(self._tokenizer, top, skip_special, continues=not self._body.echo)

    def _stop_reason(self, said: Chunk | Completion) -> str | int | None:
        return None if said.stop_reason in self._eos_ids else said.stop_reason


async def _tried(body: CompletionBody, texts: Texts) -> Wanted | None:
    """What the text must be, if that can be. Raises ApiError 400."""
    wanted = read_constraint(body)
    if wanted is not None:
        need_tokenizer(await texts.language(), wanted.param)
        try:
            await texts.try_out(wanted.constraint)
        except RequestError as error:
            raise refused_at(error, wanted.param) from None
    return wanted


async def _sought(
    body: CompletionBody,
    prompts: Sequence[str | list[int]],
    ids: Sequence[Sequence[int]],
    texts: Texts,
    bounds: Bounds,
) -> Sequence[Sought]:
    """What is looked for behind each prompt, if anything is. Raises ApiError 400."""
    if body.decoding is None:
        return ()
    if body.best_of is not None:
        raise bad_request("best_of draws, and decoding searches: give one of them.", "best_of")
    words = [each if isinstance(each, str) else None for each in prompts]
    sought = await seek(body.decoding, words, ids, texts, bounds)
    check_lines(sought, bounds)
    return sought


def _max_tokens(body: CompletionBody) -> int | None:
    """A choice and a best-first search have no use for OpenAI's default."""
    if body.max_tokens is not None or isinstance(body.decoding, BestFirstBody | ChooseBody):
        return body.max_tokens
    return DEFAULT_MAX_TOKENS


def _prompts(body: CompletionBody) -> list[str | list[int]]:
    """Each prompt as a text or a list of ids. Raises ApiError 400 for what is mixed or empty."""
    given = body.prompt
    if isinstance(given, str):
        return [given]
    if not given:
        raise bad_request("prompt is empty; give at least one token.", "prompt")
    kinds = {type(each) for each in given}
    if len(kinds) > 1:
        other = next(place for place, each in enumerate(given) if type(each) is not type(given[0]))
        raise bad_request(
            f"prompt[{other}] is of another kind than prompt[0]; give texts, or lists of token ids, or one list.",
            f"prompt[{other}]",
        )
    if isinstance(given[0], int):
        return [[each for each in given if isinstance(each, int)]]
    return [each for each in given if not isinstance(each, int)]


def _param(body: CompletionBody, place: int) -> str:
    is_one = isinstance(body.prompt, str) or isinstance(body.prompt[0], int)
    return "prompt" if is_one else f"prompt[{place}]"


def _check_together(body: CompletionBody, n: int, num_drawn: int) -> None:
    """Fields that do not go together."""
    if num_drawn < n:
        raise bad_request(f"best_of is {num_drawn}, below n, which is {n}.", "best_of")
    if body.stream and num_drawn > n:
        raise bad_request("best_of cannot be streamed: which are best is known at the end.", "best_of")
    if body.stream and body.echo and body.logprobs is not None:
        raise bad_request("echo with logprobs is not streamed.", "logprobs")
    if body.max_tokens == 0 and not body.echo:
        raise bad_request("max_tokens may be 0 only with echo.", "max_tokens")


async def _encoded(prompts: Sequence[str | list[int]], texts: Texts, facts: Facts, is_one: bool) -> list[list[int]]:
    strings = [each for each in prompts if isinstance(each, str)]
    vocab_size = facts.limits.vocab_size
    if strings:
        params = ["prompt" if is_one else f"prompt[{place}]" for place in range(len(strings))]
        ids = await texts.encode(strings, params)
    else:
        ids = [each for each in prompts if isinstance(each, list)]
    for place, each in enumerate(ids):
        path = f"prompt[{place}]" if len(prompts) > 1 or (strings and not is_one) else "prompt"
        if not each:
            raise bad_request(f"{path} has no tokens; give at least one.", path)
        if not strings and max(each) >= vocab_size:
            wrong = next(i for i, token in enumerate(each) if token >= vocab_size)
            raise bad_request(f"{path}[{wrong}] is {each[wrong]}; ids are 0 to {vocab_size - 1}.", f"{path}[{wrong}]")
    return ids


def _shown(given: str | list[int], ids: Sequence[int], tokenizer: Tokenizer | None, body: CompletionBody) -> str:
    if not body.echo or isinstance(given, str):
        return given if isinstance(given, str) else ""
    return "" if tokenizer is None else tokenizer.decode(ids, body.skip_special_tokens is not False)
