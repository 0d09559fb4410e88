"""ChatTemplate: a conversation to the text that a model was taught to continue.

The template is a Jinja program that came with the checkpoint, so it is run in a sandbox (sandbox.py) with bounds on
its size, its work and its output. Messages are checked before it sees them, and an error says which message, or which
file, is at fault. Jinja is imported when the first conversation is rendered. It does not tokenise: special tokens are
written in the text, so it is to be encoded without adding any.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from openwork.core.errors import ModelError, RequestError
from openwork.text.tokenizer import Tokenizer, check_text, read_json

ROLES = ("system", "user", "assistant", "tool", "developer")
MAX_TEMPLATE_BYTES = 256 << 10
MAX_MESSAGES = 10_000
MAX_DEPTH = 32
MAX_STEPS = 200_000
WORK_PER_BYTE = 32  # a rendering may build this many times its output limit on the way

Now = Callable[[], time.struct_time]


@dataclass(frozen=True)
class ChatTemplate:
    """One template, and what it needs besides the messages.

    ``where`` is the file it came from, ``special_tokens`` are given to it by name (bos_token, ...), ``max_bytes``
    bounds the messages as well as the text, ``now`` is the local time for templates that state the date.
    """

    source: str
    where: str = "chat_template"
    special_tokens: Mapping[str, str] = field(default_factory=dict)
    max_bytes: int = 1 << 20
    now: Now = time.localtime

    @staticmethod
    def load(tokenizer: Tokenizer, name: str = "default", **options: Any) -> ChatTemplate:
        """The template of a checkpoint: chat_template.jinja, tokenizer_config.json, or chat_template.json.

        ``name`` chooses one where tokenizer_config.json has several. Raises ModelError when there is none.
        """
        directory = tokenizer.directory
        lone = directory / "chat_template.jinja"
        if lone.is_file():
            source, where = _read_template(lone), str(lone)
        elif (entry := tokenizer.config.get("chat_template")) is not None:
            where = str(directory / "tokenizer_config.json") + ": chat_template"
            source = _named(entry, name, where)
        elif (entry := read_json(directory / "chat_template.json").get("chat_template")) is not None:
            where = str(directory / "chat_template.json") + ": chat_template"
            source = _named(entry, name, where)
        else:
            raise ModelError(
                "the checkpoint has no chat template",
                "It may not be a chat model: use generate with a plain prompt, or put a chat_template.jinja there.",
                where=str(directory),
            )
        if len(source.encode(errors="surrogatepass")) > MAX_TEMPLATE_BYTES:
            raise ModelError(f"is longer than {MAX_TEMPLATE_BYTES} bytes", "This is no chat template.", where=where)
        return ChatTemplate(source, where, dict(tokenizer.special_tokens), **options)

    def render(self, messages: Sequence[Mapping[str, Any]], add_generation_prompt: bool = True, **kwargs: Any) -> str:
        """The text of a conversation; ``kwargs`` (tools, enable_thinking, ...) are variables for the template.

        Raises RequestError when a message is wrong, too much, or refused by the template with words of its own, and
        ModelError when the template itself fails or does more than a template may.
        """
        checked = check_messages(messages, self.max_bytes)
        _check_value(kwargs, "template variables", 0)
        from openwork.text.budget import BUDGET, Budget

        variables = {
            "tools": None,
            "documents": None,
            **self.special_tokens,
            **kwargs,
            "messages": checked,
            "add_generation_prompt": add_generation_prompt,
            BUDGET: Budget(MAX_STEPS, WORK_PER_BYTE * self.max_bytes),
        }
        pieces: list[str] = []
        size = 0
        for piece in self._run(lambda: self._template.generate(variables)):
            size += len(piece)
            if size > self.max_bytes:
                break
            pieces.append(piece)
        text = "".join(pieces)
        if size > self.max_bytes or len(text.encode(errors="replace")) > self.max_bytes:
            raise RequestError(
                f"the conversation renders to more than {self.max_bytes} bytes",
                "Shorten it, or leave the oldest messages out.",
                param="messages",
            )
        return text

    @cached_property
    def _template(self) -> Any:
        from openwork.text.sandbox import SandboxEnvironment

        environment = SandboxEnvironment()
        environment.globals["strftime_now"] = self._strftime
        return environment.compile_bounded(self.source)

    def _run(self, generate: Callable[[], Any]) -> Any:
        """Yields what the template yields, with its errors turned into ours. Foreign code: it may raise anything."""
        from openwork.text.budget import TemplateLimit
        from openwork.text.sandbox import TemplateRefusal

        try:
            yield from generate()
        except TemplateRefusal as error:
            raise RequestError(f"the chat template refuses them: {error}", param="messages") from error
        except TemplateLimit as error:
            hint = "Shorten the conversation; if it is short, the template is faulty."
            raise ModelError(f"the chat template was stopped: {error}", hint, where=self.where) from error
        except Exception as error:
            line = getattr(error, "lineno", None)
            place = f"line {line}" if isinstance(line, int) else ""
            text = " ".join(str(error).split())[:500] or type(error).__name__
            hint = "The template is part of the checkpoint; a chat_template.jinja beside it takes its place."
            raise ModelError(f"the chat template failed: {text}", hint, where=self.where, field=place) from error

    def _strftime(self, form: str) -> str:
        # The C library honours widths such as %1000000d, so no digit may follow the percent sign.
        if not isinstance(form, str) or len(form) > 100 or any(part[:1].isdigit() for part in form.split("%")[1:]):
            raise ValueError("strftime_now needs a short format without widths")
        return time.strftime(form, self.now())


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
        raise RequestError(f"must be one of {', '.join(ROLES)}, not {role!r}", param=f"{path}.role")
    content = _check_content(message.get("content"), f"{path}.content")
    if content is None and not (role == "assistant" and message.get("tool_calls")):
        raise RequestError("is missing; it must be text or a list of text parts", param=f"{path}.content")
    others = {key: value for key, value in message.items() if key not in ("role", "content")}
    _check_value(others, path, 0)
    return {"role": role, "content": content, **others}


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
            kind = part.get("type") if isinstance(part, Mapping) else type(part).__name__
            raise RequestError(f'is {kind!r}; only {{"type": "text", "text": ...}} is supported', param=where)
        check_text(part.get("text"), f"{where}.text")
        texts.append(part["text"])
    return "\n".join(texts)


def _check_value(value: Any, path: str, depth: int) -> None:
    """Only plain data reaches a template: what JSON can say, to a bounded depth, without lone surrogates."""
    if isinstance(value, str):
        check_text(value, path)
    elif isinstance(value, (list, tuple, Mapping)):
        if depth >= MAX_DEPTH:
            raise RequestError(f"is nested more than {MAX_DEPTH} deep", param=path)
        for key, entry in value.items() if isinstance(value, Mapping) else enumerate(value):
            if isinstance(value, Mapping):
                check_text(key, path)
            _check_value(entry, f"{path}.{key}" if isinstance(value, Mapping) else f"{path}[{key}]", depth + 1)
    elif value is not None and not isinstance(value, (bool, int, float)):
        raise RequestError(f"must be plain data, not {type(value).__name__}", param=path)


def _size(value: Any) -> int:
    if isinstance(value, str):
        return len(value.encode())
    if isinstance(value, Mapping):
        return sum(_size(key) + _size(entry) for key, entry in value.items())
    return sum(map(_size, value)) if isinstance(value, (list, tuple)) else 8


def _named(entry: Any, name: str, where: str) -> str:
    """A template written as text, or chosen by name from a list of {"name", "template"}."""
    if isinstance(entry, str):
        return entry
    named: dict[str, str] = {}
    for item in entry if isinstance(entry, list) else []:
        if isinstance(item, Mapping) and isinstance(item.get("name"), str) and isinstance(item.get("template"), str):
            named[item["name"]] = item["template"]
    if not named:
        raise ModelError("must be text, or a list of named templates", "Repair the file.", where=where)
    if name in named:
        return named[name]
    if len(named) == 1:
        return next(iter(named.values()))
    raise ModelError(f"has no template named {name!r}", f"It has {', '.join(sorted(named))}.", where=where)


def _read_template(path: Path) -> str:
    size = path.stat().st_size
    if size > MAX_TEMPLATE_BYTES:
        hint = f"{MAX_TEMPLATE_BYTES} are allowed; this is no chat template."
        raise ModelError(f"has {size} bytes", hint, where=str(path))
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(f"cannot be read: {error}", "It must be text in UTF-8.", where=str(path)) from error
