"""Conversation: the messages of a chat, as the ids that the model goes on from.

It guarantees that what people write stays text: where a message, a tool or a template variable spells a special token,
it is tokenised in two halves, so that nobody can end a turn or begin another in somebody's name. Templates run beside
the event loop, in their sandbox. It does not know which of the two APIs a conversation came by.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from openwork.serve.bounds import Bounds
from openwork.serve.errors import bad_request
from openwork.serve.sampling import too_long
from openwork.serve.texts import Language, Texts, encode, need_tokenizer, size_of

Plain = Mapping[str, Any]
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
_NOT_VARIABLES = frozenset(
    ("messages", "tools", "documents", "add_generation_prompt", "continue_final_message", "chat_template", "tokenize")
)
# Four characters that no text has a reason to hold; drawn anew for each process, so that nobody can write them.
_BREAK = "".join(chr(0xF0000 + secrets.randbelow(0xFFFE)) for _ in range(4))


@dataclass(frozen=True, slots=True)
class Conversation:
    """``param`` is the field it came in, for what is said when it is too long."""

    messages: Sequence[Plain]
    tools: Sequence[Plain] = ()
    variables: Mapping[str, Any] = field(default_factory=dict)
    add_generation_prompt: bool = True
    continue_final_message: bool = False
    param: str = "messages"


@dataclass(frozen=True, slots=True)
class Turn:
    """Where the model goes on: the ids, and the text that the template made."""

    ids: list[int]
    text: str


async def turn_of(conversation: Conversation, texts: Texts, bounds: Bounds) -> Turn:
    """Raises ApiError 400, and RequestError with the words of the template."""
    language = await texts.language()
    _check(conversation, bounds)
    size = size_of(conversation.messages) + size_of(conversation.tools)
    if size > language.max_bytes:
        what = f"your messages have over {size} bytes, more than so many tokens can hold"
        raise too_long(language.context, what, conversation.param)
    return await texts.run(_render, language, conversation)


def check_variables(variables: Mapping[str, Any], language: Language, bounds: Bounds) -> None:
    """Raises ApiError 400 for names that a template's own words or tokens have."""
    if len(variables) > bounds.template_variables:
        raise bad_request(f"chat_template_kwargs may have {bounds.template_variables} entries.", "chat_template_kwargs")
    own = {} if language.tokenizer is None else language.tokenizer.special_tokens
    for name in variables:
        if not _VARIABLE.fullmatch(name) or name in _NOT_VARIABLES or name in own:
            raise bad_request("chat_template_kwargs: a name is not allowed here.", "chat_template_kwargs")


def _check(conversation: Conversation, bounds: Bounds) -> None:
    param, messages, tools = conversation.param, conversation.messages, conversation.tools
    if len(messages) > bounds.messages:
        raise bad_request(f"{param} has {len(messages)} entries; at most {bounds.messages} are allowed.", param)
    for place, message in enumerate(messages):
        content = message.get("content")
        if isinstance(content, list) and len(content) > bounds.content_parts:
            raise bad_request(f"The content has over {bounds.content_parts} parts.", f"{param}[{place}].content")
        if len(message.get("tool_calls", ())) > bounds.tools:
            raise bad_request(f"There are over {bounds.tools} calls.", f"{param}[{place}].tool_calls")
    if len(tools) > bounds.tools:
        raise bad_request(f"tools has {len(tools)} entries; at most {bounds.tools} are allowed.", "tools")
    for place, tool in enumerate(tools):
        if len(json.dumps(tool, ensure_ascii=False).encode()) > bounds.tool_bytes:
            raise bad_request(f"tools[{place}] may have {bounds.tool_bytes} bytes.", f"tools[{place}]")


def _render(language: Language, conversation: Conversation) -> Turn:
    tokenizer = need_tokenizer(language, conversation.param)
    if language.template is None:
        raise bad_request("This model has no chat template. Use /v1/completions.", conversation.param)
    guard = _guard(tokenizer.special_words)
    options = dict(guard(conversation.variables))
    if conversation.tools:
        options["tools"] = guard(list(conversation.tools))
    if conversation.continue_final_message:
        options["continue_final_message"] = True
    text = language.template.render(guard(conversation.messages), conversation.add_generation_prompt, **options)
    ids = encode(language, text.split(_BREAK), conversation.param, add_special=False)
    return Turn(ids, text.replace(_BREAK, ""))


def _guard(words: Sequence[str]) -> Callable[[Any], Any]:
    """A function that puts a break into every special token that a value spells."""
    found = re.compile("|".join(re.escape(word) for word in words if len(word) > 1) or r"(?!)")

    def halve(match: re.Match[str]) -> str:
        word = match[0]
        return word[: len(word) // 2] + _BREAK + word[len(word) // 2 :]

    def guard(value: Any) -> Any:
        if isinstance(value, str):
            return found.sub(halve, value)
        if isinstance(value, Mapping):
            return {guard(key): guard(entry) for key, entry in value.items()}
        return [guard(entry) for entry in value] if isinstance(value, (list, tuple)) else value

    return guard
