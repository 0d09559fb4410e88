"""The tree of a search as lines of text: what was looked at, what was found, and what was left with which bound."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from openwork.cli.records import token_text

if TYPE_CHECKING:
    from openwork.core.output import Traced
    from openwork.text.tokenizer import Tokenizer

MOST_CHILDREN = 6
NOTES = {"expanded": "", "open": "at most, not looked at", "rest": "at most, all others", "found": "found"}


def drawn(trace: Sequence[Traced], tokenizer: Tokenizer | None) -> str:
    """One line a place: its tokens, and the log-probability of the line so far.

    A place that was not looked at shows what anything behind it can have at most.
    """
    children: list[list[int]] = [[] for _ in trace]
    for place, each in enumerate(trace):
        if each.parent is not None:
            children[each.parent].append(place)
    rows: list[tuple[str, str]] = []

    def visit(place: int, lead: str, own: str) -> None:
        each = trace[place]
        rows.append((lead + own + _shown(each, tokenizer), f"{each.logprob:9.3f}  {NOTES[each.state]}".rstrip()))
        inner = lead + ("" if not own else "│  " if own == "├─ " else "   ")
        best = sorted(children[place], key=lambda child: (-trace[child].bound, child))
        shown = best[:MOST_CHILDREN]
        for child in shown:
            is_last = child == shown[-1] and len(shown) == len(best)
            visit(child, inner, "└─ " if is_last else "├─ ")
        if len(shown) < len(best):
            rows.append((f"{inner}└─ ... {len(best) - len(shown)} more", ""))

    if trace:
        visit(0, "", "")
    width = max((len(left) for left, _ in rows), default=0)
    return "".join(f"{left.ljust(width)}  {right}".rstrip() + "\n" for left, right in rows)


def _shown(each: Traced, tokenizer: Tokenizer | None) -> str:
    if each.parent is None:
        return "(prompt)"
    if each.state == "rest":
        return "(others)"
    if not each.tokens:
        return "(end)"
    texts = [token_text(token, tokenizer) for token in each.tokens]
    whole = "".join(text for text in texts if text is not None)
    return repr(whole) if None not in texts else ",".join(map(str, each.tokens))
