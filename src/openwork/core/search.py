"""Search: how to look for a whole answer, rather than draw one token after the other. Frozen, checked once.

A search is one of three: a beam (a heuristic, no proof), best-first (exact, stopped at any time with what is known by
then), or a choice among given options (exact, with an interval for each). It scores by the model's own distribution;
nothing that bends that distribution goes together with it. Options are token ids here: text belongs to the edge.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Literal

from openwork.core.bounds import check_flag, check_real, check_whole
from openwork.core.budget import Budget
from openwork.core.errors import RequestError
from openwork.core.penalty import Penalty

MAX_WIDTH = 64
MAX_AT_ONCE = 64
MAX_PATIENCE = 16
MAX_OPTIONS = 32_768
MAX_OPTION_TOKENS = 4_194_304  # of all options together


@dataclass(frozen=True, slots=True, kw_only=True)
class Beam:
    """Beam search: in every step the ``width`` best lines go on, whatever they began with.

    length_penalty  sequences compare by log-probability over length to this power. [-10, 10]
    early_stopping  True: end when enough have finished; False: when the best unfinished one, by its length so far, is
                    no better than the worst of them; "never": by the greatest length it may have
    patience        enough is this many times ``width`` (Kasai et al. 2022). [1, 16]
    groups          beams are this many equal groups; each takes tokens less gladly that those before took in this step
    diversity       by how much, for each time it was taken (Vijayakumar et al. 2018). [0, 100]
    budget          when to stop early; lines that are cut by it come behind all that have finished

    Raises RequestError.
    """

    width: int
    length_penalty: float = 1.0
    early_stopping: bool | Literal["never"] = False
    patience: float = 1.0
    groups: int = 1
    diversity: float = 0.0
    budget: Budget = field(default_factory=Budget)

    def __post_init__(self) -> None:
        check_whole("width", self.width, 1, MAX_WIDTH)
        check_real("length_penalty", self.length_penalty, -10, 10)
        check_real("patience", self.patience, 1, MAX_PATIENCE)
        check_whole("groups", self.groups, 1, MAX_WIDTH)
        check_real("diversity", self.diversity, 0, 100)
        if self.early_stopping not in (True, False, "never"):
            raise RequestError(f'must be true, false or "never", not {self.early_stopping!r}', param="early_stopping")
        if self.width % self.groups:
            raise RequestError(f"{self.groups} do not divide a width of {self.width}", param="groups")
        if (self.groups > 1) != (self.diversity > 0):
            raise RequestError(
                f"is {self.diversity} with groups {self.groups}",
                "Groups without diversity would all find the same, and diversity is between groups: give both.",
                param="diversity",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class BestFirst:
    """Best-first search for the likeliest sequences that end, among those of at least params.min_tokens.

    at_once  nodes that are looked at in one step; more cost more, and need fewer steps
    budget   when to stop without a proof

    Raises RequestError.
    """

    at_once: int = 4
    budget: Budget = field(default_factory=lambda: Budget(nodes=10_000))

    def __post_init__(self) -> None:
        check_whole("at_once", self.at_once, 1, MAX_AT_ONCE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Choose:
    """The likeliest of given options, each a line of token ids.

    end        an option is followed by an end token: the answer is it, and nothing more. False: the answer begins with
               it. None: True when one option is the beginning of another, else False
    score_all  give the exact probability of every option, rather than stop when the best is certain
    at_once    nodes that are looked at in one step
    budget     when to stop without a proof

    Raises RequestError.
    """

    options: tuple[tuple[int, ...], ...]
    end: bool | None = None
    score_all: bool = False
    at_once: int = 4
    budget: Budget = field(default_factory=Budget)

    def __post_init__(self) -> None:
        check_whole("at_once", self.at_once, 1, MAX_AT_ONCE)
        check_flag("score_all", self.score_all)
        if self.end is not None:
            check_flag("end", self.end)
        object.__setattr__(self, "options", _options(self.options))
        if self.end is None:
            object.__setattr__(self, "end", _need_end(self.options))
        elif not self.end and _need_end(self.options):
            raise RequestError(
                "must not be false: one option is empty, or the beginning of another",
                "An answer that begins with the longer begins with both; leave it out, or make it true.",
                param="end",
            )

    @property
    def depth(self) -> int:
        """Tokens of the longest option, its end counted."""
        return max(map(len, self.options)) + bool(self.end)


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """One of beam, best_first and choose. ``trace``: how many nodes of the tree are told about, for people to see.

    Raises RequestError.
    """

    beam: Beam | None = None
    best_first: BestFirst | None = None
    choose: Choose | None = None
    penalty: Penalty | None = None
    trace: int = 0

    def __post_init__(self) -> None:
        if sum(each is not None for each in (self.beam, self.best_first, self.choose)) != 1:
            raise RequestError("must be one of beam, best_first and choose", param="search")
        if self.penalty is not None and self.best_first is None:
            raise RequestError("goes with best_first alone", "A beam has its length_penalty.", param="penalty")
        check_whole("trace", self.trace, 0, 100_000)

    @property
    def lines(self) -> int:
        """Sequences that it computes at the same time; lines it keeps beside them give way to anybody."""
        if self.beam is not None:
            return self.beam.width
        return self.best_first.at_once if self.best_first is not None else self._chosen.at_once

    @property
    def budget(self) -> Budget:
        if self.beam is not None:
            return self.beam.budget
        return self.best_first.budget if self.best_first is not None else self._chosen.budget

    @property
    def compares_tokens(self) -> bool:
        """Whether it goes by which tokens are the same in different places, and not by probabilities alone."""
        penalty = self.penalty
        is_diverse = self.beam is not None and self.beam.groups > 1
        return is_diverse or (penalty is not None and (penalty.repetition > 0 or bool(penalty.phrases)))

    @property
    def _chosen(self) -> Choose:
        assert self.choose is not None
        return self.choose

    def check(self, params: Any, vocab_size: int, has_end: bool) -> None:
        """Raises RequestError when it does not go with these SamplingParams, or with a model of so many tokens."""
        for name, plain in _PLAIN.items():
            if getattr(params, name, plain) != plain:
                raise RequestError(
                    f"is {getattr(params, name)!r}, which does not go together with a search",
                    "A search scores by the model's own distribution, and gives log-probabilities with its results.",
                    param=name,
                )
        if self.choose is not None:
            self._check_choose(self.choose, params, vocab_size, has_end)
            return
        if params.constraint is not None:
            _check_complete(params)
        if params.max_tokens == 0:
            raise RequestError("is 0, but a search has to look for something", param="max_tokens")
        if self.beam is not None and params.n > self.beam.width:
            raise RequestError(f"is {params.n}, above the beam's width {self.beam.width}", param="n")
        is_bare = params.constraint is None and (params.min_tokens < 1 or params.max_tokens is None)
        if self.best_first is not None and is_bare:
            raise RequestError(
                "and max_tokens must be given for a best-first search, or a constraint",
                "Each token makes an answer less likely, so without a least length the likeliest one is the shortest, "
                "often empty: an exact search would find just that.",
                param="min_tokens",
            )
        for phrase in self.penalty.phrases if self.penalty is not None else ():
            _check_tokens("penalty.phrases", phrase, vocab_size)

    def _check_choose(self, choose: Choose, params: Any, vocab_size: int, has_end: bool) -> None:
        for name, plain in (("n", 1), ("max_tokens", None), ("min_tokens", 0), ("constraint", None)):
            if getattr(params, name) != plain:
                raise RequestError("does not go together with options, which say their own length", param=name)
        for option in choose.options:
            _check_tokens("options", option, vocab_size)
        if choose.end and not has_end:
            raise RequestError(
                "are to be followed by an end token, and there is none",
                "Name one with stop_token_ids; or let no option be the beginning of another.",
                param="options",
            )


def as_search(how: Beam | BestFirst | Search) -> Search:
    """A search that is nothing but one of its kinds."""
    if isinstance(how, Search):
        return how
    return Search(beam=how) if isinstance(how, Beam) else Search(best_first=how)


# What a search has no use for, and the values that say so.
_PLAIN: dict[str, Any] = {
    "temperature": 1.0,
    "top_k": 0,
    "top_p": 1.0,
    "min_p": 0.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
    "repetition_penalty": 1.0,
    "logit_bias": {},
    "seed": 0,
    "stop": (),
    "logprobs": None,
    "prompt_logprobs": None,
    "best_of": None,
    "repetition_detection": None,
}


def _check_complete(params: Any) -> None:
    """Under a constraint an answer is complete, and the model's own end token says so."""
    for name, plain in (("stop_token_ids", ()), ("ignore_eos", False)):
        if getattr(params, name) != plain:
            raise RequestError(
                "does not go together with a search under a constraint",
                "An answer there is a text that is complete, which an end token of the model says and nothing else.",
                param=name,
            )


def _check_tokens(name: str, tokens: Collection[int], vocab_size: int) -> None:
    for token in tokens:
        if isinstance(token, bool) or not isinstance(token, int) or not 0 <= token < vocab_size:
            raise RequestError(f"names token {token!r}; ids are 0 to {vocab_size - 1}", param=name)


def _options(options: Collection[Collection[int]]) -> tuple[tuple[int, ...], ...]:
    if not 1 <= len(options) <= MAX_OPTIONS:
        raise RequestError(f"must be 1 to {MAX_OPTIONS}, not {len(options)}", param="options")
    if sum(map(len, options)) > MAX_OPTION_TOKENS:
        raise RequestError(f"have more than {MAX_OPTION_TOKENS} tokens together", param="options")
    lines = tuple(map(tuple, options))
    places: dict[tuple[int, ...], int] = {}
    for place, line in enumerate(lines):
        if places.setdefault(line, place) != place:
            raise RequestError(f"{places[line]} and {place} are the same tokens", param="options")
    return lines


def _need_end(options: tuple[tuple[int, ...], ...]) -> bool:
    """Whether one option is the beginning of another, or of everything."""
    ordered = sorted(options)  # whatever begins with a line stands right behind it
    return not ordered[0] or any(two[: len(one)] == one for one, two in pairwise(ordered))
