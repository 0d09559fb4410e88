"""Conversation: the messages of a chat, and which of them still fit the context window.

Nothing is ever lost: the oldest turns are only left out of what the model is shown. A turn is a message of the user and
everything up to the next one. It does not know terminals, nor how messages become tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from openwork.core.errors import PromptTooLong

Message = dict[str, Any]
Encode = Callable[[list[Message]], list[int]]


@dataclass(slots=True)
class Conversation:
    """``system`` stands before every view; ``first`` is the message that the model is shown first."""

    system: str = ""
    messages: list[Message] = field(default_factory=list)
    first: int = 0

    def say(self, text: str) -> None:
        self.messages.append({"role": "user", "content": text})

    def answer(self, text: str) -> None:
        self.messages.append({"role": "assistant", "content": text})

    def take_back(self) -> None:
        """Forget the last message, because it could not be answered."""
        self.messages.pop()
        self.first = min(self.first, len(self.messages))

    def reset(self) -> None:
        self.messages.clear()
        self.first = 0

    def as_messages(self) -> list[Message]:
        """All of it, in the form that chat APIs take."""
        return [*self._opening(), *self.messages]

    def replace(self, messages: list[Message]) -> None:
        """Go on from another conversation; a system message at its start becomes the system text."""
        opens = bool(messages) and messages[0]["role"] == "system"
        self.system = messages[0]["content"] if opens else ""
        self.messages = messages[1:] if opens else list(messages)
        self.first = 0

    def view(self, encode: Encode, context: int, room: int) -> tuple[list[int], int]:
        """Token ids of what the model is shown, and how many turns had to be left out more than before.

        Turns are left out, oldest first, until ``room`` tokens (at least one) of the window are free for the answer;
        the last turn always stays. Raises PromptTooLong when that alone leaves no room for a single token.
        """
        room = max(1, room)
        dropped = 0
        while True:
            ids = encode([*self._opening(), *self.messages[self.first :]])
            if len(ids) + room <= context:
                return ids, dropped
            later = self._next_turn()
            if later is None:
                break
            self.first = later
            dropped += 1
        if len(ids) >= context:
            raise PromptTooLong(
                f"the last message alone has {len(ids)} tokens, and the context window is {context}",
                "Say it in fewer words.",
            )
        return ids, dropped

    def _opening(self) -> list[Message]:
        return [{"role": "system", "content": self.system}] if self.system else []

    def _next_turn(self) -> int | None:
        """Where the second turn of the view begins; None when there is only one."""
        for place in range(self.first + 1, len(self.messages)):
            if self.messages[place]["role"] == "user":
                return place
        return None
