"""Prompts: the token ids that an arrival asks with, drawn so that equal hash ids give equal blocks.

It guarantees the same prompts for the same seed, on every machine; and prompts that share nothing for another seed, so
that a trace may be replayed on a server whose prefix cache has seen it. The ids mean nothing: no tokenizer is needed.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from traffic.trace import BLOCK, Arrival

LOWEST = 300  # bytes and special tokens of most vocabularies lie below; the others at the end


@dataclass(frozen=True)
class Wording:
    """How prompts are put: of which ids, and in which form a server wants them.

    ids     /v1/completions with token ids: lengths are exact
    text    /v1/completions with a word for each id
    chat    /v1/chat/completions with the same words as one message of the user
    """

    model: str
    form: str = "ids"
    vocabulary: int = 100_000
    seed: str = ""
    extra: Mapping[str, Any] | None = None  # put into each request as it is

    @property
    def route(self) -> str:
        return "/v1/chat/completions" if self.form == "chat" else "/v1/completions"


def tokens(arrival: Arrival, at: int, wording: Wording) -> list[int]:
    """The prompt of an arrival, which is the one number ``at`` of its trace."""
    if not arrival.blocks:
        return draw(wording, f"alone {at}", arrival.prompt_length)
    ids: list[int] = []
    for block in arrival.blocks:
        ids += draw(wording, f"block {block}", BLOCK)
    return ids[: arrival.prompt_length]


def draw(wording: Wording, name: str, count: int) -> list[int]:
    """So many ids, which depend on the name and the seed alone."""
    return random.Random(f"{wording.seed} {name}").choices(range(LOWEST, wording.vocabulary), k=count)


def bodies(arrivals: Sequence[Arrival], wording: Wording) -> list[bytes]:
    """The JSON body of each arrival's request."""
    return [body(tokens(each, at, wording), each.max_tokens, wording) for at, each in enumerate(arrivals)]


def body(ids: Sequence[int], max_tokens: int, wording: Wording) -> bytes:
    """A request that streams exactly ``max_tokens`` tokens, greedily, and tells its usage."""
    asked: dict[str, Any] = {
        "model": wording.model,
        "max_tokens": max_tokens,
        "temperature": 0,
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    if wording.form == "ids":
        asked["prompt"] = list(ids)
    elif wording.form == "text":
        asked["prompt"] = words(ids)
    else:
        asked["messages"] = [{"role": "user", "content": words(ids)}]
    return json.dumps(asked | dict(wording.extra or {}), separators=(",", ":")).encode()


def words(ids: Sequence[int]) -> str:
    """One pronounceable word for each id; few tokenizers give it just one token, so lengths are about right."""
    consonants, vowels = "bdfgklmnprstvz", "aeiou"
    syllables = [a + b for a in consonants for b in vowels]
    return " ".join(syllables[each % 70] + syllables[each // 70 % 70] for each in ids)
