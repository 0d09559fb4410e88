"""Certificate: what a search found and proved, in the words of an answer."""

from __future__ import annotations

import math

from openwork.core.output import Traced
from openwork.serve.generation import Part
from openwork.serve.schema.decoding import Certificate, FoundSequence, OptionShare, TreeNode
from openwork.text.tokenizer import Tokenizer


def certificate_of(part: Part, tokenizer: Tokenizer | None) -> Certificate | None:
    """What one search came to; None where nothing was searched."""
    sought, report = part.sought, part.output.search
    if sought is None or report is None:
        return None
    search, choose = sought.search, sought.search.choose
    kind = "beam" if search.beam is not None else "best_first" if search.best_first is not None else "choose"
    return Certificate(
        strategy=kind,
        proved=report.proved,
        upper_bound=_finite(report.upper_bound),
        gap=_finite(report.gap),
        nodes=report.nodes,
        num_nodes=report.num_nodes,
        generations=report.generations,
        ended_by=report.ended_by,
        found=[
            FoundSequence(
                logprob=_finite(each.logprob),
                score=_finite(each.score),
                token_logprobs=[_finite(one) for one in each.token_logprobs],
            )
            for each in report.found
        ],
        winner=report.winner,
        end=None if choose is None else bool(choose.end),
        options=None
        if choose is None
        else [
            OptionShare(
                text=None if sought.texts is None else sought.texts[tokens],
                token_ids=list(tokens),
                logprob=_finite(share.logprob),
                logprob_high=_finite(share.logprob_high),
                probability_low=share.low,
                probability_high=share.high,
            )
            for tokens, share in zip(choose.options, report.shares, strict=True)
        ],
        tree=[_node(each, tokenizer) for each in report.trace] if search.trace else None,
    )


def _node(each: Traced, tokenizer: Tokenizer | None) -> TreeNode:
    return TreeNode(
        parent=each.parent,
        text=None if tokenizer is None else tokenizer.decode(each.tokens, skip_special=False),
        token_ids=list(each.tokens),
        logprob=_finite(each.logprob),
        bound=_finite(each.bound),
        state=each.state,
    )


def _finite(value: float | None) -> float | None:
    """JSON has no minus infinity."""
    return value if value is not None and math.isfinite(value) else None
