"""Items: a reply as the output items of a response, and the typed events that tell how they grow.

An item is opened by the first delta of its kind and closed by one of another kind, so at most one is open. The events
of a stream, read in order, make the same items that a whole answer has.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from openwork.serve.schema.response import (
    SaidCall,
    SaidItem,
    SaidMessage,
    SaidReasoning,
    SaidReasoningText,
    SaidText,
)
from openwork.text.reply import Arguments, Content, Delta, Reasoning, ToolCall

Event = tuple[str, dict[str, Any]]  # its type, and its fields besides the sequence number


class Items:
    """``take`` deltas and ``close`` at the end; both tell events."""

    def __init__(self) -> None:
        self.done: list[SaidItem] = []
        self._open: SaidItem | None = None
        self._text: list[str] = []

    def take(self, deltas: Iterable[Delta]) -> Iterator[Event]:
        for delta in deltas:
            match delta:
                case ToolCall(id=id, name=name):
                    yield from self.close("completed")
                    yield from self._begin(SaidCall(id=_id("fc"), status="", call_id=id, name=name, arguments=""))
                case Arguments(text=text):
                    yield from self._grow("response.function_call_arguments.delta", text)
                case Content(text=text):
                    if not isinstance(self._open, SaidMessage):
                        yield from self.close("completed")
                        yield from self._begin(SaidMessage(id=_id("msg"), status="", content=[]))
                    yield from self._grow("response.output_text.delta", text)
                case Reasoning(text=text):
                    if not isinstance(self._open, SaidReasoning):
                        yield from self.close("completed")
                        yield from self._begin(SaidReasoning(id=_id("rs"), status="", content=[]))
                    yield from self._grow("response.reasoning_text.delta", text)

    def close(self, status: str) -> Iterator[Event]:
        """End the item that is open, if one is."""
        item = self._open
        if item is None:
            return
        text = "".join(self._text)
        match item:
            case SaidMessage():
                part: SaidText | SaidReasoningText = SaidText(text=text)
                item = msgspec.structs.replace(item, content=[part], status=status)
                yield "response.output_text.done", {**self._place(0), "text": text, "logprobs": []}
                yield "response.content_part.done", {**self._place(0), "part": part}
            case SaidReasoning():
                part = SaidReasoningText(text=text)
                item = msgspec.structs.replace(item, content=[part], status=status)
                yield "response.reasoning_text.done", {**self._place(0), "text": text}
                yield "response.content_part.done", {**self._place(0), "part": part}
            case SaidCall():
                item = msgspec.structs.replace(item, arguments=text, status=status)
                yield "response.function_call_arguments.done", {**self._place(), "name": item.name, "arguments": text}
        yield "response.output_item.done", {"output_index": len(self.done), "item": item}
        self.done.append(item)
        self._open = None

    def _begin(self, item: SaidItem) -> Iterator[Event]:
        item = msgspec.structs.replace(item, status="in_progress")
        self._open, self._text = item, []
        yield "response.output_item.added", {"output_index": len(self.done), "item": item}
        if not isinstance(item, SaidCall):
            part = SaidText(text="") if isinstance(item, SaidMessage) else SaidReasoningText(text="")
            yield "response.content_part.added", {**self._place(0), "part": part}

    def _grow(self, kind: str, text: str) -> Iterator[Event]:
        self._text.append(text)
        is_text = kind == "response.output_text.delta"
        place = self._place(None if isinstance(self._open, SaidCall) else 0)
        yield kind, {**place, "delta": text, **({"logprobs": []} if is_text else {})}

    def _place(self, part: int | None = None) -> dict[str, Any]:
        assert self._open is not None
        place: dict[str, Any] = {"item_id": self._open.id, "output_index": len(self.done)}
        return place if part is None else {**place, "content_index": part}


def _id(prefix: str) -> str:
    return f"{prefix}_{secrets.token_hex(12)}"
