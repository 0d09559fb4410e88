"""CallGrammar: replies that call tools as their schemas say, as a grammar in the notation that a model uses.

    forced    the reply is one call, or several, and nothing else
    free      it may be any text, and what is called in it is called right; or an answer of a schema in place of calls

The arguments of a call are a JSON document of the tool's schema, or, where models write calls as Python does, keyword
arguments in the order of its properties. A mark that is a special token is named in the grammar, as no text holds it; a
forced reply is made to begin with it (``opening``). Replies are read in reply.py.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from openwork.core.constraint import Constraint
from openwork.core.errors import RequestError
from openwork.text.dialect import Span, ToolFormat
from openwork.text.grammar import DIALECT, as_lark, as_mark, json_as_lark

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
    """``special_id`` says of a mark which special token of the model it is; None: none, but text."""

    form: ToolFormat
    tools: Sequence[Tool]
    special_id: Callable[[str], int | None]
    is_parallel: bool = True

    @property
    def opening(self) -> str:
        """What a forced reply is made to begin with, in place of the grammar."""
        mark = self.form.marks[0] if self.form.is_anywhere else ""
        return mark if mark and self.special_id(mark) is not None else ""

    def forced(self) -> Constraint:
        """Of what follows the opening. Raises RequestError, its param the tool's, for what cannot be put in words."""
        begin = [] if self.opening or not self.form.is_anywhere else [self.form.marks[0]]
        return self._made([f"start: {self._calls(begin)}", *self._rules()])

    def free(self, span: Span | None = None, answer: Mapping[str, Any] | None = None) -> Constraint:
        """Calls, or an ``answer`` of a schema; where that is None, any text with calls in it.

        Where calls have no mark they are the whole reply, and ``span`` is reasoning that the reply may begin with.
        Raises RequestError.
        """
        mark = self.form.marks[0] if self.form.is_anywhere else ""
        rules = self._rules()
        if answer is not None:
            if self.form.notation == "json" and not mark:
                raise RequestError(
                    "cannot be given beside a format of the answer: with this model, calls are JSON without a mark",
                    'Make tool_choice "required" or "none".',
                    param="tools",
                )
            begin = [mark] if mark else []
            return self._made([f"start: {self._calls(begin)} | {json_as_lark(answer)}", *rules])
        if mark:
            # Nor may text spell the mark, which would be read as if it were one.
            text = f"TEXT: /(.|\\n)+/ & ~/(.|\\n)*{_pattern(mark)}(.|\\n)*/"
            often = "*" if self.is_parallel else "?"
            if self.opening:
                return self._made([f"start: (TEXT? {self._call([mark])}){often} TEXT?", text, *rules])
            free = f"free[suffix={as_lark(mark)}]: /(.|\\n)*/"
            return self._made([f"start: (free {self._call([])}){often} TEXT?", free, text, *rules])
        begins = "\\[" if self.form.notation == "pythonic" else "\\{"
        unlike = "" if span is None else f" & ~/{_pattern(span.start)}(.|\\n)*/"
        text = f"TEXT: /([^{begins} \\n\\t\\r](.|\\n)*)?/{unlike}"
        return self._made([f"start: {self._calls([])} | TEXT", text, *rules])

    # -- the form ----------------------------------------------------------------------------------------------------

    @property
    def _marks(self) -> dict[str, int]:
        """The special tokens that the grammar may name, in their order."""
        ids = {mark: self.special_id(mark) for mark in (*self.form.marks[:1], self.form.end) if mark}
        return {mark: token for mark, token in ids.items() if token is not None}

    def _made(self, lines: Sequence[str]) -> Constraint:
        return Constraint.lark("\n".join(lines), self._marks.values())

    def _words(self, *texts: str) -> str:
        """Texts one after the other; those that are special tokens by name."""
        marks, words, plain = list(self._marks), list[str](), ""
        for text in texts:
            if text in marks:
                words += [as_lark(plain)] if plain else []
                words.append(as_mark(marks.index(text)))
                plain = ""
            else:
                plain += text
        return " ".join([*words, as_lark(plain)] if plain else words)

    def _calls(self, begin: Sequence[str]) -> str:
        """One call, or as many as may follow one another; ``begin`` is the mark, unless it has been written."""
        if self.form.notation in ("list", "pythonic"):
            open_ = self._words(*begin, " [" if self.form.notation == "list" else "[")
            more = f"({as_lark(', ')} call)*" if self.is_parallel else ""
            return f"{open_} call {more} {as_lark(']')}"
        first = self._call(begin)
        if not self.is_parallel or (self.form.is_anywhere and not (begin and self.form.end)):
            return first
        return f"{first} ({as_lark(chr(10) if begin else '; ')} {first})*"

    def _call(self, begin: Sequence[str]) -> str:
        """A call by itself, with the marks around it."""
        if self.form.notation == "list":
            return self._calls(begin)
        if not self.form.is_anywhere:
            return "call"
        end = self._words("\n", self.form.end) if self.form.end else ""
        return f"{self._words(*begin, chr(10))} call {end}"

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
