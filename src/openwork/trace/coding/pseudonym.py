"""Pseudonyms: tokens as words of 32 bits, for a log that may keep what people wrote and for one that may not.

    may       a word is the token's id
    may not   a word is a keyed hash of the whole line up to the token: equal where the whole lines are equal, and
              saying nothing to whoever has not the key, which is in nobody's file. The reader gives stand-ins: the
              children of a line are numbered in the order they are first seen, so that lines share exactly what they
              shared. A token that ends its line is written as it is (END): a replay must know an end, and it tells
              nothing of the text.

A place is where a line stands: for the writer the hash so far, for the reader a node of what it has seen. Places are
handed in and out; nothing here remembers a line.
"""

from __future__ import annotations

import hashlib
import secrets
from array import array
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

from openwork.core.errors import TraceError

END = 1 << 31  # a word with this bit is the id of a token that ended its line
Place = Any


class Writer(Protocol):
    """Tokens to words."""

    root: Place

    def walk(self, place: Place, tokens: Sequence[int]) -> tuple[bytes, Place]:
        """The words of a line that goes on from a place, and where it stands then."""
        ...

    def next(self, place: Place, tokens: Iterable[int], ends: frozenset[int]) -> array[int]:
        """The words of tokens each of which may follow a place; ``ends`` are those that end a line."""
        ...


class Reader(Protocol):
    """Words to tokens."""

    root: Place

    def walk(self, place: Place, words: Sequence[int]) -> tuple[list[int], Place]: ...

    def next(self, place: Place, word: int) -> int: ...

    def after(self, place: Place, token: int) -> Place:
        """Where a line stands that went on from a place with a token which was read there."""
        ...

    def order(self, words: Sequence[int], tokens: Sequence[int]) -> tuple[int, ...]:
        """The places of these in the order in which somebody who sorts his tokens would have asked for them."""
        ...

    def end(self, token: int) -> int:
        """What stands for a token that is known to end lines."""
        ...

    def lost(self) -> Place:
        """A place for a line whose beginning nobody knows: it is like no other."""
        ...


class Ids:
    """Both ways, where tokens may be kept."""

    root: Place = None

    def walk(self, place: Place, tokens: Sequence[int]) -> tuple[bytes, Place]:
        return array("I", tokens).tobytes(), None

    def next(self, place: Place, tokens: Iterable[int], ends: frozenset[int]) -> array[int]:
        return array("I", tokens)


class KnownIds:
    root: Place = None

    def __init__(self, vocab_size: int) -> None:
        self._vocab_size = vocab_size

    def walk(self, place: Place, words: Sequence[int]) -> tuple[list[int], Place]:
        if words and max(words) >= self._vocab_size:
            raise TraceError(f"a token is {max(words)}; ids are 0 to {self._vocab_size - 1}")
        return list(words), None

    def next(self, place: Place, word: int) -> int:
        return word if word < self._vocab_size else self.walk(place, (word,))[0][0]

    def after(self, place: Place, token: int) -> Place:
        return None

    def order(self, words: Sequence[int], tokens: Sequence[int]) -> tuple[int, ...]:
        return tuple(range(len(words)))

    def end(self, token: int) -> int:
        return token

    def lost(self) -> Place:
        return None


class Hashes:
    """Words of 31 bits from a chain of 128, under a key that is forgotten with the process."""

    def __init__(self) -> None:
        self._keyed = hashlib.blake2b(key=secrets.token_bytes(32), digest_size=16)
        self.root: bytes = bytes(16)

    def walk(self, place: Place, tokens: Sequence[int]) -> tuple[bytes, Place]:
        words = array("I")
        for token in tokens:
            place = self._step(place, token)
            words.append(int.from_bytes(place[:4], "little") & (END - 1))
        return words.tobytes(), place

    def next(self, place: Place, tokens: Iterable[int], ends: frozenset[int]) -> array[int]:
        return array(
            "I",
            (
                END | token if token in ends else int.from_bytes(self._step(place, token)[:4], "little") & (END - 1)
                for token in tokens
            ),
        )

    def _step(self, place: bytes, token: int) -> bytes:
        step = self._keyed.copy()
        step.update(place + token.to_bytes(4, "little"))
        return step.digest()


class _Node:
    __slots__ = ("by_token", "by_word")

    def __init__(self) -> None:
        self.by_word: dict[int, int] = {}  # word -> stand-in
        self.by_token: dict[int, _Node] = {}  # stand-in -> where the line stands then


class StandIns:
    """Stand-ins count from 0 among the children of a line; those of tokens that end lines from the vocabulary's end."""

    def __init__(self, vocab_size: int) -> None:
        self.root: Place = _Node()
        self._vocab_size = vocab_size
        self._ends: dict[int, int] = {}

    def walk(self, place: Place, words: Sequence[int]) -> tuple[list[int], Place]:
        tokens = []
        for word in words:
            tokens.append(self.next(place, word))
            place = self.after(place, tokens[-1])
        return tokens, place

    def next(self, place: _Node, word: int) -> int:
        token = place.by_word.get(word)
        if token is None:
            if word & END:
                token = self.end(word & ~END)
            else:
                token = len(place.by_word)
                if token >= self._vocab_size - len(self._ends):
                    raise TraceError("a line goes on in more ways than there are tokens")
            place.by_word[word] = token
        return token

    def after(self, place: _Node, token: int) -> _Node:
        node = place.by_token.get(token)
        if node is None:
            node = place.by_token[token] = _Node()
        return node

    def order(self, words: Sequence[int], tokens: Sequence[int]) -> tuple[int, ...]:
        return tuple(sorted(range(len(words)), key=lambda place: (words[place] & END, tokens[place])))

    def end(self, token: int) -> int:
        if token not in self._ends:
            if len(self._ends) + 1 >= self._vocab_size:
                raise TraceError("more tokens end lines than there are tokens")
            self._ends[token] = self._vocab_size - 1 - len(self._ends)
        return self._ends[token]

    def lost(self) -> Place:
        return _Node()
