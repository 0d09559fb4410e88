"""Spoken: the text of one choice of a conversation as content, reasoning and tool calls, while it grows.

It guarantees that the deltas of a stream put together are the message that is given as a whole. It knows the two kinds
of API only in what they share.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from openwork.core.output import Chunk, FinishReason, Logprob
from openwork.text.dialect import Dialect
from openwork.text.reply import Arguments, Content, Delta, Reasoning, ReplyParser, ToolCall


@dataclass(slots=True)
class Call:
    id: str
    name: str
    arguments: str = ""


@dataclass(slots=True)
class Spoken:
    """``take`` every chunk of one choice, in order. ``parser`` None: all of it is content."""

    parser: ReplyParser | None
    is_parallel: bool = True  # else calls after the first are left out
    is_reasoning: bool = False
    content: list[str] = field(default_factory=list)
    reasoning: list[str] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[Logprob] = field(default_factory=list)
    num_reasoning_tokens: int = 0
    finish_reason: FinishReason | None = None
    stop_reason: str | int | None = None

    @staticmethod
    def begin(
        dialect: Dialect, names: Collection[str], prompt: str, is_parallel: bool = True, opening: str = ""
    ) -> Spoken:
        """For a reply in ``dialect`` to ``prompt``, the text that the template made; ``names`` are the tools.

        ``opening`` is what the reply was made to begin with, at the end of the prompt.
        """
        span = dialect.span
        if dialect.tools is None and span is None:
            return Spoken(None)
        is_open = span is not None and span.is_open_after(prompt.removesuffix(opening))
        parser = ReplyParser(dialect.tools, names, span, is_open=is_open, opening=opening)
        return Spoken(parser, is_parallel, is_open)

    def take(self, chunk: Chunk) -> Sequence[Delta]:
        """What the chunk adds."""
        was_reasoning = self.is_reasoning
        deltas = self._parse(chunk)
        for delta in deltas:
            match delta:
                case Content(text=text):
                    self.content.append(text)
                case Reasoning(text=text):
                    self.reasoning.append(text)
                case ToolCall(id=id, name=name):
                    self.calls.append(Call(id, name))
                case Arguments(index=index, text=text):
                    self.calls[index].arguments += text
            self.is_reasoning = isinstance(delta, Reasoning)
        self.token_ids += chunk.token_ids
        self.logprobs += chunk.logprobs or ()
        self.num_reasoning_tokens += len(chunk.token_ids) * (was_reasoning or self.is_reasoning)
        self.finish_reason, self.stop_reason = chunk.finish_reason, chunk.stop_reason
        return deltas

    @property
    def reason(self) -> str | None:
        """The finish reason as clients know it."""
        return "tool_calls" if self.finish_reason == "stop" and self.calls else self.finish_reason

    def _parse(self, chunk: Chunk) -> Sequence[Delta]:
        if self.parser is None:
            return (Content(chunk.text),) if chunk.text else ()
        deltas = self.parser.push(chunk.text)
        if chunk.finish_reason is not None:
            deltas += self.parser.finish()
        return deltas if self.is_parallel else [each for each in deltas if not getattr(each, "index", 0)]
