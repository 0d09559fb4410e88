"""Dialect: how one model writes tool calls and reasoning, told from its chat template or by the operator.

Models agree on nothing here, and nothing in a checkpoint names the form; but the template, which shows the model its
own earlier calls, must contain the marks. A form that is not known is said to be unknown, so that tools are refused and
not ignored. Whoever reads replies is in reply.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeVar

from openwork.core.errors import OpenworkError, RequestError
from openwork.text.tokenizer import Tokenizer

AUTO = "auto"
NONE = "none"

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ToolFormat:
    """One form of tool calls.

    marks        texts that open calls; is_anywhere: in the middle of a reply too, not only at its start
    bare         the character that opens calls at the start of a reply without a mark, or None
    end          the mark that closes a call, or ""
    notation     "json": an object, "list": a list of them or name and object, "pythonic": [f(a=1)]
    id_length    characters in the id of a call; None: as many as we like
    """

    name: str
    notation: Literal["json", "list", "pythonic"]
    marks: tuple[str, ...] = ()
    is_anywhere: bool = False
    bare: str | None = None
    end: str = ""
    key: str = "arguments"
    id_length: int | None = None


@dataclass(frozen=True, slots=True)
class Span:
    """The marks around reasoning."""

    name: str
    start: str
    end: str

    def is_open_after(self, prompt: str) -> bool:
        """Whether the template has begun the reasoning already."""
        return prompt.rstrip().endswith(self.start)


HERMES = ToolFormat("hermes", "json", ("<tool_call>",), is_anywhere=True, end="</tool_call>")
LLAMA = ToolFormat("llama", "json", ("<|python_tag|>",), bare="{", key="parameters")
MISTRAL = ToolFormat("mistral", "list", ("[TOOL_CALLS]",), is_anywhere=True, id_length=9)
PYTHONIC = ToolFormat("pythonic", "pythonic", ("<|python_start|>",), bare="[", end="<|python_end|>")
TOOL_FORMATS = {form.name: form for form in (HERMES, LLAMA, MISTRAL, PYTHONIC)}

THINK = Span("think", "<think>", "</think>")
SPANS = {span.name: span for span in (THINK, Span("bracket-think", "[THINK]", "[/THINK]"))}

# Forms that use the mark of another with something else behind it.
_OTHERS = ("<function=", "<arg_key>", "<|tool_calls_section_begin|>", "tool\u2581call\u2581begin")


@dataclass(frozen=True, slots=True)
class Dialect:
    """``tools`` is None where the form of calls is not known, ``span`` where the model does not mark reasoning."""

    tools: ToolFormat | None = None
    span: Span | None = None

    @staticmethod
    def find(template: str, tools: str = AUTO, reasoning: str = AUTO) -> Dialect:
        """The dialect of a model with this chat template; what the operator names goes before what is found.

        Raises OpenworkError for a name that is none.
        """
        return Dialect(
            _find_tools(template) if tools == AUTO else _named(tools, TOOL_FORMATS, "form of tool calls"),
            _find_span(template) if reasoning == AUTO else _named(reasoning, SPANS, "form of reasoning"),
        )

    def need_tools(self) -> ToolFormat:
        """Raises RequestError where the form of calls is not known."""
        if self.tools is None:
            raise RequestError(
                "this model has no known form of tool calls",
                "Leave tools out, or let the operator name the form.",
                param="tools",
            )
        return self.tools

    def shown_ids(self, tokenizer: Tokenizer) -> frozenset[int]:
        """The special tokens that are marks: a reply is to be read with them in its text."""
        marks: list[str] = []
        if self.tools is not None:
            marks += [*self.tools.marks, self.tools.end, "[ARGS]"]
        if self.span is not None:
            marks += [self.span.start, self.span.end]
        ids = {tokenizer.token_id(mark) for mark in marks if mark}
        return frozenset(token for token in ids if token is not None and tokenizer.is_special(token))


def _find_tools(template: str) -> ToolFormat | None:
    if "tools" not in template or any(other in template for other in _OTHERS):
        return None
    if "<tool_call>" in template:
        return HERMES
    if "[TOOL_CALLS]" in template:
        return MISTRAL
    plain = template.replace('\\"', '"')
    if "[func_name1(" in plain or "<|python_start|>" in plain:
        return PYTHONIC
    if '"parameters": ' in plain and '"name": ' in plain:
        return LLAMA
    return None


def _find_span(template: str) -> Span | None:
    return next((span for span in SPANS.values() if span.end in template), None)


def _named(name: str, known: Mapping[str, T], what: str) -> T | None:
    if name == NONE:
        return None
    if name not in known:
        raise OpenworkError(f"there is no {what} named {name!r}", f"Choose one of {', '.join((AUTO, NONE, *known))}.")
    return known[name]
