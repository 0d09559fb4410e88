"""What a caller gets back: completions with their tokens, probabilities and times. Frozen records."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from openwork.core.errors import RequestError

FinishReason = Literal["stop", "length", "repetition", "cancelled", "error"]
# What failed when a sequence finished with "error": its own numbers were not finite, or chose what is no token; its
# constraint left no token to choose; the whole step; the request ended the engine's process again and again; the engine
# is closed and could not finish it.
Failure = Literal["", "numbers", "grammar", "step", "quarantined", "closed"]


@dataclass(frozen=True, slots=True)
class Logprob:
    """The log-probability of one token at one position, and of the most likely tokens there.

    Natural logarithms of the model's own distribution, before penalties, temperature and filters.
    """

    token: int
    logprob: float
    rank: int  # how many tokens are at least as likely, this one included: 1 is the likeliest
    top: tuple[tuple[int, float], ...] = ()  # (token, logprob), likeliest first


@dataclass(frozen=True, slots=True)
class Found:
    """One finished sequence of a search. ``token_ids`` hold the end token, if one ended it."""

    token_ids: tuple[int, ...]
    logprob: float  # of the whole, in nats; the end counted where the search counts it
    score: float  # what was maximised: the log-probability, unless lengths or penalties were asked for
    token_logprobs: tuple[float, ...]
    finish_reason: FinishReason = "length"
    stop_id: int | None = None


@dataclass(frozen=True, slots=True)
class Share:
    """What is certain of one option: its probability, given that the answer is one of the options, is in [low, high].

    ``logprob`` is None where the search ended before it was known; then it is at most ``logprob_high``.
    """

    logprob: float | None
    logprob_high: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Traced:
    """A place in the tree of a search, as it was at the end.

    open   never looked at: nothing that begins so has a higher score than ``bound``
    rest   all the tokens that are not listed beside it, together
    """

    parent: int | None  # place in the list of its parent
    tokens: tuple[int, ...]  # after those of its parent
    logprob: float  # of the line to its end; of the first token alone while it is open
    bound: float
    state: Literal["expanded", "open", "rest", "found"]


@dataclass(frozen=True, slots=True)
class SearchReport:
    """What a search found, and what it can prove. No sequence that it might have found scores above ``upper_bound``.

    ``proved``: neither does any that is not in ``found``, which is in order. ``gap`` is the bound less the best score,
    and None where nothing was found. A beam search proves nothing and has no bound: None. ``nodes`` counts the places
    whose distribution was looked at; ``ended_by`` is "proved", "complete" (a beam), or what was used up.
    """

    found: tuple[Found, ...]
    proved: bool
    upper_bound: float | None
    gap: float | None
    nodes: int
    generations: int
    ended_by: Literal["proved", "complete", "nodes", "finished", "tokens", "seconds"]
    shares: tuple[Share, ...] = ()  # of each option, where there are some
    winner: int | None = None  # the option that was found
    num_nodes: int | None = None  # how many there are, where that is known
    trace: tuple[Traced, ...] = ()


@dataclass(frozen=True, slots=True)
class Timings:
    """Seconds on the engine's clock, and tokens per second. Prefill ends with the first token."""

    queued_s: float
    prefill_s: float
    decode_s: float
    prefill_tok_s: float  # prompt tokens over prefill_s
    decode_tok_s: float  # tokens after the first over decode_s; 0 when there are none


@dataclass(frozen=True, slots=True)
class Guessed:
    """How guessing ahead went (docs/speculation.md), over all sequences of a request. It changes no token."""

    drafted: int = 0  # tokens that were guessed
    accepted: int = 0  # of these, those that were right and used
    verify_steps: int = 0  # steps that had guesses in them


NO_GUESSES = Guessed()


@dataclass(frozen=True, slots=True)
class Completion:
    """One generated sequence. ``stop_reason`` is the stop string or token id that ended it, if one did."""

    index: int
    text: str
    token_ids: tuple[int, ...]
    finish_reason: FinishReason
    stop_reason: str | int | None = None
    logprobs: tuple[Logprob, ...] | None = None


class Explains(Protocol):
    """Whoever can look into the engine for an Output."""

    def explain(self, output: Output, i: int, **how: Any) -> Any: ...


@dataclass(frozen=True, slots=True)
class Output:
    """All that one request produced. The short names speak of the first completion."""

    prompt: str | None  # None when the prompt was token ids
    prompt_ids: tuple[int, ...]
    completions: tuple[Completion, ...]
    timings: Timings
    kv_blocks: int  # blocks of KV cache that the request held at its end, each counted once
    prompt_logprobs: tuple[Logprob | None, ...] | None = None  # the first is None: nothing comes before it
    cached: int = 0  # prompt tokens whose keys and values were in the prefix cache already
    search: SearchReport | None = None  # what a search found and proved; its ``found`` are the completions, in order
    guessed: Guessed = NO_GUESSES
    source: Explains | None = field(default=None, compare=False, repr=False)  # None: not from an LLM of this process

    def explain(
        self,
        i: int = 0,
        *,
        completion: int = 0,
        layers: Sequence[int] | None = None,
        heads: Sequence[int] | None = None,
        lens: int = 0,
        top: int = 10,
    ) -> Any:
        """What was inside the model when token ``i`` of a completion was chosen: a Row of run/row.py, NumPy arrays.

        ``layers`` and ``heads`` choose whose queries, keys, values and attention are wanted, None: all; ``lens`` is how
        many tokens to name behind every layer, ``top`` how many at the end. Shapes: docs/replay.md. The first question
        computes prompt and answer again, the next ones a row.

        Raises RequestError for a token, layer or head that there is not, or when the output did not come from an LLM;
        EngineError when that is closed or gone; MemoryTooSmall when there is no room for the keys and values.
        """
        if self.source is None:
            raise RequestError("only outputs of an LLM can be explained", "Generate it with LLM, in this process.")
        return self.source.explain(self, i, completion=completion, layers=layers, heads=heads, lens=lens, top=top)

    @property
    def text(self) -> str:
        return self.completions[0].text

    @property
    def token_ids(self) -> Sequence[int]:
        return self.completions[0].token_ids

    @property
    def finish_reason(self) -> FinishReason:
        return self.completions[0].finish_reason

    @property
    def logprobs(self) -> tuple[Logprob, ...] | None:
        return self.completions[0].logprobs


@dataclass(frozen=True, slots=True)
class Option:
    """One of the options of a choice. Given that the answer is one of them, this one's probability is between the two.

    ``logprob`` is None where it did not need to be known; it is at most ``logprob_high``.
    """

    text: str | None  # None where options were token ids
    token_ids: tuple[int, ...]
    logprob: float | None
    logprob_high: float
    probability_low: float
    probability_high: float


@dataclass(frozen=True, slots=True)
class Chosen:
    """The likeliest of some options, and what is certain of each. ``index`` is None where the budget was too small.

    ``proved``: no option is likelier than the one that was chosen. ``end``: log-probabilities are of an option and an
    end token behind it. Of the report.num_nodes places of the options' tree, report.nodes were looked at.
    """

    index: int | None
    options: tuple[Option, ...]
    report: SearchReport
    prompt: str | None
    prompt_ids: tuple[int, ...]  # those that all options were placed behind
    end: bool
    elapsed_s: float  # from arrival to the answer

    @property
    def text(self) -> str | None:
        return None if self.index is None else self.options[self.index].text

    @property
    def logprob(self) -> float | None:
        return None if self.index is None else self.options[self.index].logprob

    @property
    def proved(self) -> bool:
        return self.report.proved


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of a stream: new text and tokens of one sequence. The last chunk of all carries the whole Output."""

    index: int
    text: str
    token_ids: tuple[int, ...]
    logprobs: tuple[Logprob, ...] | None = None
    finish_reason: FinishReason | None = None  # set on the last chunk of a sequence
    stop_reason: str | int | None = None  # as the Completion's
    output: Output | None = None
