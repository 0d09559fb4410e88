"""CallGrammar: replies that call tools as their schemas say, as a grammar in the notation that a model uses.

    forced    the reply is one call, or several, and nothing else
    free      it may be any text, and what is called in it is called right; or an answer of a schema in place of calls

The arguments of a call are a JSON document of the tool's schema, or, where models write calls as Python does, keyword
arguments in the order of its properties. A mark that is a special token cannot be part of a grammar (grammar.py): a
forced reply is made to begin with it (``opening``), a free one cannot be offered. Replies are read in reply.py.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from openwork.core.constraint import Constraint
from openwork.core.errors import RequestError
from openwork.text.dialect import Span, ToolFormat
from openwork.text.grammar import DIALECT, as_lark, json_as_lark

_NOTHING: Mapping[str, Any] = {"type": "object", "properties": {}, "additionalProperties": False}
_DEFINITIONS = ("$defs", "definitions")
# What a schema may say of arguments that are written one by one.
_PLAIN = {"type", "properties", "required", "additionalProperties", *_DEFINITIONS}
_SAYS_NOTHING = {"title", "description", "$schema", "$id", "$comment", "default", "examples"}
_ARGUMENT_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")


@dataclass(frozen=True, slots=True)
class Tool:
    """``parameters`` None: it takes nothing. ``param`` is where the schema stood, for whoever is told of it."""

    name: str
    parameters: Mapping[str, Any] | None
    param: str = "tools"

    @property
    def schema(self) -> Mapping[str, Any]:
        """Of its arguments, which are an object. Raises RequestError for another kind of value."""
        schema = _NOTHING if self.parameters is None else self.parameters
        if schema.get("type", "object") != "object":
            raise RequestError('must be of type "object"', "Arguments are one.", param=self.param)
        if DIALECT in schema:
            raise RequestError(f"uses what is not supported: {DIALECT}", param=self.param)
        return {"type": "object", **schema}


@dataclass(frozen=True, slots=True)
class CallGrammar:
    """``is_special`` says of a mark whether it is a special token of the model."""

    form: ToolFormat
    tools: Sequence[Tool]
    is_special: Callable[[str], bool]
    is_parallel: bool = True

    @property
    def opening(self) -> str:
        """What a forced reply is made to begin with, in place of the grammar."""
        mark = self.form.marks[0] if self.form.is_anywhere else ""
        return mark if mark and self.is_special(mark) else ""

    def forced(self) -> Constraint:
        """Of what follows the opening. Raises RequestError, its param the tool's, for what cannot be put in words."""
        mark = "" if self.opening or not self.form.is_anywhere else self.form.marks[0]
        return Constraint.lark("\n".join([f"start: {self._calls(mark)}", *self._rules()]))

    def free(self, span: Span | None = None, answer: Mapping[str, Any] | None = None) -> Constraint:
        """Calls, or an ``answer`` of a schema; where that is None, any text with calls in it.

        Where calls have no mark they are the whole reply, and ``span`` is reasoning that the reply may begin with.
        Raises RequestError.
        """
        if self.opening:
            raise RequestError(
                "cannot be made to follow a schema while the model may choose not to call: the mark of its calls is a "
                "special token",
                'Make tool_choice "required", or leave strict and response_format out.',
                param="tools",
            )
        mark = self.form.marks[0] if self.form.is_anywhere else ""
        rules = self._rules()
        if answer is not None:
            if self.form.notation == "json" and not mark:
                raise RequestError(
                    "cannot be given beside a format of the answer: with this model, calls are JSON without a mark",
                    'Make tool_choice "required" or "none".',
                    param="tools",
                )
            return Constraint.lark("\n".join([f"start: {self._calls(mark)} | {json_as_lark(answer)}", *rules]))
        if mark:
            without = f"~/(.|\\n)*{_pattern(mark)}(.|\\n)*/"
            first = f"start: (free {self._call('')}){'*' if self.is_parallel else '?'} TEXT?"
            free = f"free[suffix={as_lark(mark)}]: /(.|\\n)*/"
            return Constraint.lark("\n".join([first, free, f"TEXT: /(.|\\n)+/ & {without}", *rules]))
        begins = "\\[" if self.form.notation == "pythonic" else "\\{"
        unlike = "" if span is None else f" & ~/{_pattern(span.start)}(.|\\n)*/"
        text = f"TEXT: /([^{begins} \\n\\t\\r](.|\\n)*)?/{unlike}"
        return Constraint.lark("\n".join([f"start: {self._calls('')} | TEXT", text, *rules]))

    # -- the form ----------------------------------------------------------------------------------------------------

    def _calls(self, mark: str) -> str:
        """One call, or as many as may follow one another."""
        if self.form.notation in ("list", "pythonic"):
            open_, close = (f"{mark} [", "]") if self.form.notation == "list" else ("[", "]")
            more = f"({as_lark(', ')} call)*" if self.is_parallel else ""
            return f"{as_lark(open_)} call {more} {as_lark(close)}"
        first = self._call(mark)
        if not self.is_parallel or (self.form.is_anywhere and not (mark and self._end)):
            return first
        return f"{first} ({as_lark(chr(10) if mark else '; ')} {first})*"

    def _call(self, mark: str) -> str:
        """A call by itself, with the marks around it."""
        if self.form.notation == "list":
            return self._calls("")
        begin = as_lark(mark + "\n") if self.form.is_anywhere else ""
        return f"{begin} call {as_lark(chr(10) + self._end) if self._end else ''}"

    @property
    def _end(self) -> str:
        end = self.form.end if self.form.is_anywhere else ""
        return "" if self.is_special(end) else end

    def _rules(self) -> list[str]:
        """``call`` and all below it."""
        names = " | ".join(f"tool{place}" for place in range(len(self.tools)))
        if self.form.notation == "pythonic":
            rules = [f"call: {names}"]
            for place, tool in enumerate(self.tools):
                rules.append(f"tool{place}: {as_lark(tool.name + '(')} args{place}x0 {as_lark(')')}")
                rules += _keyword_rules(tool, f"args{place}x")
            return rules
        begin, end = as_lark('{"name": "'), as_lark("}")
        rules = [f"call: {begin} ({names}) {end}"]
        for place, tool in enumerate(self.tools):
            key = as_lark(f'{tool.name}", "{self.form.key}": ')
            rules.append(f"tool{place}: {key} {json_as_lark(tool.schema)}")
        return rules


def _pattern(mark: str) -> str:
    """A mark in a regular expression."""
    return re.sub(r"([\\.^$*+?()\[\]{}|/&~-])", r"\\\1", mark)


def _keyword_rules(tool: Tool, name: str) -> list[str]:
    """name=value, ... of the properties in their order; rule ``<name>0`` is all of them.

    Of each property on there are two rules: with nothing before it, and behind a comma.
    """
    schema = tool.schema
    for key in schema:
        if key not in _PLAIN | _SAYS_NOTHING:
            raise RequestError(
                f"uses {key[:80]!r}, which cannot be followed in the form in which this model writes calls",
                "Describe the arguments by properties alone.",
                param=tool.param,
            )
    properties, required = schema.get("properties", {}), schema.get("required", [])
    if not isinstance(properties, dict) or not isinstance(required, list):
        raise RequestError("has properties or required of the wrong type", param=tool.param)
    shared = {key: schema[key] for key in _DEFINITIONS if key in schema}
    rules: list[str] = []
    for place, (key, own) in enumerate(properties.items()):
        if not _ARGUMENT_NAME.fullmatch(key):
            raise RequestError(f"has a property {key[:80]!r}, which is no name of an argument", param=tool.param)
        if own is False or not isinstance(own, dict | bool):
            raise RequestError(f"has a property {key[:80]!r} that is no schema", param=tool.param)
        value = json_as_lark({**shared, **(own if isinstance(own, dict) else {})})
        rules.append(f"{name}v{place}: {as_lark(key + '=')} {value}")
        skipped = "" if key in required else " | {}"
        rules.append(f"{name}{place}: {name}v{place} {name}c{place + 1}" + skipped.format(f"{name}{place + 1}"))
        rules.append(
            f"{name}c{place}: {as_lark(', ')} {name}v{place} {name}c{place + 1}" + skipped.format(f"{name}c{place + 1}")
        )
    last = len(properties)
    return [*rules, f'{name}{last}: ""', f'{name}c{last}: ""']
