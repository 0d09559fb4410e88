"""Messages and tools as templates see them: plain dictionaries, checked before a template reads them.

An error says which entry is at fault, by its path, as messages[2].content. Sizes, counts and depths are bounded. What a
template makes of a conversation, and whether it likes it, is not known here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from openwork.core.errors import RequestError
from openwork.text.tokenizer import check_text

ROLES = ("system", "user", "assistant", "tool", "developer")
MAX_MESSAGES = 10_000
MAX_DEPTH = 32
MAX_TOOLS = 128
MAX_TOOLS_BYTES = 256 << 10
MAX_CALL_ID = 256
_TOOL_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_AUTHOR = re.compile(r"[^\s<|\\/>]{1,64}")  # as OpenAI's API has it


def check_messages(messages: Any, max_bytes: int = 1 << 20) -> list[dict[str, Any]]:
    """The messages as templates see them: plain dictionaries, content as one text (None only beside tool calls).

    Text parts are joined with a newline. Raises RequestError whose ``param`` is the path, as messages[2].content.
    """
    if not isinstance(messages, Sequence) or isinstance(messages, (str, bytes)) or not messages:
        raise RequestError("must be a list of at least one message", param="messages")
    if len(messages) > MAX_MESSAGES:
        raise RequestError(f"has {len(messages)} entries; {MAX_MESSAGES} are allowed", param="messages")
    checked = [_check_message(message, f"messages[{place}]") for place, message in enumerate(messages)]
    size = sum(_size(message) for message in checked)
    if size > max_bytes:
        raise RequestError(f"has {size} bytes of text; {max_bytes} are allowed", "Shorten it.", param="messages")
    return checked


def _check_message(message: Any, path: str) -> dict[str, Any]:
    if not isinstance(message, Mapping):
        raise RequestError('must be an object such as {"role": "user", "content": "Hello"}', param=path)
    role = message.get("role")
    if role not in ROLES:
        raise RequestError(f"must be one of {', '.join(ROLES)}, not {_shown(role)}", param=f"{path}.role")
    content = _check_content(message.get("content"), f"{path}.content")
    if content is None and not (role == "assistant" and message.get("tool_calls")):
        raise RequestError("is missing; it must be text or a list of text parts", param=f"{path}.content")
    others = {key: value for key, value in message.items() if key not in ("role", "content")}
    check_value(others, path)
    name = others.get("name")
    if name is not None and not (isinstance(name, str) and _AUTHOR.fullmatch(name)):
        raise RequestError("must be at most 64 characters, without space and any of <|\\/>", param=f"{path}.name")
    if role == "tool" and not isinstance(others.get("tool_call_id"), str):
        raise RequestError("is missing; it names the call that this answers", param=f"{path}.tool_call_id")
    if others.get("tool_calls") is not None:
        if role != "assistant":
            raise RequestError("belong to messages of the assistant", param=f"{path}.tool_calls")
        others["tool_calls"] = _check_calls(others["tool_calls"], f"{path}.tool_calls")
    return {"role": role, "content": content, **others}


def _check_calls(calls: Any, path: str) -> list[dict[str, Any]]:
    if not isinstance(calls, Sequence) or isinstance(calls, str) or len(calls) > MAX_TOOLS:
        raise RequestError(f"must be a list of at most {MAX_TOOLS} calls", param=path)
    return [_check_call(call, f"{path}[{place}]") for place, call in enumerate(calls)]


def _check_call(call: Any, path: str) -> dict[str, Any]:
    """A call as templates want it: its arguments as an object, which clients write as JSON text."""
    function = call.get("function") if isinstance(call, Mapping) else None
    if not isinstance(function, Mapping) or call.get("type", "function") != "function":
        raise RequestError('must be {"id": ..., "type": "function", "function": {...}}', param=path)
    if not isinstance(call.get("id", ""), str) or len(call.get("id", "")) > MAX_CALL_ID:
        raise RequestError(f"must be a text of at most {MAX_CALL_ID} characters", param=f"{path}.id")
    _check_tool_name(function.get("name"), f"{path}.function.name")
    arguments = function.get("arguments", {})
    where = f"{path}.function.arguments"
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments or "{}", parse_constant=_refuse_constant)
        except (ValueError, RecursionError):  # half a character, a number without end: ValueError, too
            raise RequestError("must be the JSON text of an object", param=where) from None
        check_value(arguments, where)
    if not isinstance(arguments, Mapping):
        raise RequestError("must be the JSON text of an object", param=where)
    return {**call, "function": {**function, "arguments": arguments}}


def check_tools(tools: Any) -> list[dict[str, Any]]:
    """The tools of a request, in OpenAI's form. Their parameters are JSON schemas that the model is shown.

    Raises RequestError whose ``param`` is the path, as tools[0].function.name.
    """
    if not isinstance(tools, Sequence) or isinstance(tools, (str, bytes)) or not 1 <= len(tools) <= MAX_TOOLS:
        raise RequestError(f"must be a list of 1 to {MAX_TOOLS} tools", param="tools")
    checked = [_check_tool(tool, f"tools[{place}]") for place, tool in enumerate(tools)]
    size = sum(map(_size, checked))
    if size > MAX_TOOLS_BYTES:
        raise RequestError(f"have {size} bytes together; {MAX_TOOLS_BYTES} are allowed", param="tools")
    names = [tool["function"]["name"] for tool in checked]
    for place, name in enumerate(names):
        if name in names[:place]:
            raise RequestError(f"is {name!r} like an earlier one", param=f"tools[{place}].function.name")
    return checked


def _check_tool(tool: Any, path: str) -> dict[str, Any]:
    check_value(tool, path)
    function = tool.get("function") if isinstance(tool, Mapping) else None
    if not isinstance(function, Mapping) or tool.get("type") != "function":
        raise RequestError('must be {"type": "function", "function": {...}}', param=path)
    _check_tool_name(function.get("name"), f"{path}.function.name")
    if not isinstance(function.get("description", ""), (str, type(None))):
        raise RequestError("must be text", param=f"{path}.function.description")
    if not isinstance(function.get("parameters", {}), (Mapping, type(None))):
        raise RequestError("must be a JSON schema, an object", param=f"{path}.function.parameters")
    return dict(tool)


def _check_tool_name(name: Any, path: str) -> None:
    if not isinstance(name, str) or not _TOOL_NAME.fullmatch(name):
        raise RequestError("must be 1 to 64 letters, digits, _ and -", param=path)
    if name.startswith("__") and name.endswith("__"):  # somebody's client may well look names up in a program
        raise RequestError("must not be a name of Python's own", param=path)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _check_content(content: Any, path: str) -> str | None:
    if content is None:
        return None
    if isinstance(content, str):
        check_text(content, path)
        return content
    if not isinstance(content, Sequence) or isinstance(content, bytes):
        raise RequestError(f"must be text or a list of text parts, not {type(content).__name__}", param=path)
    texts = []
    for place, part in enumerate(content):
        where = f"{path}[{place}]"
        if not isinstance(part, Mapping) or part.get("type") != "text":
            kind = part.get("type") if isinstance(part, Mapping) else part
            raise RequestError(f'is {_shown(kind)}; only {{"type": "text", "text": ...}} is supported', param=where)
        check_text(part.get("text"), f"{where}.text")
        texts.append(part["text"])
    return "\n".join(texts)


def check_value(value: Any, path: str, depth: int = 0) -> None:
    """Only plain data reaches a template: what JSON can say, to a bounded depth, without lone surrogates."""
    if isinstance(value, str):
        check_text(value, path)
    elif isinstance(value, (list, tuple, Mapping)):
        if depth >= MAX_DEPTH:
            raise RequestError(f"is nested more than {MAX_DEPTH} deep", param=path)
        for key, entry in value.items() if isinstance(value, Mapping) else enumerate(value):
            if isinstance(value, Mapping):
                check_text(key, path)
            check_value(entry, f"{path}.{key:.40}" if isinstance(value, Mapping) else f"{path}[{key}]", depth + 1)
    elif value is not None and not isinstance(value, (bool, int, float)):
        raise RequestError(f"must be plain data, not {type(value).__name__}", param=path)


def _shown(value: Any) -> str:
    """A text of a client in a message for it, however long; of anything else its kind."""
    return repr(value[:40]) if isinstance(value, str) else "None" if value is None else type(value).__name__


def _size(value: Any) -> int:
    if isinstance(value, str):
        return len(value.encode())
    if isinstance(value, Mapping):
        return sum(_size(key) + _size(entry) for key, entry in value.items())
    return sum(map(_size, value)) if isinstance(value, (list, tuple)) else 8
