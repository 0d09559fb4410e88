"""ChatTemplate: a conversation to the text, or the token ids, that a model was taught to continue.

The template is a Jinja program that came with the checkpoint, so it is run in a sandbox (sandbox.py) with bounds on
its size, its work and its output. Messages and tools are checked before it sees them (messages.py), and an error says
which message, or which file, is at fault. Special tokens are written in the text, so it is encoded without adding any;
those that a client wrote stay plain text (guard.py). Jinja is imported when the first conversation is rendered.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from openwork.core.errors import ModelError, PromptTooLong, RequestError
from openwork.text.guard import Guard
from openwork.text.messages import check_messages, check_tools, check_value
from openwork.text.tokenizer import Tokenizer, read_json

MAX_TEMPLATE_BYTES = 256 << 10
MAX_VARIABLES = 32
MAX_STEPS = 200_000
WORK_PER_BYTE = 32  # a rendering may build this many times its output limit on the way

# Variables that are ours to give; a client's would change what the others mean.
RESERVED = frozenset(("messages", "tools", "add_generation_prompt", "continue_final_message", "chat_template"))

Now = Callable[[], time.struct_time]


@dataclass(frozen=True, slots=True)
class ChatPrompt:
    """``text`` is what the token ids stand for."""

    text: str
    token_ids: list[int]


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

    def prompt(
        self,
        tokenizer: Tokenizer,
        messages: Sequence[Mapping[str, Any]],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        variables: Mapping[str, Any] | None = None,
        opening: str = "",
        max_bytes: int | None = None,
    ) -> ChatPrompt:
        """The token ids of a conversation that a client wrote.

        continue_final_message  the answer goes on within the last message, which is the assistant's
        variables               more for the template, of those that it reads (enable_thinking, ...)
        opening                 what the answer is made to begin with
        max_bytes               of the text; more cannot fit the context window

        Raises as ``render`` does, PromptTooLong for a longer text, and RequestError for tools or variables that are
        wrong or that the template does not read.
        """
        checked = check_messages(messages, self.max_bytes)
        shown = None if tools is None else check_tools(tools)
        if shown is not None and "tools" not in self.variables:
            raise RequestError("are not known to this model's chat template", "Leave them out.", param="tools")
        given = self._check_variables(variables or {})
        guard = Guard(tokenizer.special_texts, checked, shown, given)
        checked = guard.protect(checked)
        if continue_final_message:
            checked[-1] = _open_ended(checked[-1], guard.end, add_generation_prompt)
        text = self._render(checked, add_generation_prompt, {**guard.protect(given), "tools": guard.protect(shown)})
        if continue_final_message:
            text, end, _ = text.rpartition(guard.end)
            if not end:
                raise RequestError("has a last message that the chat template does not show", param="messages")
        text += opening
        if max_bytes is not None and len(text.encode(errors="replace")) > max_bytes:
            raise PromptTooLong(f"the conversation has more than {max_bytes} bytes", "Shorten it.", param="messages")
        ids = [token for part in guard.parts(text) for token in tokenizer.encode(part, add_special=False)]
        return ChatPrompt("".join(guard.parts(text)), ids)

    def render(self, messages: Sequence[Mapping[str, Any]], add_generation_prompt: bool = True, **kwargs: Any) -> str:
        """The text of a conversation; ``kwargs`` (tools, enable_thinking, ...) are variables for the template.

        Raises RequestError when a message is wrong, too much, or refused by the template with words of its own, and
        ModelError when the template itself fails or does more than a template may.
        """
        check_value(kwargs, "template variables")
        return self._render(check_messages(messages, self.max_bytes), add_generation_prompt, kwargs)

    def _render(self, messages: list[dict[str, Any]], add_generation_prompt: bool, given: Mapping[str, Any]) -> str:
        from openwork.text.budget import BUDGET, Budget

        variables = {
            "tools": None,
            "documents": None,
            **self.special_tokens,
            **given,
            "messages": messages,
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
    def variables(self) -> frozenset[str]:
        """The variables that the template reads, its special tokens left out."""
        from jinja2 import TemplateError, meta

        from openwork.text.sandbox import SandboxEnvironment

        try:
            names = meta.find_undeclared_variables(SandboxEnvironment().parse(self.source))
        except (TemplateError, RecursionError):
            return frozenset()  # rendering it will say what is wrong
        return frozenset(names - self.special_tokens.keys())

    def _check_variables(self, given: Mapping[str, Any]) -> Mapping[str, Any]:
        param = "chat_template_kwargs"
        if not isinstance(given, Mapping) or len(given) > MAX_VARIABLES:
            raise RequestError(f"must be an object of at most {MAX_VARIABLES} entries", param=param)
        check_value(given, param)
        known = sorted(self.variables - RESERVED)
        for name in given:
            if name not in known:
                told = f"It reads {', '.join(known)}." if known else "It reads none."
                raise RequestError(f"{name[:80]!r} is no variable of this chat template", told, param=param)
        return given

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


def _open_ended(message: Mapping[str, Any], end: str, add_generation_prompt: bool) -> dict[str, Any]:
    """The last message, with a character behind it at which the rendered text is cut."""
    param = "continue_final_message"
    if add_generation_prompt:
        raise RequestError("does not go together with add_generation_prompt", param=param)
    if message["role"] != "assistant" or not message["content"]:
        raise RequestError("needs text of the assistant as the last message", param=param)
    return {**message, "content": message["content"] + end}


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
