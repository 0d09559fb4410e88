"""Answer: the events of one request as text, chunk by chunk, and the whole Output at its end.

It guarantees that the chunks of a sequence put together are the text of its Completion, that a stop string ends the
sequence it appears in (``to_cancel`` tells the caller which, since only the engine can stop computing it), and that the
last chunk carries the Output. It does not know who turns the engine, or how chunks are shown.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from openwork.core.event import Admitted, Arrived, Ended, Event, Finished, Token
from openwork.core.output import Chunk, Completion, Explains, FinishReason, Logprob, Output, Timings
from openwork.core.request import Request
from openwork.text.options import OptionText
from openwork.text.stream import TextStream
from openwork.text.tokenizer import Tokenizer


@dataclass(slots=True)
class _Line:
    """One sequence of the answer."""

    stream: TextStream | OptionText | None  # None: there is no tokenizer, and so no text
    text: list[str] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    logprobs: list[Logprob] = field(default_factory=list)
    reason: FinishReason | None = None
    stop_reason: str | int | None = None


class Answer:
    """Feed it every event of one request, in order.

    Where the best of many are wanted there is one chunk, the last: which they are is known at the end.

    ``to_cancel`` holds the sequences that a stop string has ended and the engine does not know of yet; ``failure`` says
    what went wrong when the engine failed the request. ``arrived`` is for whoever has taken that event already,
    ``shown`` are special tokens that are a part of the text, ``options`` are the texts of lines that are options, and
    ``source`` goes into the Output.
    """

    def __init__(
        self,
        request: Request,
        tokenizer: Tokenizer | None,
        prompt: str | None = None,
        arrived: float = 0.0,
        shown: Collection[int] = (),
        options: Mapping[tuple[int, ...], str] | None = None,
        source: Explains | None = None,
    ) -> None:
        self.to_cancel: list[int] = []
        self.output: Output | None = None
        self.failure = ""
        self._request = request
        self._prompt = prompt
        self._source = source
        self._ranks = request.params.best_of is not None
        self._lines = [
            _Line(_text_stream(request, tokenizer, shown) if options is None else OptionText(options))
            for _ in range(request.params.num_drawn)
        ]
        self._arrived = arrived
        self._admitted: float | None = None
        self._first: float | None = None
        self._last = arrived

    def take(self, event: Event) -> Chunk | None:
        """The chunk that an event makes, if it makes one."""
        match event:
            case Token():
                return self._token(event)
            case Arrived():
                self._arrived = self._last = event.time
            case Admitted(time=time) if self._admitted is None:
                self._admitted = time
            case Finished():
                return self._finished(event)
            case Ended():
                self.output = self._whole(event)
                return Chunk(0, "", (), output=self.output)
        return None

    def _token(self, event: Token) -> Chunk | None:
        line = self._lines[event.index]
        if line.reason is not None:  # chosen before the engine heard of the stop string
            return None
        self._first = event.time if self._first is None else self._first
        self._last = event.time
        text = "" if line.stream is None else line.stream.push((event.choice.token,))
        line.text.append(text)
        line.tokens.append(event.choice.token)
        logprob = event.choice.logprob
        if logprob is not None:
            line.logprobs.append(logprob)
        if line.stream is not None and line.stream.stopped is not None:
            line.reason, line.stop_reason = "stop", line.stream.stopped
            self.to_cancel.append(event.index)
        if self._ranks:
            return None
        logprobs = None if logprob is None else (logprob,)
        return Chunk(event.index, text, (event.choice.token,), logprobs, line.reason, line.stop_reason)

    def _finished(self, event: Finished) -> Chunk | None:
        self.failure = self.failure or event.message
        line = self._lines[event.index]
        if line.reason is not None:
            return None
        rest = "" if line.stream is None else line.stream.finish()
        line.text.append(rest)
        line.reason, line.stop_reason = event.reason, event.stop_id
        return None if self._ranks else Chunk(event.index, rest, (), None, line.reason, line.stop_reason)

    def _whole(self, ended: Ended) -> Output:
        wants = self._request.params.logprobs is not None
        completions = tuple(
            Completion(
                index=index,
                text="".join(line.text),
                token_ids=tuple(line.tokens),
                finish_reason=line.reason or "cancelled",
                stop_reason=line.stop_reason,
                logprobs=tuple(line.logprobs) if wants else None,
            )
            for index, line in enumerate(self._best())
        )
        return Output(
            self._prompt,
            self._request.prompt,
            completions,
            self._timings(ended),
            ended.kv_blocks,
            ended.prompt_logprobs,
            ended.account.cached,
            ended.search,
            ended.account.guessed,
            self._source,
        )

    def _best(self) -> list[_Line]:
        """The sequences to give: all of them, or the best of them by the mean log-probability of a token."""
        if not self._ranks:
            return self._lines
        return sorted(self._lines, key=_worth, reverse=True)[: self._request.params.n]

    def _timings(self, ended: Ended) -> Timings:
        admitted = ended.time if self._admitted is None else self._admitted
        first = ended.time if self._first is None else self._first
        prefill, decode = first - admitted, self._last - first if self._first is not None else 0.0
        later = sum(max(0, len(line.tokens) - 1) for line in self._lines)
        return Timings(
            queued_s=admitted - self._arrived,
            prefill_s=prefill,
            decode_s=decode,
            prefill_tok_s=len(self._request.prompt) / prefill if prefill > 0 else 0.0,
            decode_tok_s=later / decode if decode > 0 else 0.0,
        )


def _text_stream(request: Request, tokenizer: Tokenizer | None, shown: Collection[int]) -> TextStream | None:
    params = request.params
    if tokenizer is None:
        return None
    skips, least = params.skip_special_tokens, params.min_tokens
    return TextStream(tokenizer, params.stop, skips, least, continues=True, shown=shown)


def _worth(line: _Line) -> tuple[bool, float]:
    """What a sequence is ranked by: one that failed comes behind all others. Of equals the first stays first."""
    logprobs = [each.logprob for each in line.logprobs]
    return line.reason != "error", sum(logprobs) / len(logprobs) if logprobs else -math.inf
