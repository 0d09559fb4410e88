"""Grammar: a constraint in the form that llguidance compiles, and what its words mean for people.

    json_schema   between tokens of JSON stands nothing, a space, or a line break with an indentation of at most 32: a
                  model that likes white space could go on with it for ever
    regex         the whole text matches
    choice        one of the texts, exactly
    lark          as it is, except that no special token can be named but by <mark0>, <mark1>, ..., of those given

What may come before it (a model's reasoning) is any text up to its end mark, and a little white space.

Compiling may take any time and memory: it is first done in a process that may die (text/trial.py). What is compiled
costs bounded time and memory a token; a text that would cost more ends with an error. It knows no vocabulary.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from llguidance import LLMatcher, LLParserLimits, LLTokenizer

from openwork.core.constraint import Constraint
from openwork.core.errors import RequestError

if TYPE_CHECKING:
    from llguidance._lib import JsonCompileOptions

# A state of the lexer takes up to 2 kB, so that one grammar's lexer never takes more than 50 MB. With ten times as much
# fuel for its beginning, one pattern of a few characters took 8 seconds and 120 MB that were not given back.
LIMITS = LLParserLimits(
    max_lexer_states=25_000, max_grammar_size=200_000, initial_lexer_fuel=100_000, verbose_errors=False
)
_JSON: JsonCompileOptions = {
    "whitespace_pattern": r" |\r?\n[ \t]{0,32}",
    "item_separator": ",",
    "key_separator": ":",
    "coerce_one_of": False,
    "lenient": False,
}
DIALECT = "x-guidance"  # would let a schema change how it is read
_UNIMPLEMENTED = re.compile(r"Unimplemented keys: (\[.*\])")
_QUOTED = r'"(?:[^"\\\n]|\\.)*"|/(?:[^/\\\n]|\\.)+/|(?://|#)[^\n]*'
_SPECIAL = re.compile(rf"{_QUOTED}|(?P<name><[^<>\s]*>)")  # how Lark's dialect names one, outside of texts and patterns
_LONGEST = 300  # characters of a reason


def compile_constraint(vocabulary: LLTokenizer, constraint: Constraint) -> LLMatcher:
    """The beginning of a text under a constraint. Raises RequestError, its param the kind, when there is none."""
    matcher = LLMatcher(vocabulary, _source(constraint), log_level=0, limits=LIMITS)
    if not matcher.is_error():
        matcher.compute_bitmask()  # finds what no text at all can satisfy
        if matcher.is_stopped() and not matcher.is_accepting():
            raise RequestError("nothing satisfies it", param=constraint.kind)
    if matcher.is_error():
        raise _refusal(constraint, matcher.get_error())
    return matcher


def _source(constraint: Constraint) -> str:
    answer = _answer(constraint)
    if constraint.before is None:
        return json.dumps({"grammars": [answer]})
    begin, end = map(json.dumps, constraint.before)
    first = f"({begin} rest SPACE)?" if constraint.before[0] else "rest SPACE"
    reply = f"start: {first} @answer\nrest[suffix={end}]: /(.|\\n)*/\nSPACE: /[ \\n]{{0,4}}/\n"
    return json.dumps({"grammars": [{"name": "reply", "lark_grammar": reply}, {**answer, "name": "answer"}]})


def _answer(constraint: Constraint) -> dict[str, Any]:
    """Without what may come before it."""
    match constraint.kind:
        case "json_schema":
            schema = json.loads(constraint.source)
            if schema is True:
                schema = {}
            if DIALECT in schema:
                raise _unsupported(constraint, [DIALECT])
            return {"json_schema": schema | {DIALECT: _JSON}}
        case "regex":
            lark: str = json.loads(LLMatcher.grammar_from_regex(constraint.source))["grammars"][0]["lark_grammar"]
            return {"lark_grammar": lark}
        case "choice":
            return {"lark_grammar": "start: " + " | ".join(map(as_lark, json.loads(constraint.source)))}
        case "lark":
            return {"lark_grammar": _SPECIAL.sub(partial(_as_special, constraint.special_ids), constraint.source)}


def as_mark(place: int) -> str:
    """A special token in a grammar, by its place among those that are given."""
    return f"<mark{place}>"


def _as_special(ids: Sequence[int], found: re.Match[str]) -> str:
    name = found["name"]
    if name is None:
        return found[0]
    place = next((place for place in range(len(ids)) if name == as_mark(place)), None)
    if place is None:
        raise RequestError(
            f"names {name[:40]!r}: special tokens are not supported in grammars",
            "Write what is meant as text, in quotes.",
            param="lark",
        )
    return f"<[{ids[place]}]>"


def as_lark(text: str) -> str:
    """A text in a grammar: as JSON writes it, except that DEL must be escaped too."""
    return json.dumps(text).replace("\x7f", "\\u007f")


def json_as_lark(schema: Mapping[str, Any]) -> str:
    """JSON of a schema in a grammar, with the white space that every JSON has here."""
    return "%json " + json.dumps({**schema, DIALECT: _JSON})


def _refusal(constraint: Constraint, reason: str) -> RequestError:
    unimplemented = _UNIMPLEMENTED.search(reason)
    if unimplemented is not None and constraint.kind == "json_schema":
        return _unsupported(constraint, json.loads(unimplemented[1]))
    words = " ".join(reason.replace("<non-verbose/>", "").split())
    if constraint.kind == "regex":  # without our line of Lark around it
        words = words.split(" error: ")[-1].split(" 1 | start:")[0]
    short = words if len(words) <= _LONGEST else words[:_LONGEST] + "..."
    return RequestError(f"cannot be used: {short}", param=constraint.kind)


def _unsupported(constraint: Constraint, keywords: list[str]) -> RequestError:
    shown = ", ".join(json.dumps(keyword)[:80] for keyword in keywords[:8])
    return RequestError(
        f"uses what is not supported: {shown}",
        "docs/constraints.md lists what is; leave it out, or say it in other words.",
        param=constraint.kind,
    )
