"""``decoding``: how to look for a whole answer, and what was found and proved. As in docs/search.md."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from openwork.serve.schema.reading import Body
from openwork.serve.schema.usage import Said

Token = Annotated[int, Meta(ge=0, le=2**31 - 1)]
Whole = Annotated[int, Meta(ge=1, le=10_000_000)]
Ahead = Annotated[int, Meta(ge=1, le=64, description="places that are looked at in one step")]
Most = Annotated[int, Meta(ge=0, le=100_000, description="places of the tree to tell about")]
Nats = Annotated[float, Meta(ge=0, le=1e6)]
Phrase = Annotated[list[Token], Meta(min_length=1, max_length=256)]


class BudgetBody(Body, frozen=True, kw_only=True):
    """When to stop without a proof."""

    nodes: Whole | None = None
    tokens: Whole | None = None
    seconds: Annotated[float, Meta(ge=0, le=1e9)] | None = None
    finished: Annotated[Whole, Meta(description="sequences that have ended")] | None = None
    blocks: Annotated[int, Meta(ge=0, le=10_000_000)] | None = None


class PenaltyBody(Body, frozen=True, kw_only=True):
    length: Literal["power", "gnmt"] | None = None
    alpha: Annotated[float, Meta(ge=0, le=10)] | None = None
    repetition: Nats | None = None
    ngram: Annotated[int, Meta(ge=1, le=64)] | None = None
    coverage: Nats | None = None
    phrases: Annotated[list[str | Phrase], Meta(max_length=64)] | None = None
    rerank: bool | None = None


class BeamBody(Body, tag_field="strategy", tag="beam", frozen=True, kw_only=True):
    width: Annotated[int, Meta(ge=1, le=64)]
    length_penalty: Annotated[float, Meta(ge=-10, le=10)] | None = None
    early_stopping: bool | Literal["never"] | None = None
    patience: Annotated[float, Meta(ge=1, le=16)] | None = None
    groups: Annotated[int, Meta(ge=1, le=64)] | None = None
    diversity: Annotated[float, Meta(ge=0, le=100)] | None = None
    budget: BudgetBody | None = None


class BestFirstBody(Body, tag_field="strategy", tag="best_first", frozen=True, kw_only=True):
    at_once: Ahead | None = None
    budget: BudgetBody | None = None
    penalty: PenaltyBody | None = None
    tree: Most | None = None


class ChooseBody(Body, tag_field="strategy", tag="choose", frozen=True, kw_only=True):
    options: Annotated[list[str | list[Token]], Meta(min_length=1, max_length=32_768)]
    end: bool | None = None
    score_all: bool | None = None
    at_once: Ahead | None = None
    budget: BudgetBody | None = None
    tree: Most | None = None


Decoding = BeamBody | BestFirstBody | ChooseBody


class FoundSequence(Said, frozen=True, kw_only=True):
    """The choice at the same place. Log-probabilities are of the model's own distribution, in nats."""

    logprob: float | None
    score: float | None
    token_logprobs: list[float | None]


class OptionShare(Said, frozen=True, kw_only=True):
    """``logprob`` is null where it did not need to be known; it is at most ``logprob_high``. null: impossible."""

    text: str | None
    token_ids: list[int]
    logprob: float | None
    logprob_high: float | None
    probability_low: float
    probability_high: float


class TreeNode(Said, frozen=True, kw_only=True):
    """``parent`` is a place in the list; ``state``: expanded, open, rest or found."""

    parent: int | None
    text: str | None
    token_ids: list[int]
    logprob: float | None
    bound: float | None
    state: str


class Certificate(Said, frozen=True, kw_only=True):
    """What was found and what is proved of it.

    proved       no sequence that is not among the choices scores above the last of them
    upper_bound  nothing that might have been found scores above it; null where nothing is proved, or nothing possible
    gap          the bound less the best score, in nats
    nodes        places that were looked at, of num_nodes where that is known
    ended_by     proved, complete (a beam), or what was used up
    """

    strategy: str
    proved: bool
    upper_bound: float | None
    gap: float | None
    nodes: int
    num_nodes: int | None
    generations: int
    ended_by: str
    found: list[FoundSequence]
    winner: int | None = None
    end: bool | None = None
    options: list[OptionShare] | None = None
    tree: list[TreeNode] | None = None
