"""POST /v1/responses: what is asked, what is answered, and the items that both consist of."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

import msgspec
from msgspec import Meta

from openwork.serve.schema.chat import Variable
from openwork.serve.schema.fields import Asked, Label, Name, Positive
from openwork.serve.schema.format import JsonObjectFormat, JsonSchemaText, TextFormat
from openwork.serve.schema.reading import Body
from openwork.serve.schema.usage import Said, Timing

ItemId = Annotated[str, Meta(max_length=256)]
ItemStatus = Literal["in_progress", "completed", "incomplete"]
Nothing = Annotated[list[Any], Meta(max_length=0)]


class InputText(Body, tag_field="type", tag="input_text", frozen=True, kw_only=True):
    text: str


class OutputText(Body, tag_field="type", tag="output_text", frozen=True, kw_only=True):
    text: str
    annotations: Nothing | None = None
    logprobs: Nothing | None = None


class Refusal(Body, tag_field="type", tag="refusal", frozen=True, kw_only=True):
    refusal: str


class ReasoningText(Body, frozen=True, kw_only=True):
    type: Literal["reasoning_text"]
    text: str


class InputMessage(Body, tag_field="type", tag="message", frozen=True, kw_only=True):
    role: Literal["user", "system", "developer", "assistant"]
    content: str | list[InputText | OutputText | Refusal]
    id: ItemId | None = None
    status: ItemStatus | None = None


class FunctionCall(Body, tag_field="type", tag="function_call", frozen=True, kw_only=True):
    call_id: Annotated[str, Meta(min_length=1, max_length=256)]
    name: Name
    arguments: str
    id: ItemId | None = None
    status: ItemStatus | None = None


class FunctionResult(Body, tag_field="type", tag="function_call_output", frozen=True, kw_only=True):
    call_id: Annotated[str, Meta(min_length=1, max_length=256)]
    output: str
    id: ItemId | None = None
    status: ItemStatus | None = None


class ReasoningItem(Body, tag_field="type", tag="reasoning", frozen=True, kw_only=True):
    summary: Nothing
    content: list[ReasoningText] | None = None
    encrypted_content: None = None
    id: ItemId | None = None
    status: ItemStatus | None = None


Item = InputMessage | FunctionCall | FunctionResult | ReasoningItem


class FunctionTool(Body, frozen=True, kw_only=True):
    type: Literal["function"]
    name: Name
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class NamedFunctionTool(Body, frozen=True, kw_only=True):
    type: Literal["function"]
    name: Name


class TextOptions(Body, frozen=True, kw_only=True):
    format: TextFormat | JsonObjectFormat | JsonSchemaText | None = None


class Reasoning(Body, frozen=True, kw_only=True):
    effort: Label | None = None


class ResponseStreamOptions(Body, frozen=True, kw_only=True):
    include_obfuscation: Literal[False] | None = None


class ResponseBody(Asked, frozen=True, kw_only=True):
    unsupported: ClassVar[dict[str, str]] = {
        "conversation": "Use previous_response_id.",
        "prompt": "There are no stored prompts.",
        "max_tool_calls": "Tools are called by the client.",
        "top_logprobs": "Use /v1/chat/completions for log-probabilities.",
    }

    input: str | Annotated[list[Item], Meta(min_length=1)]
    instructions: str | None = None
    max_output_tokens: Positive | None = None
    previous_response_id: Annotated[str, Meta(max_length=128)] | None = None
    store: Annotated[bool, Meta(description="keep it for previous_response_id and GET; true when left out")] | None = (
        None
    )
    stream_options: ResponseStreamOptions | None = None
    tools: list[FunctionTool] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedFunctionTool | None = None
    parallel_tool_calls: bool | None = None
    text: TextOptions | None = None
    reasoning: Reasoning | None = None
    chat_template_kwargs: dict[str, Variable] | None = None

    background: Literal[False] | None = None
    include: Nothing | None = None
    truncation: Literal["disabled"] | None = None
    safety_identifier: Label | None = None
    prompt_cache_key: Label | None = None

    @staticmethod
    def completed(value: dict[str, Any]) -> dict[str, Any]:
        """A message may leave its type out."""
        items = value.get("input")
        for item in items if isinstance(items, list) else ():
            if isinstance(item, dict) and "role" in item:
                item.setdefault("type", "message")
        return value


class SaidText(Said, tag_field="type", tag="output_text", frozen=True, kw_only=True):
    text: str
    annotations: tuple[()] = ()
    logprobs: tuple[()] = ()


class SaidReasoningText(Said, tag_field="type", tag="reasoning_text", frozen=True, kw_only=True):
    text: str


class SaidMessage(Said, tag_field="type", tag="message", frozen=True, kw_only=True):
    id: str
    status: str
    role: str = "assistant"
    content: list[SaidText]


class SaidReasoning(Said, tag_field="type", tag="reasoning", frozen=True, kw_only=True):
    id: str
    status: str
    summary: tuple[()] = ()
    content: list[SaidReasoningText]


class SaidCall(Said, tag_field="type", tag="function_call", frozen=True, kw_only=True):
    id: str
    status: str
    call_id: str
    name: str
    arguments: str


SaidItem = SaidMessage | SaidReasoning | SaidCall


class InputDetails(Said, frozen=True, kw_only=True):
    cached_tokens: int


class OutputDetails(Said, frozen=True, kw_only=True):
    reasoning_tokens: int


class ResponseUsage(Said, frozen=True, kw_only=True):
    input_tokens: int
    input_tokens_details: InputDetails
    output_tokens: int
    output_tokens_details: OutputDetails
    total_tokens: int


class Incomplete(Said, frozen=True, kw_only=True):
    reason: str


class Response(Said, frozen=True, kw_only=True):
    """``status``: in_progress, completed, incomplete (``incomplete_details`` says why) or cancelled."""

    id: str
    object: str = "response"
    created_at: int
    status: str
    error: None = None
    incomplete_details: Incomplete | None
    instructions: str | None
    max_output_tokens: int | None
    model: str
    output: list[SaidItem]
    parallel_tool_calls: bool
    previous_response_id: str | None
    reasoning: dict[str, Any]
    store: bool
    temperature: float
    text: dict[str, Any]
    tool_choice: Any
    tools: list[FunctionTool]
    top_p: float
    truncation: str = "disabled"
    usage: ResponseUsage | None
    user: str | None
    metadata: dict[str, str]
    timings: Timing | msgspec.UnsetType = msgspec.UNSET


class Cancelled(Said, frozen=True, kw_only=True):
    """It is being cancelled; its own stream ends with what there is of it."""

    id: str
    object: str = "response"
    status: str = "cancelled"


class Deleted(Said, frozen=True, kw_only=True):
    id: str
    object: str = "response"
    deleted: bool = True
