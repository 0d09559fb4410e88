"""Decoding: the field of that name as a Search of the engine.

A search scores by the model's own distribution, so what a client leaves out is plain here and not as the checkpoint
recommends, and what bends it is refused by Search itself. Options and phrases are text to clients; as tokens they are
placed behind each prompt as docs/search.md says, beside the event loop.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from openwork.core.budget import Budget
from openwork.core.errors import RequestError
from openwork.core.penalty import Penalty
from openwork.core.search import Beam, BestFirst, Choose, Search
from openwork.serve.bounds import Bounds
from openwork.serve.errors import bad_request
from openwork.serve.sampling import renamed
from openwork.serve.schema.decoding import (
    BeamBody,
    BestFirstBody,
    BudgetBody,
    ChooseBody,
    Decoding,
    PenaltyBody,
)
from openwork.serve.texts import Texts, need_tokenizer
from openwork.text.options import Placed, place
from openwork.text.tokenizer import Tokenizer

DEFAULT_NODES = 10_000  # of a best-first search without a budget
_OWN = ("width", "length_penalty", "early_stopping", "patience", "groups", "diversity", "at_once", "options", "end")
# The fields of decoding, by the names that core has for them.
NAMES: Mapping[str, str] = {
    **{name: f"decoding.{name}" for name in _OWN},
    **{f"penalty.{name}": f"decoding.penalty.{name}" for name in PenaltyBody.__struct_fields__},
    "trace": "decoding.tree",
    **{f"budget.{name}": f"decoding.budget.{name}" for name in BudgetBody.__struct_fields__},
}


@dataclass(frozen=True, slots=True)
class Sought:
    """What is looked for behind one prompt. ``texts`` are the options' own, by their tokens."""

    prompt_ids: tuple[int, ...]
    search: Search
    texts: Mapping[tuple[int, ...], str] | None = None


async def seek(
    decoding: Decoding, prompts: Sequence[str | None], ids: Sequence[Sequence[int]], texts: Texts, bounds: Bounds
) -> list[Sought]:
    """What is to be looked for behind each prompt, of which the text is known or None. Raises ApiError 400."""
    _check(decoding, bounds)
    language = await texts.language()
    if isinstance(decoding, ChooseBody) and isinstance(decoding.options[0], str):
        need_tokenizer(language, "decoding.options")
    if isinstance(decoding, BestFirstBody) and _has_text(decoding.penalty):
        need_tokenizer(language, "decoding.penalty.phrases")

    def work() -> list[Sought]:
        if isinstance(decoding, ChooseBody):
            return [_choice(decoding, text, each, language.tokenizer) for text, each in zip(prompts, ids, strict=True)]
        search = _search(decoding, language.tokenizer, bounds)
        return [Sought(tuple(each), search) for each in ids]

    try:
        return await texts.run(work)
    except RequestError as error:
        raise renamed(error, NAMES) from None


def check_lines(sought: Sequence[Sought], bounds: Bounds) -> None:
    """Raises ApiError 400 for more lines than one call may compute."""
    lines = sum(each.search.lines for each in sought)
    if lines > bounds.sequences:
        name = "width" if sought[0].search.beam is not None else "at_once"
        raise bad_request(
            f"decoding.{name}: {len(sought)} prompts would be {lines} sequences at a time; at most {bounds.sequences} "
            "are allowed. Send several requests.",
            f"decoding.{name}",
        )


def _check(decoding: Decoding, bounds: Bounds) -> None:
    given = decoding.budget
    if given is not None and (given.nodes or 0) > bounds.search_nodes:
        raise bad_request(
            f"decoding.budget.nodes is {given.nodes}; at most {bounds.search_nodes} are allowed.",
            "decoding.budget.nodes",
        )
    if isinstance(decoding, BestFirstBody | ChooseBody) and (decoding.tree or 0) > bounds.tree:
        raise bad_request(f"decoding.tree is {decoding.tree}; at most {bounds.tree} are shown.", "decoding.tree")
    if isinstance(decoding, ChooseBody):
        options = decoding.options
        if len(options) > bounds.options:
            raise bad_request(
                f"decoding.options has {len(options)} entries; at most {bounds.options} are allowed.",
                "decoding.options",
            )
        if any(type(each) is not type(options[0]) for each in options):
            raise bad_request("decoding.options must be all texts, or all lists of token ids.", "decoding.options")


def _search(decoding: BeamBody | BestFirstBody, tokenizer: Tokenizer | None, bounds: Bounds) -> Search:
    if isinstance(decoding, BeamBody):
        return Search(beam=Beam(**{**_given(decoding), "budget": Budget(**_given(decoding.budget))}))
    fields: dict[str, Any] = {} if decoding.at_once is None else {"at_once": decoding.at_once}
    nodes = bounds.search_nodes if decoding.budget is not None else min(DEFAULT_NODES, bounds.search_nodes)
    fields["budget"] = Budget(**{"nodes": nodes, **_given(decoding.budget)})
    best_first = BestFirst(**fields)
    return Search(best_first=best_first, penalty=_penalty(decoding.penalty, tokenizer), trace=decoding.tree or 0)


def _penalty(given: PenaltyBody | None, tokenizer: Tokenizer | None) -> Penalty | None:
    if given is None:
        return None
    fields = _given(given)
    if given.phrases is not None:
        fields["phrases"] = tuple(
            tuple(tokenizer.encode(each, add_special=False))
            if isinstance(each, str) and tokenizer is not None
            else tuple(each)
            for each in given.phrases
        )
    return Penalty(**fields)


def _choice(given: ChooseBody, prompt: str | None, ids: Sequence[int], tokenizer: Tokenizer | None) -> Sought:
    options: Any = given.options
    placed: Placed = place(tokenizer, prompt, ids, options)
    how = Choose(
        options=placed.options,
        end=given.end,
        score_all=bool(given.score_all),
        budget=Budget(**_given(given.budget)),
        **({} if given.at_once is None else {"at_once": given.at_once}),
    )
    texts = {} if isinstance(options[0], list) else dict(zip(placed.options, options, strict=True))
    return Sought(placed.prompt_ids, Search(choose=how, trace=given.tree or 0), texts or None)


def _has_text(penalty: PenaltyBody | None) -> bool:
    return penalty is not None and any(isinstance(each, str) for each in penalty.phrases or ())


def _given(body: Any) -> dict[str, Any]:
    """The fields that were given."""
    if body is None:
        return {}
    return {name: value for name, value in msgspec.structs.asdict(body).items() if value is not None}
