"""Results as JSON records and as tables of tokens. What was computed is shown as it is; nothing is rounded in JSON."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from openwork.core.output import Logprob, Output
    from openwork.core.request import SamplingParams
    from openwork.text.tokenizer import Tokenizer


def records(
    model: str, output: Output, params: SamplingParams, tokenizer: Tokenizer | None
) -> Iterator[dict[str, Any]]:
    """One JSON object for each completion of an output."""
    for completion in output.completions:
        record: dict[str, Any] = {"model": model, "seed": params.seed}
        if params.n > 1:
            record["index"] = completion.index
        record |= {
            "prompt": output.prompt,
            "prompt_ids": list(output.prompt_ids),
            "token_ids": list(completion.token_ids),
            "text": completion.text,
            "finish_reason": completion.finish_reason,
            "stop_reason": completion.stop_reason,
            "logprobs": _logprobs(completion.logprobs, tokenizer),
            "timings": asdict(output.timings),
            "kv_blocks": output.kv_blocks,
        }
        if output.guessed.drafted:
            record["guessed"] = asdict(output.guessed)
        if params.prompt_logprobs is not None:
            record["prompt_logprobs"] = _logprobs(output.prompt_logprobs, tokenizer)
        yield record


def _logprobs(
    logprobs: Sequence[Logprob | None] | None, tokenizer: Tokenizer | None
) -> list[dict[str, Any] | None] | None:
    return None if logprobs is None else [None if each is None else _logprob(each, tokenizer) for each in logprobs]


def _logprob(logprob: Logprob, tokenizer: Tokenizer | None) -> dict[str, Any]:
    return {
        "token": logprob.token,
        "text": token_text(logprob.token, tokenizer),
        "logprob": finite(logprob.logprob),
        "rank": logprob.rank,
        "top": [
            {"token": token, "text": token_text(token, tokenizer), "logprob": finite(value)}
            for token, value in logprob.top
        ],
    }


def finite(value: float | None) -> float | None:
    """JSON has no infinity: a token that cannot come has no logarithm, null."""
    return value if value is not None and math.isfinite(value) else None


def token_text(token: int, tokenizer: Tokenizer | None) -> str | None:
    """The text of one token, U+FFFD for bytes that are no character on their own; None without a tokenizer."""
    piece = None if tokenizer is None else tokenizer.piece(token)
    return None if piece is None else piece.decode("utf-8", "replace")


def logprob_table(logprobs: Sequence[Logprob | None], tokenizer: Tokenizer | None) -> str:
    """Lines of token, log-probability, rank and the likeliest tokens there."""
    lines = [f"{'token':>7}  {'logprob':>8}  {'rank':>5}  text"]
    there = [logprob for logprob in logprobs if logprob is not None]  # nothing comes before a prompt's first token
    width = max((len(_shown(logprob.token, tokenizer)) for logprob in there), default=0)
    for logprob in there:
        others = "  ".join(f"{_shown(token, tokenizer)} {value:.2f}" for token, value in logprob.top)
        text = _shown(logprob.token, tokenizer).ljust(width)
        own = f"{logprob.token:7d}  {logprob.logprob:8.3f}  {logprob.rank:5d}  {text}"
        lines.append(f"{own}    {others}".rstrip())
    return "\n".join(lines) + "\n"


def _shown(token: int, tokenizer: Tokenizer | None) -> str:
    text = token_text(token, tokenizer)
    return str(token) if text is None else repr(text)
