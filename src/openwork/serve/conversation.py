"""Conversation: the messages of a chat, as the ids that the model goes on from.

What can never fit is refused by its length before a template sees it; the template runs beside the event loop, in its
sandbox. It does not know which of the two APIs a conversation came by.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from openwork.core.errors import RequestError
from openwork.serve.bounds import Bounds
from openwork.serve.errors import ApiError, bad_request, from_exception
from openwork.serve.sampling import too_long
from openwork.serve.schema.chat import Message, Tool
from openwork.serve.texts import Language, Texts, check_tokens, need_tokenizer, texts_in
from openwork.text.chat import ChatPrompt

Plain = Mapping[str, Any]
# Fields of our own answers that clients send back and no template is given.
_NOT_SHOWN = ("refusal", "annotations", "audio", "function_call")


@dataclass(frozen=True, slots=True)
class Conversation:
    """``param`` is the field it came in; ``effort`` how long to reason, for templates that read it."""

    messages: Sequence[Plain]
    tools: Sequence[Plain] = ()
    variables: Mapping[str, Any] = field(default_factory=dict)
    effort: str | None = None
    add_generation_prompt: bool = True
    continue_final_message: bool = False
    opening: str = ""  # what the answer is made to begin with
    param: str = "messages"


def conversation_of(
    messages: Sequence[Message],
    tools: Sequence[Tool] = (),
    *,
    add_generation_prompt: bool | None = None,
    continue_final_message: bool | None = None,
    variables: Mapping[str, Any] | None = None,
    effort: str | None = None,
) -> Conversation:
    """From the records of a body. Unless it goes on with the last message, a new one is begun."""
    goes_on = bool(continue_final_message)
    return Conversation(
        [_plain_message(message) for message in messages],
        [_plain_tool(tool) for tool in tools],
        variables or {},
        effort,
        not goes_on if add_generation_prompt is None else add_generation_prompt,
        goes_on,
    )


async def prompt_of(conversation: Conversation, texts: Texts, bounds: Bounds) -> ChatPrompt:
    """Raises ApiError 400, naming the field."""
    language = await texts.language()
    _check(conversation, bounds)
    return await texts.run(_render, language, conversation)


def _plain_message(message: Message) -> dict[str, Any]:
    """A message as templates know it: what was not given is not there."""
    plain: dict[str, Any] = _without_none(msgspec.to_builtins(message))
    for part in plain["content"] if isinstance(plain.get("content"), list) else ():
        if part["type"] == "refusal":
            part["type"], part["text"] = "text", part.pop("refusal")
    return {name: value for name, value in plain.items() if name not in _NOT_SHOWN}


def _plain_tool(tool: Tool) -> dict[str, Any]:
    function: dict[str, Any] = msgspec.to_builtins(tool.function)  # null has a meaning within its parameters
    shown = {name: entry for name, entry in function.items() if entry is not None and name != "strict"}
    return {"type": "function", "function": shown}


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_none(entry) for name, entry in value.items() if entry is not None}
    return [_without_none(entry) for entry in value] if isinstance(value, list) else value


def _check(conversation: Conversation, bounds: Bounds) -> None:
    param, messages, tools = conversation.param, conversation.messages, conversation.tools
    if len(messages) > bounds.messages:
        raise bad_request(f"{param} has {len(messages)} entries; at most {bounds.messages} are allowed.", param)
    for place, message in enumerate(messages):
        for name, bound in (("content", bounds.content_parts), ("tool_calls", bounds.tools)):
            given = message.get(name)
            if isinstance(given, list) and len(given) > bound:
                where = f"{param}[{place}].{name}"
                raise bad_request(f"{where} has {len(given)} entries; at most {bound} are allowed.", where)
    if len(tools) > bounds.tools:
        raise bad_request(f"tools has {len(tools)} entries; at most {bounds.tools} are allowed.", "tools")


def _render(language: Language, conversation: Conversation) -> ChatPrompt:
    param = conversation.param
    tokenizer = need_tokenizer(language, param)
    if language.template is None:
        raise bad_request("This model has no chat template. Use /v1/completions.", param)
    check_tokens(language, texts_in(conversation.messages), param)
    variables = dict(conversation.variables)
    if conversation.effort is not None:
        if "reasoning_effort" not in language.template.variables:
            raise bad_request(
                "reasoning_effort is not supported: this model's chat template does not read it.",
                "reasoning_effort",
                "unsupported_parameter",
            )
        variables["reasoning_effort"] = conversation.effort
    try:
        return language.template.prompt(
            tokenizer,
            conversation.messages,
            tools=conversation.tools or None,
            add_generation_prompt=conversation.add_generation_prompt,
            continue_final_message=conversation.continue_final_message,
            variables=variables,
            opening=conversation.opening,
            max_bytes=language.max_bytes,
        )
    except RequestError as error:
        raise _in_terms_of(error, language, param) from None


def _in_terms_of(error: RequestError, language: Language, param: str) -> ApiError:
    """What the template says of "messages", of the field that the client knows."""
    told = from_exception(error)
    if told.code == "context_length_exceeded":
        return too_long(language.context, "your conversation is longer than so many tokens can be", param)
    if param != "messages" and told.param is not None and told.param.startswith("messages"):
        told.message = param + told.message.removeprefix(told.param)
        told.param = param  # its entries are not the messages that were made of them
    return told
