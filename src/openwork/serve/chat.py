"""POST /v1/chat/completions: a conversation, answered.

The reply is told apart into content, reasoning and tool calls as it comes. What it has to be (a format, a call that
must be made, a call by its schema) is put together in forms.py, and tried before the engine is asked.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import msgspec

from openwork.core.output import Chunk, Logprob
from openwork.engine.face import Facts
from openwork.serve import sse
from openwork.serve.answering import Plan
from openwork.serve.bounds import Bounds
from openwork.serve.callers import Caller
from openwork.serve.certificate import certificate_of
from openwork.serve.constraints import read_constraint
from openwork.serve.conversation import conversation_of
from openwork.serve.decoding import NAMES, seek
from openwork.serve.errors import bad_request
from openwork.serve.forms import Tools, begin_reply
from openwork.serve.generation import Generation, Part
from openwork.serve.logprobs import chat_logprob, prompt_logprobs
from openwork.serve.sampling import check_common, check_fan_out, check_label, request_of, sampling_params, terms_of
from openwork.serve.schema.chat import (
    ChatBody,
    ChatChoice,
    ChatChunk,
    ChatCompletion,
    ChatLogprobs,
    ChatMessage,
    ChunkChoice,
    FunctionDelta,
    NamedTool,
    SaidFunction,
    SaidToolCall,
    ToolCallDelta,
)
from openwork.serve.schema.chat import Delta as Said
from openwork.serve.schema.decoding import ChooseBody
from openwork.serve.spoken import Spoken
from openwork.serve.stamp import Mould, Stamp
from openwork.serve.texts import Texts
from openwork.serve.usage import timings_of, usage_of
from openwork.text.reply import Arguments, Content, Delta, Reasoning, ToolCall
from openwork.text.tokenizer import Tokenizer


async def plan_chat(body: ChatBody, texts: Texts, facts: Facts, caller: Caller, bounds: Bounds) -> Plan:
    """Raises ApiError 400, naming the field."""
    check_common(body, bounds)
    check_fan_out(1, body.n or 1, bounds)
    _check_together(body, bounds)
    wanted = body.max_tokens if body.max_completion_tokens is None else body.max_completion_tokens
    params = sampling_params(
        body,
        facts,
        bounds,
        n=body.n or 1,
        max_tokens=wanted,
        logprobs=(body.top_logprobs or 0) if body.logprobs else None,
        prompt_logprobs=body.prompt_logprobs,
    )
    asked = _tools(body)
    conversation = conversation_of(
        body.messages,
        () if body.tool_choice == "none" else body.tools or (),
        add_generation_prompt=body.add_generation_prompt,
        continue_final_message=body.continue_final_message,
        variables=body.chat_template_kwargs,
        effort=body.reasoning_effort,
    )
    names = [tool["function"]["name"] for tool in conversation.tools]
    begun = await begin_reply(conversation, read_constraint(body), asked, texts, bounds)
    params = replace(params, constraint=begun.constraint)
    terms = terms_of(body, caller)
    ids = begun.prompt.token_ids
    sought = [] if body.decoding is None else await seek(body.decoding, [None], [ids], texts, bounds)
    search = sought[0].search if sought else None
    request = request_of(ids, params, facts.limits, terms, "messages", wanted, {**NAMES, **begun.names}, search)

    def speak() -> Spoken:
        if isinstance(body.decoding, ChooseBody):
            return Spoken(None)  # one of the options, whatever it looks like
        return Spoken.begin(begun.dialect, names, begun.prompt.text, asked.is_parallel, begun.opening)

    stamp = Stamp.new("chatcmpl-", "chat.completion", facts)
    voice = ChatVoice(body, stamp, begun.tokenizer, speak, facts)
    shown = begun.dialect.shown_ids(begun.tokenizer)
    return Plan([request], begun.tokenizer, voice, bool(body.stream), shown, sought, stamp.id)


def _tools(body: ChatBody) -> Tools:
    """What is asked of the tools. Raises ApiError 400."""
    choice = body.tool_choice
    functions = [tool.function for tool in body.tools or ()]
    named = choice.function.name if isinstance(choice, NamedTool) else None
    word = choice if isinstance(choice, str) else None
    return Tools.read(functions, "function.parameters", word, named, body.parallel_tool_calls is not False)


class ChatVoice:
    def __init__(
        self, body: ChatBody, stamp: Stamp, tokenizer: Tokenizer, speak: Callable[[], Spoken], facts: Facts
    ) -> None:
        self._body = body
        self._stamp = stamp
        self._chunk_stamp = replace(stamp, kind="chat.completion.chunk")
        self._tokenizer = tokenizer
        self._lines = [speak() for _ in range(body.n or 1)]
        self._is_begun = [False] * len(self._lines)
        self._eos_ids = facts.limits.eos_ids - set(body.stop_token_ids or ())
        self._has_usage = body.stream_options is not None and bool(body.stream_options.include_usage)
        self._is_bare = not body.logprobs and not body.return_token_ids  # nothing is told beside the deltas
        after = b'},"logprobs":null,"finish_reason":null'
        self._content = Mould(self._chunk_stamp, b'"delta":{"content":', after, self._has_usage)
        self._reasoning = Mould(self._chunk_stamp, b'"delta":{"reasoning_content":', after, self._has_usage)

    def begin(self, generation: Generation) -> bytes:
        return b""

    def close(self) -> None:
        pass

    def hear(self, part: Part, chunk: Chunk) -> None:
        self._lines[chunk.index].take(chunk)

    def progress(self, part: Part, computed: int, known: int) -> bytes:
        return sse.progress(computed, known)

    def chunk(self, part: Part, chunk: Chunk) -> bytes:
        index = chunk.index
        line = self._lines[index]
        deltas = line.take(chunk)
        begin = b"" if self._is_begun[index] else self._begin(part, index)
        if self._is_bare:
            said = b"".join([self._plain(index, delta) for delta in deltas])
        else:
            said = self._with_details(index, chunk, deltas)
        return begin + said + (b"" if chunk.finish_reason is None else self._last(index, line))

    def end(self, generation: Generation) -> bytes:
        if not self._has_usage and not self._body.timings and self._body.decoding is None:
            return sse.DONE
        timings = timings_of(generation)[0] if self._body.timings else msgspec.UNSET
        usage = usage_of(generation, self._num_reasoning_tokens)
        search = certificate_of(generation.parts[0], self._tokenizer) or msgspec.UNSET
        last = ChatChunk(choices=[], usage=usage, timings=timings, search=search, **self._chunk_stamp.fields())
        return sse.event(last) + sse.DONE

    def whole(self, generation: Generation) -> ChatCompletion:
        body, part = self._body, generation.parts[0]
        asked = part.output.prompt_logprobs
        return ChatCompletion(
            choices=[self._choice(index, line) for index, line in enumerate(self._lines)],
            usage=usage_of(generation, self._num_reasoning_tokens),
            timings=timings_of(generation)[0] if body.timings else msgspec.UNSET,
            search=certificate_of(part, self._tokenizer) or msgspec.UNSET,
            prompt_logprobs=msgspec.UNSET
            if body.prompt_logprobs is None or asked is None
            else prompt_logprobs(self._tokenizer, asked, body.prompt_logprobs),
            prompt_token_ids=list(part.request.prompt) if body.return_token_ids else msgspec.UNSET,
            **self._stamp.fields(),
        )

    # -- a whole choice

    def _choice(self, index: int, line: Spoken) -> ChatChoice:
        calls = [SaidToolCall(id=c.id, function=SaidFunction(name=c.name, arguments=c.arguments)) for c in line.calls]
        content = "".join(line.content)
        message = ChatMessage(
            content=content if content or not calls else None,
            reasoning_content="".join(line.reasoning) if line.reasoning else msgspec.UNSET,
            tool_calls=calls or msgspec.UNSET,
        )
        return ChatChoice(
            index=index,
            message=message,
            logprobs=self._logprobs(line.logprobs) if self._body.logprobs else None,
            finish_reason=line.reason or "stop",
            stop_reason=self._stop_reason(line),
            token_ids=line.token_ids if self._body.return_token_ids else msgspec.UNSET,
        )

    @property
    def _num_reasoning_tokens(self) -> int:
        return sum(line.num_reasoning_tokens for line in self._lines)

    # -- pieces of one

    def _begin(self, part: Part, index: int) -> bytes:
        self._is_begun[index] = True
        ids = (
            list(part.request.prompt) if self._body.return_token_ids and not any(self._is_begun[1:]) else msgspec.UNSET
        )
        return self._event(index, Said(role="assistant", content=""), prompt_token_ids=ids)

    def _plain(self, index: int, delta: Delta) -> bytes:
        match delta:
            case Content(text=text):
                return self._content.cast(index, text)
            case Reasoning(text=text):
                return self._reasoning.cast(index, text)
        return self._event(index, _said(delta))

    def _with_details(self, index: int, chunk: Chunk, deltas: Sequence[Delta]) -> bytes:
        """The details of a token go with the first of what it says, or alone when that is not certain yet."""
        logprobs = self._logprobs(chunk.logprobs) if chunk.logprobs else None
        ids = list(chunk.token_ids) if self._body.return_token_ids else msgspec.UNSET
        said = [_said(delta) for delta in deltas]
        if not said and (chunk.token_ids or logprobs):
            said = [Said(content="")]
        events = [self._event(index, each, logprobs, token_ids=ids) for each in said[:1]]
        return b"".join(events + [self._event(index, each) for each in said[1:]])

    def _last(self, index: int, line: Spoken) -> bytes:
        return self._event(index, Said(), reason=line.reason, stop_reason=self._stop_reason(line))

    def _event(
        self,
        index: int,
        delta: Said,
        logprobs: ChatLogprobs | None = None,
        *,
        reason: str | None = None,
        stop_reason: str | int | msgspec.UnsetType | None = msgspec.UNSET,
        token_ids: list[int] | msgspec.UnsetType = msgspec.UNSET,
        prompt_token_ids: list[int] | msgspec.UnsetType = msgspec.UNSET,
    ) -> bytes:
        choice = ChunkChoice(
            index=index,
            delta=delta,
            logprobs=logprobs,
            finish_reason=reason,
            stop_reason=stop_reason,
            token_ids=token_ids,
        )
        usage = None if self._has_usage else msgspec.UNSET
        fields = self._chunk_stamp.fields()
        return sse.event(ChatChunk(choices=[choice], usage=usage, prompt_token_ids=prompt_token_ids, **fields))

    def _logprobs(self, given: Sequence[Logprob]) -> ChatLogprobs:
        return ChatLogprobs(content=[chat_logprob(self._tokenizer, each) for each in given])

    def _stop_reason(self, line: Spoken) -> str | int | None:
        return None if line.stop_reason in self._eos_ids else line.stop_reason


def _said(delta: Delta) -> Said:
    match delta:
        case Content(text=text):
            return Said(content=text)
        case Reasoning(text=text):
            return Said(reasoning_content=text)
        case ToolCall(index=index, id=id, name=name):
            begun = FunctionDelta(name=name, arguments="")
            return Said(tool_calls=[ToolCallDelta(index=index, id=id, type="function", function=begun)])
        case Arguments(index=index, text=text):
            return Said(tool_calls=[ToolCallDelta(index=index, function=FunctionDelta(arguments=text))])


def _check_together(body: ChatBody, bounds: Bounds) -> None:
    """Fields that do not go together, or ask for what is not there. Raises ApiError 400."""
    if body.top_logprobs is not None and not body.logprobs:
        raise bad_request("top_logprobs needs logprobs.", "top_logprobs")
    if (body.top_logprobs or 0) > bounds.logprobs:
        raise bad_request(f"top_logprobs is {body.top_logprobs}; at most {bounds.logprobs} are given.", "top_logprobs")
    both = (body.max_tokens, body.max_completion_tokens)
    if None not in both and both[0] != both[1]:
        raise bad_request("max_tokens is an older name of max_completion_tokens; give one of them.", "max_tokens")
    for name in ("max_tokens", "max_completion_tokens"):
        if getattr(body, name) == 0:
            raise bad_request(f"{name} must be at least 1.", name)
    if body.continue_final_message and body.add_generation_prompt:
        raise bad_request(
            "add_generation_prompt begins a new message; continue_final_message goes on with the last.",
            "add_generation_prompt",
        )
    check_label(body.safety_identifier, "safety_identifier", bounds)
    check_label(body.prompt_cache_key, "prompt_cache_key", bounds)
