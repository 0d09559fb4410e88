"""Texts: tokenising, chat templates and the trial of constraints, away from the event loop.

It guarantees that no text holds up those who are being served: what can never fit the window is refused by its length
alone, the rest is done by a few threads with a bounded queue, and the tokeniser lets other threads run. It loads the
tokeniser of a served model when it is first needed, unless it was given one, and knows no routes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from openwork.core.constraint import Constraint
from openwork.core.errors import ModelError
from openwork.engine.face import AsyncEngine
from openwork.serve.bounds import Bounds
from openwork.serve.errors import bad_request, unavailable
from openwork.serve.sampling import too_long
from openwork.text.chat import ChatTemplate
from openwork.text.dialect import Dialect
from openwork.text.tokenizer import Tokenizer
from openwork.text.trial import Trial

NUM_THREADS = 2
SLICE = 32 << 10  # characters that are tokenised to see how many tokens a long text has about
USUAL_TOKEN_BYTES = 8  # a text with more bytes than this for each token of the window is looked at in slices first
MAX_TEMPLATE_TEXT = 64 << 20

Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class Language:
    """What a checkpoint knows of text."""

    tokenizer: Tokenizer | None  # None: only token ids can be given, and texts are empty
    template: ChatTemplate | None
    dialect: Dialect
    longest_bytes: int  # of a token
    context: int

    @property
    def max_bytes(self) -> int:
        """A longer text can never fit."""
        return self.context * self.longest_bytes


class Texts:
    """``run`` is for whatever else takes long and needs no event loop."""

    def __init__(self, engine: AsyncEngine, bounds: Bounds, *forms: str, language: Language | None = None) -> None:
        self._engine = engine
        self._bounds = bounds
        self._forms = forms
        self._pool = ThreadPoolExecutor(NUM_THREADS, thread_name_prefix="texts")
        self._num_queued = 0
        self._trial = Trial()
        self._trying = ThreadPoolExecutor(1, thread_name_prefix="trial")  # one at a time, and holding up no text
        self._loading = asyncio.Lock()
        self._language = language

    async def language(self) -> Language:
        """Loaded the first time. Raises EngineUnavailable before the model is."""
        if self._language is None:
            async with self._loading:
                if self._language is None:
                    facts = self._engine.facts
                    self._language = await self.run(load_language, facts.directory, facts.limits.context, *self._forms)
        return self._language

    async def run(self, function: Callable[..., Value], *args: Any) -> Value:
        """Call it on another thread. Raises ApiError 503 when too many wait already."""
        return await self._run(self._pool, function, *args)

    async def try_out(self, constraint: Constraint) -> None:
        """Find out whether a constraint can be used; what is known already is known at once.

        Raises RequestError when it cannot, ApiError 503 when too many wait, EngineUnavailable where nobody can say.
        """
        if not self._trial.recall(constraint):
            await self._run(self._trying, self._trial.check, constraint)

    async def _run(self, pool: ThreadPoolExecutor, function: Callable[..., Value], *args: Any) -> Value:
        if self._num_queued >= self._bounds.queued_texts:
            raise unavailable("overloaded", "Too many texts and constraints are waiting to be read.")
        self._num_queued += 1
        future = pool.submit(function, *args)
        loop = asyncio.get_running_loop()
        # Counted where it ends, not where it is awaited: who stops waiting does not stop the thread.
        future.add_done_callback(lambda _: loop.is_closed() or loop.call_soon_threadsafe(self._done))
        try:
            return await asyncio.wrap_future(future)
        finally:
            del future  # else its error, whose traceback holds this frame and the arguments, waits for the collector

    def _done(self) -> None:
        self._num_queued -= 1

    async def encode(self, texts: Sequence[str], params: Sequence[str], add_special: bool = True) -> list[list[int]]:
        """The ids of each text. Raises ApiError 400, naming the param of the text that can never fit."""
        language = await self.language()
        tokenizer = need_tokenizer(language, params[0])

        def work() -> list[list[int]]:
            found = []
            for text, param in zip(texts, params, strict=True):
                check_tokens(language, (text,), param)
                found.append(tokenizer.encode(text, add_special))
            return found

        return await self.run(work)

    def close(self) -> None:
        for pool in (self._pool, self._trying):
            pool.shutdown(wait=False, cancel_futures=True)
        self._trial.close()


def load_language(directory: str, context: int, *forms: str) -> Language:
    """``forms`` of tool calls and of reasoning, where the operator names them (text/dialect.py).

    Raises ModelError for files that cannot be used; a missing tokeniser or template is none.
    """
    if not directory or not (Path(directory) / "tokenizer.json").exists():
        return Language(None, None, Dialect(), 1, context)
    tokenizer = Tokenizer.load(directory)
    longest = max((len(tokenizer.piece(token) or b"") for token in range(tokenizer.vocab_size)), default=1)
    max_bytes = min(max(1 << 20, 2 * context * longest), MAX_TEMPLATE_TEXT)
    try:
        template = ChatTemplate.load(tokenizer, max_bytes=max_bytes)
    except ModelError:
        template = None
    dialect = Dialect() if template is None else Dialect.find(template.source, *forms)
    return Language(tokenizer, template, dialect, longest, context)


def need_tokenizer(language: Language, param: str) -> Tokenizer:
    if language.tokenizer is None:
        raise bad_request(f"{param} is text, but this model has no tokeniser. Give token ids.", param)
    return language.tokenizer


def check_tokens(language: Language, texts: Sequence[str], param: str) -> None:
    """Raises ApiError 400 for texts that together cannot fit the window: by their bytes, or as tokenised in slices.

    A slice may cut a token in two, so only what is clearly too much is refused; the rest is for the count of the whole.
    """
    size = sum(map(len, texts))
    if size <= language.max_bytes:
        size = sum(len(text) if text.isascii() else len(text.encode()) for text in texts)
    if size > language.max_bytes:
        raise too_long(language.context, f"your text has {size} bytes, more than so many tokens can hold", param)
    if size <= language.context * USUAL_TOKEN_BYTES:
        return
    tokenizer, num_tokens = need_tokenizer(language, param), 0
    for text in texts:
        for start in range(0, len(text), SLICE):
            num_tokens += len(tokenizer.encode(text[start : start + SLICE], add_special=False))
            if num_tokens > 1.1 * language.context + 64:
                raise too_long(language.context, f"you requested at least {num_tokens} tokens", param)


def texts_in(value: Any) -> list[str]:
    """All texts in a value."""
    found: list[str] = []
    stack = [value]
    while stack:
        top = stack.pop()
        if isinstance(top, str):
            found.append(top)
        elif isinstance(top, Mapping):
            stack.extend(top.values())
        elif isinstance(top, (list, tuple)):
            stack.extend(top)
    return found
