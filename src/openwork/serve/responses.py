"""POST /v1/responses: items in, items out; whole, or as typed events with sequence numbers.

A response is kept unless ``store`` is false, and may be gone on from (previous_response_id), read again, deleted, and,
while it streams, cancelled from elsewhere. How long it is kept is in kept.py.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from openwork.core.output import Chunk
from openwork.core.request import SamplingParams
from openwork.engine.face import Facts
from openwork.serve import sse
from openwork.serve.answering import Plan
from openwork.serve.bounds import Bounds
from openwork.serve.callers import Caller
from openwork.serve.constraints import read_format
from openwork.serve.conversation import Conversation
from openwork.serve.errors import bad_request
from openwork.serve.forms import Tools, begin_reply
from openwork.serve.generation import Generation, Part
from openwork.serve.items import Event, Items
from openwork.serve.kept import Shelf, previous
from openwork.serve.sampling import check_label, request_of, sampling_params, terms_of
from openwork.serve.schema.response import (
    FunctionCall,
    FunctionResult,
    Incomplete,
    InputDetails,
    InputMessage,
    Item,
    NamedFunctionTool,
    OutputDetails,
    ReasoningItem,
    Refusal,
    Response,
    ResponseBody,
    ResponseUsage,
)
from openwork.serve.spoken import Spoken
from openwork.serve.stamp import Stamp
from openwork.serve.texts import Texts
from openwork.serve.usage import timings_of, usage_of

Plain = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a response is kept."""

    shelf: Shelf
    tenant: str


async def plan_response(
    body: ResponseBody, texts: Texts, facts: Facts, caller: Caller, bounds: Bounds, shelf: Shelf
) -> Plan:
    """Raises ApiError 400, naming the field."""
    _check(body, bounds)
    said: Sequence[Plain] = ()
    if body.previous_response_id is not None:
        said = previous(shelf, caller.tenant, body.previous_response_id)
    messages = [*said, *messages_of(body.input)]
    begun = [{"role": "system", "content": body.instructions}] if body.instructions else []
    params = sampling_params(
        body, facts, bounds, n=1, max_tokens=body.max_output_tokens, logprobs=None, prompt_logprobs=None
    )
    asked = _asked_tools(body)
    tools = [] if body.tool_choice == "none" else [_tool(each) for each in body.tools or ()]
    effort = None if body.reasoning is None else body.reasoning.effort
    variables = body.chat_template_kwargs or {}
    conversation = Conversation([*begun, *messages], tools, variables, effort, param="input")
    wanted = read_format(None if body.text is None else body.text.format, "text.format")
    reply = await begin_reply(conversation, wanted, asked, texts, bounds)
    params = replace(params, constraint=reply.constraint)
    terms = terms_of(body, caller)
    ids = reply.prompt.token_ids
    request = request_of(ids, params, facts.limits, terms, "input", body.max_output_tokens, reply.names)
    names = [tool["function"]["name"] for tool in tools]
    spoken = Spoken.begin(reply.dialect, names, reply.prompt.text, asked.is_parallel, reply.opening)
    stamp = Stamp.new("resp_", "response", facts)
    voice = ResponseVoice(body, params, stamp, spoken, messages, Place(shelf, caller.tenant))
    shown = reply.dialect.shown_ids(reply.tokenizer)
    return Plan([request], reply.tokenizer, voice, bool(body.stream), shown, name=stamp.id)


class ResponseVoice:
    def __init__(
        self,
        body: ResponseBody,
        params: SamplingParams,
        stamp: Stamp,
        spoken: Spoken,
        messages: Sequence[Plain],
        place: Place,
    ) -> None:
        self._body = body
        self._params = params
        self._stamp = stamp
        self._spoken = spoken
        self._messages = messages
        self._place = place
        self._items = Items()
        self._num_events = 0
        self._created = int(time.time())

    def begin(self, generation: Generation) -> bytes:
        self._place.shelf.begin(self._place.tenant, self._stamp.id, generation.cancel)
        opening = self._record("in_progress")
        return self._tell([(f"response.{kind}", {"response": opening}) for kind in ("created", "in_progress")])

    def hear(self, part: Part, chunk: Chunk) -> None:
        for _ in self._events(chunk):
            pass

    def progress(self, part: Part, computed: int, known: int) -> bytes:
        return self._tell([("openwork.prefill", {"computed": computed, "known": known})])

    def chunk(self, part: Part, chunk: Chunk) -> bytes:
        return self._tell(self._events(chunk))

    def end(self, generation: Generation) -> bytes:
        record = self.whole(generation)
        kind = "response.completed" if record.status == "completed" else "response.incomplete"
        return self._tell([(kind, {"response": record})])

    def whole(self, generation: Generation) -> Response:
        record = self._record(self._status, generation)
        if self._body.store is not False:
            answer = answer_of(self._spoken)
            self._place.shelf.keep(
                self._place.tenant, record.id, msgspec.json.encode(record), (*self._messages, *answer)
            )
        return record

    def close(self) -> None:
        self._place.shelf.end(self._place.tenant, self._stamp.id)

    def _events(self, chunk: Chunk) -> Iterable[Event]:
        yield from self._items.take(self._spoken.take(chunk))
        if chunk.finish_reason is not None:
            yield from self._items.close("completed" if self._status == "completed" else "incomplete")

    @property
    def _status(self) -> str:
        ends = {"length": "incomplete", "cancelled": "cancelled"}
        return ends.get(self._spoken.finish_reason or "stop", "completed")

    def _tell(self, events: Iterable[Event]) -> bytes:
        told = []
        for kind, fields in events:
            told.append(sse.event({"type": kind, "sequence_number": self._num_events, **fields}, kind))
            self._num_events += 1
        return b"".join(told)

    def _record(self, status: str, generation: Generation | None = None) -> Response:
        body = self._body
        return Response(
            id=self._stamp.id,
            created_at=self._created,
            status=status,
            incomplete_details=Incomplete(reason="max_output_tokens") if status == "incomplete" else None,
            instructions=body.instructions,
            max_output_tokens=body.max_output_tokens,
            model=self._stamp.model,
            output=list(self._items.done),
            parallel_tool_calls=body.parallel_tool_calls is not False,
            previous_response_id=body.previous_response_id,
            reasoning={"effort": None if body.reasoning is None else body.reasoning.effort, "summary": None},
            store=body.store is not False,
            temperature=self._params.temperature,
            text={"format": {"type": "text"} if body.text is None else body.text.format or {"type": "text"}},
            tool_choice=body.tool_choice or "auto",
            tools=body.tools or [],
            top_p=self._params.top_p,
            usage=None if generation is None else _usage(generation, self._spoken.num_reasoning_tokens),
            user=body.user,
            metadata=body.metadata or {},
            timings=timings_of(generation)[0] if body.timings and generation is not None else msgspec.UNSET,
        )


def messages_of(given: str | Sequence[Item]) -> Sequence[Plain]:
    """Items as the messages of a chat: what the assistant thought, said and called in a row is one message."""
    if isinstance(given, str):
        return [{"role": "user", "content": given}]
    messages: list[dict[str, Any]] = []
    is_open = False  # the last message is the assistant's, and more of it may follow
    for item in given:
        match item:
            case FunctionResult(call_id=id, output=output):
                messages.append({"role": "tool", "tool_call_id": id, "content": output})
                is_open = False
            case InputMessage() if item.role != "assistant":
                messages.append({"role": item.role, "content": _text(item)})
                is_open = False
            case _:
                if not is_open:
                    messages.append({"role": "assistant", "content": ""})
                is_open = True
                _add(messages[-1], item)
    return messages


def answer_of(spoken: Spoken) -> Sequence[Plain]:
    """What was said, as the message that goes on with a conversation."""
    message: dict[str, Any] = {"role": "assistant", "content": "".join(spoken.content)}
    if spoken.reasoning:
        message["reasoning_content"] = "".join(spoken.reasoning)
    if spoken.calls:
        message["tool_calls"] = [_call(call.id, call.name, call.arguments) for call in spoken.calls]
    return [message]


def _add(message: dict[str, Any], item: Item) -> None:
    match item:
        case FunctionCall():
            message.setdefault("tool_calls", []).append(_call(item.call_id, item.name, item.arguments))
        case ReasoningItem():
            thought = "".join(part.text for part in item.content or ())
            message["reasoning_content"] = message.get("reasoning_content", "") + thought
        case InputMessage():
            message["content"] += _text(item)


def _text(item: InputMessage) -> str:
    if isinstance(item.content, str):
        return item.content
    return "".join(part.refusal if isinstance(part, Refusal) else part.text for part in item.content)


def _call(id: str, name: str, arguments: str) -> Plain:
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}


def _asked_tools(body: ResponseBody) -> Tools:
    """What is asked of the tools. Raises ApiError 400."""
    choice = body.tool_choice
    named = choice.name if isinstance(choice, NamedFunctionTool) else None
    word = choice if isinstance(choice, str) else None
    return Tools.read(body.tools or (), "parameters", word, named, body.parallel_tool_calls is not False)


def _tool(tool: Any) -> Plain:
    fields = {name: getattr(tool, name) for name in ("name", "description", "parameters")}
    return {"type": "function", "function": {name: value for name, value in fields.items() if value is not None}}


def _usage(generation: Generation, reasoning_tokens: int) -> ResponseUsage:
    usage = usage_of(generation, reasoning_tokens)
    return ResponseUsage(
        input_tokens=usage.prompt_tokens,
        input_tokens_details=InputDetails(cached_tokens=usage.prompt_tokens_details.cached_tokens),
        output_tokens=usage.completion_tokens,
        output_tokens_details=OutputDetails(reasoning_tokens=reasoning_tokens),
        total_tokens=usage.total_tokens,
    )


def _check(body: ResponseBody, bounds: Bounds) -> None:
    """Fields that ask for what is not there, or do not go together. Raises ApiError 400."""
    if body.stream_options is not None and not body.stream:
        raise bad_request("stream_options needs stream.", "stream_options")
    for name in ("user", "safety_identifier", "prompt_cache_key"):
        check_label(getattr(body, name), name, bounds)
