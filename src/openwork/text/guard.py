"""Guard: names of special tokens that stand in what a client wrote stay plain text.

A tokenizer reads "<|im_end|>" as the special token wherever it stands, so a client could end its own turn and speak as
somebody else. The guard puts a mark inside each such name before the template sees it; afterwards the rendered text is
cut at the marks, and no part holds the name. The mark is a Unicode noncharacter that the client did not write, so
conversations without such names are rendered and encoded exactly as they always were.

Its limits: what a template puts together of pieces ('<|' ~ name ~ '|>') or takes out of the middle of a text is the
template's own doing; and a tokenizer that begins every text with a space begins each part with one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import lru_cache
from typing import Any

from openwork.core.errors import RequestError

NONCHARACTERS = tuple(map(chr, range(0xFDD0, 0xFDF0)))  # Unicode 15, section 23.7: for a program's own use


class Guard:
    """Over everything a client wrote for one prompt: values of plain data. Raises RequestError where it cannot be."""

    def __init__(self, names: Collection[str], *written: Any) -> None:
        self._pattern = _pattern(frozenset(names))
        free = set(NONCHARACTERS)
        self._is_needed = False
        for text in _texts(written):
            free.difference_update(text)
            self._is_needed = self._is_needed or bool(self._pattern and self._pattern.search(text))
        if len(free) < 2:
            raise RequestError(
                "holds nearly all Unicode noncharacters", "They mean nothing in a text.", param="messages"
            )
        self.mark, self.end = sorted(free)[:2]  # end: for whoever needs another character that nobody wrote
        if any(len(name) == 1 and name in text for name in names for text in _texts(written)):
            raise RequestError("holds a special token of a single character", "Leave it out.", param="messages")

    def protect(self, value: Any) -> Any:
        """The value with marks in its texts."""
        return _changed(value, self._protect_text) if self._is_needed else value

    def parts(self, text: str) -> list[str]:
        """A rendered text, cut at the marks; each part is to be encoded by itself."""
        return [part for part in text.split(self.mark) if part] if self._is_needed else [text]

    def _protect_text(self, text: str) -> str:
        assert self._pattern is not None
        parts, before = [], 0
        for match in self._pattern.finditer(text):  # names may overlap, so each gets a mark behind its first character
            parts.append(text[before : match.start() + 1])
            before = match.start() + 1
        return self.mark.join([*parts, text[before:]])


@lru_cache(maxsize=8)
def _pattern(names: frozenset[str]) -> re.Pattern[str] | None:
    """Finds where any of the names begins; a trie, so that no place is looked at once for every name."""
    trie: dict[str, Any] = {}
    for name in names:
        node = trie
        for char in name:
            node = node.setdefault(char, {})
        node[""] = {}
    return re.compile(f"(?={_alternatives(trie)})") if trie else None


def _alternatives(node: Mapping[str, Any]) -> str:
    if "" in node:  # a name ends here; that another goes on from it does not matter
        return ""
    return "(?:" + "|".join(re.escape(char) + _alternatives(deeper) for char, deeper in sorted(node.items())) + ")"


def _texts(value: Any) -> Iterator[str]:
    stack = [value]
    while stack:
        top = stack.pop()
        if isinstance(top, str):
            yield top
        elif isinstance(top, Mapping):
            stack += [*top, *top.values()]
        elif isinstance(top, (list, tuple)):
            stack += top


def _changed(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {change(key): _changed(entry, change) for key, entry in value.items()}
    return [_changed(entry, change) for entry in value] if isinstance(value, (list, tuple)) else value
