"""POST /v1/chat/completions: what is asked, and what is answered."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

import msgspec
from msgspec import Meta

from openwork.serve.schema.completion import PromptLogprobs
from openwork.serve.schema.decoding import Certificate
from openwork.serve.schema.fields import Count, Generating, Label, Name
from openwork.serve.schema.format import UNSUPPORTED
from openwork.serve.schema.reading import Body
from openwork.serve.schema.usage import Said, Timing, Usage


class Text(Body, frozen=True, kw_only=True):
    type: Literal["text"]
    text: str


class TextPart(Body, tag_field="type", tag="text", frozen=True, kw_only=True):
    text: str


class RefusalPart(Body, tag_field="type", tag="refusal", frozen=True, kw_only=True):
    refusal: str


class CalledFunction(Body, frozen=True, kw_only=True):
    name: Name
    arguments: Annotated[str, Meta(description="JSON as text, as the model wrote it")]


class ToolCall(Body, frozen=True, kw_only=True):
    id: Annotated[str, Meta(min_length=1, max_length=256)]
    function: CalledFunction
    type: Literal["function"] = "function"


Content = str | list[Text]
PersonName = Annotated[str, Meta(pattern=r"\A[^\s<|\\/>\x00-\x1f\x7f]{1,64}\Z")]


class SystemMessage(Body, tag_field="role", tag="system", frozen=True, kw_only=True):
    content: Content
    name: PersonName | None = None


class DeveloperMessage(Body, tag_field="role", tag="developer", frozen=True, kw_only=True):
    content: Content
    name: PersonName | None = None


class UserMessage(Body, tag_field="role", tag="user", frozen=True, kw_only=True):
    content: Content
    name: PersonName | None = None


class AssistantMessage(Body, tag_field="role", tag="assistant", frozen=True, kw_only=True):
    content: str | list[TextPart | RefusalPart] | None = None
    reasoning_content: str | None = None
    refusal: str | None = None
    name: PersonName | None = None
    tool_calls: list[ToolCall] | None = None
    # What our own answers have beside these, and clients send back.
    annotations: Annotated[list[Any], Meta(max_length=0)] | None = None
    audio: None = None
    function_call: None = None


class ToolMessage(Body, tag_field="role", tag="tool", frozen=True, kw_only=True):
    content: Content
    tool_call_id: Annotated[str, Meta(min_length=1, max_length=256)]
    name: PersonName | None = None


Message = SystemMessage | DeveloperMessage | UserMessage | AssistantMessage | ToolMessage


class Function(Body, frozen=True, kw_only=True):
    name: Name
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: Annotated[bool, Meta(description="calls of it follow its schema")] | None = None


class Tool(Body, frozen=True, kw_only=True):
    function: Function
    type: Literal["function"]


class NamedFunction(Body, frozen=True, kw_only=True):
    name: Name


class NamedTool(Body, frozen=True, kw_only=True):
    function: NamedFunction
    type: Literal["function"]


ToolChoice = Literal["none", "auto", "required"] | NamedTool


Variable = bool | int | float | str | None


class ChatBody(Generating, frozen=True, kw_only=True):
    unsupported: ClassVar[dict[str, str]] = UNSUPPORTED | {
        "functions": "Use tools.",
        "function_call": "Use tool_choice.",
        "audio": "This is a text model.",
        "prediction": "",
        "web_search_options": "",
        "verbosity": "",
        "chat_template": "The template is the operator's.",
        "documents": "",
    }

    messages: Annotated[list[Message], Meta(min_length=1)]
    max_completion_tokens: Count | None = None
    max_tokens: Annotated[Count, Meta(description="the older name of max_completion_tokens")] | None = None
    logprobs: bool | None = None
    top_logprobs: Count | None = None
    tools: list[Tool] | None = None
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    reasoning_effort: Label | None = None

    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None
    chat_template_kwargs: dict[str, Variable] | None = None

    modalities: list[Literal["text"]] | None = None
    store: Literal[False] | None = None
    safety_identifier: Label | None = None
    prompt_cache_key: Label | None = None


class TopLogprob(Said, frozen=True, kw_only=True):
    token: str
    logprob: float
    bytes: list[int] | None


class ChatLogprob(Said, frozen=True, kw_only=True):
    token: str
    logprob: float
    bytes: list[int] | None
    top_logprobs: list[TopLogprob]


class ChatLogprobs(Said, frozen=True, kw_only=True):
    content: list[ChatLogprob]
    refusal: None = None


class SaidFunction(Said, frozen=True, kw_only=True):
    name: str
    arguments: str


class SaidToolCall(Said, frozen=True, kw_only=True):
    id: str
    function: SaidFunction
    type: str = "function"


class ChatMessage(Said, frozen=True, kw_only=True):
    role: str = "assistant"
    content: str | None
    refusal: None = None
    reasoning_content: str | msgspec.UnsetType = msgspec.UNSET
    tool_calls: list[SaidToolCall] | msgspec.UnsetType = msgspec.UNSET


class ChatChoice(Said, frozen=True, kw_only=True):
    index: int
    message: ChatMessage
    logprobs: ChatLogprobs | None
    finish_reason: str
    stop_reason: str | int | None = None
    token_ids: list[int] | msgspec.UnsetType = msgspec.UNSET


class ChatCompletion(Said, frozen=True, kw_only=True):
    id: str
    object: str
    created: int
    model: str
    choices: list[ChatChoice]
    usage: Usage
    timings: Timing | msgspec.UnsetType = msgspec.UNSET
    search: Certificate | msgspec.UnsetType = msgspec.UNSET  # where decoding was given
    prompt_logprobs: PromptLogprobs | msgspec.UnsetType = msgspec.UNSET
    prompt_token_ids: list[int] | msgspec.UnsetType = msgspec.UNSET
    system_fingerprint: str | msgspec.UnsetType = msgspec.UNSET


class FunctionDelta(Said, frozen=True, kw_only=True):
    name: str | msgspec.UnsetType = msgspec.UNSET
    arguments: str | msgspec.UnsetType = msgspec.UNSET


class ToolCallDelta(Said, frozen=True, kw_only=True):
    index: int
    function: FunctionDelta
    id: str | msgspec.UnsetType = msgspec.UNSET
    type: str | msgspec.UnsetType = msgspec.UNSET


class Delta(Said, frozen=True, kw_only=True):
    role: str | msgspec.UnsetType = msgspec.UNSET
    content: str | msgspec.UnsetType | None = msgspec.UNSET
    reasoning_content: str | msgspec.UnsetType = msgspec.UNSET
    tool_calls: list[ToolCallDelta] | msgspec.UnsetType = msgspec.UNSET


class ChunkChoice(Said, frozen=True, kw_only=True):
    index: int
    delta: Delta
    logprobs: ChatLogprobs | None
    finish_reason: str | None
    stop_reason: str | int | msgspec.UnsetType | None = msgspec.UNSET
    token_ids: list[int] | msgspec.UnsetType = msgspec.UNSET


class ChatChunk(Said, frozen=True, kw_only=True):
    """One event of a stream."""

    id: str
    object: str
    created: int
    model: str
    choices: list[ChunkChoice]
    usage: Usage | msgspec.UnsetType | None = msgspec.UNSET
    timings: Timing | msgspec.UnsetType = msgspec.UNSET
    search: Certificate | msgspec.UnsetType = msgspec.UNSET  # where decoding was given
    prompt_token_ids: list[int] | msgspec.UnsetType = msgspec.UNSET
    system_fingerprint: str | msgspec.UnsetType = msgspec.UNSET
