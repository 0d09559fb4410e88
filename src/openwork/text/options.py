"""Options: texts to choose among as tokens behind a prompt, and what came of them as texts again.

Where the prompt ends in the middle of a word, or with a space that the tokenizer would rather have at the head of the
next token, "prompt" and "option" have other tokens together than apart, and the model has seen the former. So:

    tokens of "Answer: " + "yes"    Answer  :  _yes         the prompt keeps what it has in common with all of these,
    tokens of "Answer: " + "no"     Answer  :  _no          "Answer :", and the options get the rest: "_yes", "_no"

All options are placed behind the same tokens, and their probabilities compare. Where the prompt would be left with no
token, or is token ids already, options are tokenised by themselves. Options that are token ids are taken as they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from openwork.core.errors import RequestError
from openwork.core.output import Chosen, Option, Output
from openwork.core.search import MAX_OPTIONS
from openwork.text.tokenizer import Tokenizer, check_text

Options = Sequence[str] | Sequence[Sequence[int]]
# Behind a space this far from the end nothing is joined to what stands there; checked for the prompt itself.
_TAIL = 64
_MAX_OPTION_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Placed:
    """A prompt, and the options behind it."""

    prompt_ids: tuple[int, ...]
    options: tuple[tuple[int, ...], ...]


def place(tokenizer: Tokenizer | None, prompt: str | None, prompt_ids: Sequence[int], options: Options) -> Placed:
    """The tokens of a prompt and of options behind it. ``prompt`` is None where the prompt was token ids.

    Raises RequestError for options that are no texts or ids, or that have the same tokens.
    """
    if isinstance(options, str) or not 1 <= len(options) <= MAX_OPTIONS:
        raise RequestError(f"must be a list of 1 to {MAX_OPTIONS} texts, or lists of token ids", param="options")
    texts = [option for option in options if isinstance(option, str)]
    if not texts:
        return Placed(tuple(prompt_ids), tuple(tuple(each) for each in options))  # type: ignore[arg-type]
    if len(texts) < len(options):
        raise RequestError("must be all texts, or all lists of token ids", param="options")
    if tokenizer is None:
        raise RequestError("are texts, and there is no tokenizer", "Give token ids.", param="options")
    for text in texts:
        check_text(text, "options", _MAX_OPTION_BYTES)
    twice = next((text for text in set(texts) if texts.count(text) > 1), None) if len(set(texts)) < len(texts) else None
    if twice is not None:
        raise RequestError(f"name {twice[:80]!r} twice", param="options")
    placed = None if prompt is None else _joined(tokenizer, prompt, prompt_ids, texts)
    if placed is None:
        apart = (tuple(tokenizer.encode(text, add_special=False)) for text in texts)
        placed = Placed(tuple(prompt_ids), tuple(apart))
    return placed


class OptionText:
    """The text of a line that is one of some options: the option's own, when it is complete. Read like a TextStream."""

    stopped = None

    def __init__(self, texts: Mapping[tuple[int, ...], str]) -> None:
        self._texts = texts
        self._ids: list[int] = []

    def push(self, token_ids: Iterable[int]) -> str:
        self._ids += token_ids
        return ""

    def finish(self) -> str:
        return self._texts.get(tuple(self._ids), "")


def _joined(tokenizer: Tokenizer, prompt: str, prompt_ids: Sequence[int], texts: Sequence[str]) -> Placed | None:
    """Options tokenised together with the end of the prompt; None when the prompt would keep nothing."""
    cut = max(0, prompt.rfind(" ", 0, max(0, len(prompt) - _TAIL)))
    tail = tokenizer.encode(prompt[cut:], add_special=not cut)
    head = list(prompt_ids[: len(prompt_ids) - len(tail)])
    if [*head, *tail] != list(prompt_ids):  # this tokenizer looks further back
        cut, head = 0, []
    wholes = [[*head, *tokenizer.encode(prompt[cut:] + text, add_special=not cut)] for text in texts]
    kept = len(prompt_ids)
    for whole in wholes:
        shared = next((i for i, (a, b) in enumerate(zip(prompt_ids, whole, strict=False)) if a != b), kept)
        kept = min(kept, shared, len(whole))
    if not kept:
        return None
    return Placed(tuple(prompt_ids[:kept]), tuple(tuple(whole[kept:]) for whole in wholes))


def as_chosen(output: Output, placed: Placed, options: Options, end: bool) -> Chosen:
    """What a choice came to, with the texts of its options."""
    report = output.search
    assert report is not None
    each = zip(options, placed.options, report.shares, strict=True)
    times = output.timings
    return Chosen(
        index=report.winner,
        options=tuple(
            Option(
                text=option if isinstance(option, str) else None,
                token_ids=ids,
                logprob=share.logprob,
                logprob_high=share.logprob_high,
                probability_low=share.low,
                probability_high=share.high,
            )
            for option, ids, share in each
        ),
        report=report,
        prompt=output.prompt,
        prompt_ids=placed.prompt_ids,
        end=end,
        elapsed_s=times.queued_s + times.prefill_s + times.decode_s,
    )
