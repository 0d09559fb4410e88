"""Form: what one reply has to be, put together from its format, its tools and the way its model writes.

    a format                  reasoning, where the model does that, then the format
    tool_choice, forced       reasoning, then calls; or calls alone where their mark cannot be a part of a grammar
    strict tools              any text, and what is called in it follows its schema
    a format and tools        reasoning, then calls or the format

It guarantees that what cannot be made certain is refused, and names the field. Grammars are made in text/call_grammar.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from openwork.core.constraint import Constraint
from openwork.core.errors import RequestError
from openwork.serve.bounds import Bounds
from openwork.serve.constraints import Wanted, refused_at
from openwork.serve.conversation import Conversation, prompt_of
from openwork.serve.errors import bad_request, from_exception
from openwork.serve.texts import Texts, need_tokenizer
from openwork.text.call_grammar import CallGrammar, Tool
from openwork.text.chat import ChatPrompt
from openwork.text.dialect import Dialect, ToolFormat
from openwork.text.tokenizer import Tokenizer

_ANYTHING: Mapping[str, Any] = {"type": "object"}


@dataclass(frozen=True, slots=True)
class Tools:
    """The tools that may be called, how much the client asks of them, and the schemas that calls must follow."""

    known: Sequence[Tool] = ()
    is_forced: bool = False
    is_strict: bool = False  # at least one of them
    is_parallel: bool = True

    @staticmethod
    def read(given: Sequence[Any], path: str, choice: str | None, named: str | None, is_parallel: bool) -> Tools:
        """``given`` have name, parameters and strict; ``path`` leads from one of them to its parameters.

        Raises ApiError 400 for a choice that cannot be made.
        """
        if (choice not in (None, "none") or named is not None) and not given:
            raise bad_request("tool_choice needs tools.", "tool_choice")
        if choice == "none":
            return Tools()
        is_forced = choice == "required" or named is not None
        known = [
            Tool(each.name, each.parameters if is_forced or each.strict else _ANYTHING, f"tools[{place}].{path}")
            for place, each in enumerate(given)
            if named in (None, each.name)
        ]
        if given and not known:
            raise bad_request(f"tool_choice names {named!r}, which is none of the tools.", "tool_choice")
        is_strict = any(each.strict for each in given)
        return Tools(known, is_forced, is_strict, is_parallel and named is None)


@dataclass(frozen=True, slots=True)
class Form:
    """What a reply has to be.

    opening  what it is made to begin with
    is_free  it may be any text too, so that reasoning needs no room of its own
    blame    the parts of the constraint, with the fields they came in
    """

    wanted: Wanted | None
    opening: str = ""
    is_free: bool = False
    blame: Sequence[Wanted] = field(default=())

    def after(self, prompt: str, dialect: Dialect, tokenizer: Tokenizer) -> Constraint | None:
        """The constraint, with room for the reasoning that a reply in this dialect begins with.

        ``prompt`` is the text that the template made, without the opening. Raises ApiError 400 where reasoning has
        begun and could not end.
        """
        if self.wanted is None or dialect.span is None:
            return None if self.wanted is None else self.wanted.constraint
        constraint, param, span = self.wanted.constraint, self.wanted.param, dialect.span
        is_open = span.is_open_after(prompt)
        marks = (span.end,) if is_open else (span.start, span.end)
        has_room = not self.opening and not any(_special_id(mark, tokenizer) is not None for mark in marks)
        if is_open and not has_room:
            raise bad_request(
                f"{param} cannot be followed here: this model begins with reasoning, and its marks, or those of its "
                "calls, are special tokens, which no grammar has. Let the template leave reasoning out.",
                param,
                "unsupported_parameter",
            )
        if self.is_free or not has_room:
            return constraint
        return replace(constraint, before=("" if is_open else span.start, span.end))

    async def check(self, texts: Texts, constraint: Constraint | None) -> None:
        """Try what ``after`` made of it. Raises ApiError: 400 naming the field, 503 when nobody can say now."""
        if self.wanted is None or constraint is None:
            return
        try:
            await texts.try_out(constraint)
        except RequestError as error:
            for part in self.blame:
                try:
                    await texts.try_out(part.constraint)
                except RequestError as own:
                    raise refused_at(own, part.param) from None
            raise refused_at(error, self.wanted.param) from None


@dataclass(frozen=True, slots=True)
class Begun:
    """A reply that can be begun. ``names`` are the client's for what we call otherwise."""

    prompt: ChatPrompt
    tokenizer: Tokenizer
    dialect: Dialect
    constraint: Constraint | None
    opening: str
    names: Mapping[str, str]


def form_of(wanted: Wanted | None, tools: Tools, dialect: Dialect, tokenizer: Tokenizer) -> Form:
    """What a reply has to be. Raises ApiError 400, naming the field."""
    if not tools.known or not (tools.is_forced or tools.is_strict or wanted is not None):
        return Form(wanted)
    if wanted is not None and (tools.is_forced or wanted.constraint.kind != "json_schema"):
        what = "a tool_choice that forces a call" if tools.is_forced else "tools"
        raise bad_request(f"{wanted.param} cannot be given together with {what}.", wanted.param)
    try:
        return _with_calls(wanted, tools, dialect, tokenizer)
    except RequestError as error:
        raise refused_at(error, error.param if error.param.startswith("tools") else "tools") from None


async def begin_reply(
    conversation: Conversation, wanted: Wanted | None, tools: Tools, texts: Texts, bounds: Bounds
) -> Begun:
    """A conversation up to where its reply begins, and what the reply has to be. Raises ApiError, naming the field."""
    language = await texts.language()
    tokenizer = need_tokenizer(language, conversation.param)
    dialect = replace(language.dialect, tools=_form_of_calls(language.dialect) if conversation.tools else None)
    form = form_of(wanted, tools, dialect, tokenizer)
    prompt = await prompt_of(replace(conversation, opening=form.opening), texts, bounds)
    constraint = form.after(prompt.text.removesuffix(form.opening), dialect, tokenizer)
    await form.check(texts, constraint)
    names = {} if form.wanted is None else {"constraint": form.wanted.param}
    return Begun(prompt, tokenizer, dialect, constraint, form.opening, names)


def _form_of_calls(dialect: Dialect) -> ToolFormat:
    """Raises ApiError 400 for tools with a model whose calls cannot be read."""
    try:
        return dialect.need_tools()
    except RequestError as error:
        raise from_exception(error) from None


def _with_calls(wanted: Wanted | None, tools: Tools, dialect: Dialect, tokenizer: Tokenizer) -> Form:
    grammar = CallGrammar(
        _form_of_calls(dialect), tools.known, lambda mark: _special_id(mark, tokenizer), tools.is_parallel
    )
    blame = [Wanted(_bounded(tool), tool.param) for tool in tools.known]
    if tools.is_forced:
        return Form(Wanted(grammar.forced(), "tool_choice"), grammar.opening, blame=blame)
    if wanted is not None:
        schema = json.loads(wanted.constraint.source)
        made = grammar.free(answer={} if schema is True else schema)
        return Form(Wanted(made, wanted.param), blame=[wanted, *blame])
    made = grammar.free(dialect.span)
    return Form(Wanted(made, "tools"), is_free=grammar.form.is_anywhere, blame=blame)


def _bounded(tool: Tool) -> Constraint:
    """The schema of a tool's arguments, within the bounds of all schemas. Raises RequestError."""
    try:
        return Constraint.json_schema(tool.schema)
    except RequestError as error:
        words = error.message.removeprefix(f"{error.param}: ")
        raise RequestError(words, error.hint, param=tool.param) from None


def _special_id(mark: str, tokenizer: Tokenizer) -> int | None:
    token = tokenizer.token_id(mark) if mark else None
    return token if token is not None and tokenizer.is_special(token) else None
