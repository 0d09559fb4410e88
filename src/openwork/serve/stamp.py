"""Stamp: what all pieces of one answer have in common, and the pieces of JSON that are made once and sent often."""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass, field
from typing import TypedDict

import msgspec

from openwork.engine.face import Facts
from openwork.serve import sse


class Fields(TypedDict):
    id: str
    object: str
    created: int
    model: str
    system_fingerprint: str | msgspec.UnsetType


@dataclass(frozen=True, slots=True)
class Stamp:
    """``id``, ``created`` and ``model`` of an answer; ``fingerprint`` names the numeric contract that made it."""

    id: str
    kind: str  # the answer's "object"
    model: str
    fingerprint: str | msgspec.UnsetType
    created: int = field(default_factory=lambda: int(time.time()))

    @staticmethod
    def new(prefix: str, kind: str, facts: Facts) -> Stamp:
        return Stamp(prefix + secrets.token_hex(12), kind, facts.model, facts.contract_id or msgspec.UNSET)

    def fields(self) -> Fields:
        """For the record of an answer."""
        return {
            "id": self.id,
            "object": self.kind,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": self.fingerprint,
        }


class Mould:
    """The event of a plain piece of text: all but the text is made once for each choice.

    data: {"id":..,"choices":[{"index":0, OPEN  text  CLOSE }] USAGE }
    """

    def __init__(self, stamp: Stamp, before: bytes, after: bytes, has_usage: bool) -> None:
        fields = {name: value for name, value in stamp.fields().items() if value is not msgspec.UNSET}
        self._head = b"data: " + sse.json(fields)[:-1] + b',"choices":[{"index":'
        self._before = before
        self._tail = after + (b'}],"usage":null}\n\n' if has_usage else b"}]}\n\n")
        self._index_to_head: dict[int, bytes] = {}

    def cast(self, index: int, text: str) -> bytes:
        head = self._index_to_head.get(index)
        if head is None:
            head = self._head + str(index).encode() + b"," + self._before
            self._index_to_head[index] = head
        return head + sse.json(text) + self._tail
