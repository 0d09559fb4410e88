"""Private: requests without what people wrote, for a log that may not keep it.

What decides the schedule stays: lengths, numbers, whether there is a constraint. Texts, biases and phrases go. Tokens
are none of its business (pseudonym.py).
"""

from __future__ import annotations

from dataclasses import replace

from openwork.core.constraint import Constraint
from openwork.core.penalty import Penalty
from openwork.core.request import SamplingParams
from openwork.core.search import Choose, Search

_NEUTRAL = {"json_schema": "{}", "regex": ".*", "choice": '["-"]', "lark": 'start: "-"'}


def params(params: SamplingParams) -> SamplingParams:
    """``stop_token_ids`` stay: a replay must know what ends a line. What repeats itself is not seen from stand-ins."""
    held = params.constraint
    neutral = None if held is None else Constraint(held.kind, _NEUTRAL[held.kind])
    return replace(params, stop=(), logit_bias={}, constraint=neutral, repetition_detection=None)


def search(search: Search) -> Search:
    """The options go one by one, as words: here they are all left out but a first one."""
    penalty: Penalty | None = search.penalty
    if penalty is not None and penalty.phrases:
        penalty = replace(penalty, phrases=(), coverage=0.0)
    choose: Choose | None = search.choose
    if choose is not None:
        choose = replace(choose, options=((0,),))
    return replace(search, penalty=penalty, choose=choose)
