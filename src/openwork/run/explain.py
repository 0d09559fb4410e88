"""Explainer: opens the rows that chose the tokens of an Output, with the model that gave it.

It computes the sequence again, prompt and answer, and keeps the keys and values of the one that was asked about last:
the first question costs a prefill, the next ones a decode step each. Safe to ask from several threads; the engine goes
on beside it. An Output knows its explainer weakly, so it keeps no model in memory.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Sequence
from typing import Any

from openwork.core.errors import EngineError, RequestError
from openwork.core.output import Output
from openwork.run.capture import Examination, Examiner
from openwork.run.row import Row


class Explainer:
    """``max_bytes`` bounds the keys and values that are kept; None: what is free."""

    def __init__(self, examiner: Examiner, max_bytes: int | None = None) -> None:
        self._examiner: Examiner | None = examiner
        self._max_bytes = max_bytes
        self._last: tuple[tuple[int, ...], Examination] | None = None
        self._turn = threading.Lock()

    def explain(
        self,
        output: Output,
        i: int,
        *,
        completion: int = 0,
        layers: Sequence[int] | None = None,
        heads: Sequence[int] | None = None,
        lens: int = 0,
        top: int = 10,
    ) -> Row:
        """The row that token ``i`` of a completion was chosen from. Raises as Output.explain does."""
        if not 0 <= completion < len(output.completions):
            raise RequestError(f"is {completion}; there are {len(output.completions)} completions", param="completion")
        tokens = output.completions[completion].token_ids
        if not 0 <= i < len(tokens):
            raise RequestError(f"is {i}; the completion has {len(tokens)} tokens, counted from 0", param="i")
        with self._turn:
            if self._examiner is None:
                raise EngineError("the LLM is closed, so nothing can be computed again", "Explain before you close it.")
            line = (*output.prompt_ids, *tokens)
            if self._last is None or self._last[0] != line:
                self._last = None  # its memory goes before the next is taken
                self._last = line, self._examiner.examine(line, self._max_bytes)
            position = len(output.prompt_ids) - 1 + i
            return self._last[1].row(position, layers=layers, heads=heads, lens=lens, top=top)

    def close(self) -> None:
        """Let the model and what was kept go. Does nothing the second time."""
        with self._turn:
            self._examiner = self._last = None


class Source:
    """What an Output remembers of where it came from; a copy in another process remembers nothing."""

    def __init__(self, explainer: Explainer | None) -> None:
        self._explainer = (lambda: None) if explainer is None else weakref.ref(explainer)

    def explain(self, output: Output, i: int, **how: Any) -> Row:
        explainer = self._explainer()
        if explainer is None:
            raise EngineError("the LLM that gave this output is gone", "Keep it as long as you want to explain.")
        return explainer.explain(output, i, **how)

    def __reduce__(self) -> tuple[type[Source], tuple[None]]:
        return Source, (None,)
