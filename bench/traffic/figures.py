"""Figures: what the answers to a trace amount to.

first token     from the moment the trace wanted the request sent: whoever is late, server or client, is not excused
gap             between one chunk of text and the next; servers send one token a chunk, and ``tokens_per_chunk`` says so
goodput         requests a second whose first token and mean gap were within the targets; "strict": every gap
fairness        Jain's index of what tenants got over what they were entitled to, 1 when nobody had less than another

It knows no sockets and no files: numbers from numbers.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from traffic.answer import Answer
from traffic.trace import Arrival

PERCENTILES = (50, 90, 99)


@dataclass(frozen=True)
class Targets:
    """How soon a request wants its first token, and those after it."""

    first_s: float = 2.0
    gap_s: float = 0.2


def summary(arrivals: Sequence[Arrival], answers: Sequence[Answer], targets: Targets) -> dict[str, Any]:
    """One replay in numbers. Requests that failed count in ``errors`` and against goodput, and nowhere else."""
    whole = [answer for answer in answers if answer.is_whole]
    began_s = min(answer.due_s for answer in answers)
    duration_s = max(answer.ended_s for answer in answers) - began_s
    num_good, num_strict = met(whole, targets)
    told = [answer for answer in whole if answer.cached_tokens is not None]
    num_tokens = sum(answer.completion_tokens for answer in whole)
    chunks = sum(len(answer.text_times_s) for answer in whole)
    return {
        "requests": len(answers),
        "whole": len(whole),
        "errors": dict(Counter(answer.failure for answer in answers if not answer.is_whole)),
        "duration_s": duration_s,
        "tok_s": num_tokens / duration_s,
        "prompt_tok_s": sum(answer.prompt_tokens for answer in whole) / duration_s,
        "tokens_per_chunk": num_tokens / chunks if chunks else None,
        "first_s": spread(answer.first_s for answer in whole),
        "gap_s": spread(gap for answer in whole for gap in answer.gaps_s),
        "end_s": spread(answer.ended_s - answer.due_s for answer in whole),
        "goodput": num_good / duration_s,
        "goodput_strict": num_strict / duration_s,
        "met": num_good / len(answers),
        "hit_rate": share((answer.cached_tokens or 0 for answer in told), (answer.prompt_tokens for answer in told)),
        "fairness": fairness(arrivals, answers),
        "client_late_s": max((answer.sent_s - answer.due_s for answer in answers if answer.sent_s), default=0.0),
    }


def met(answers: Iterable[Answer], targets: Targets) -> tuple[int, int]:
    """How many answers met the targets: by the mean of their gaps, and by each of them."""
    num_good = num_strict = 0
    for answer in answers:
        gaps = answer.gaps_s or [0.0]
        if answer.first_s > targets.first_s:
            continue
        num_good += statistics.fmean(gaps) <= targets.gap_s
        num_strict += max(gaps) <= targets.gap_s
    return num_good, num_strict


def spread(values: Iterable[float]) -> dict[str, float] | None:
    """Mean, percentiles and maximum; None of nothing."""
    held = sorted(values)
    if not held:
        return None
    found = {f"p{percent}": percentile(held, percent) for percent in PERCENTILES}
    return {"mean": statistics.fmean(held), **found, "max": held[-1]}


def percentile(held: Sequence[float], percent: float) -> float:
    """Of sorted values, between the two nearest ranks as far as it lies between them."""
    at = (len(held) - 1) * percent / 100
    below = int(at)
    above = min(below + 1, len(held) - 1)
    return held[below] + (held[above] - held[below]) * (at - below)


def share(parts: Iterable[float], of: Iterable[float]) -> float | None:
    whole = sum(of)
    return sum(parts) / whole if whole else None


def fairness(arrivals: Sequence[Arrival], answers: Sequence[Answer]) -> float | None:
    """Jain's index over tenants, None with fewer than two: of tokens got, over the max-min fair share of what all got.

    It is taken at the moment when half of all tokens were delivered: later, whoever asked for little has it all. Prompt
    tokens count as delivered with the first of the answer. Source: Jain, Chiu and Hawe 1984, DEC-TR-301.
    """
    if len({arrival.tenant for arrival in arrivals}) < 2:
        return None
    delivered: list[tuple[float, str, int]] = []
    for arrival, answer in zip(arrivals, answers, strict=True):
        for number, at_s in enumerate(answer.text_times_s):
            delivered.append((at_s, arrival.tenant, 1 if number else 1 + arrival.prompt_length))
    if not delivered:
        return None
    delivered.sort()
    sums = list(accumulate(tokens for *_, tokens in delivered))
    half = 1 + next(at for at, tokens in enumerate(sums) if tokens >= sums[-1] / 2)
    got, asked = Counter[str](), Counter[str]()
    for _, tenant, tokens in delivered[:half]:
        got[tenant] += tokens
    for arrival, answer in zip(arrivals, answers, strict=True):
        if answer.due_s <= delivered[half - 1][0]:
            asked[arrival.tenant] += arrival.prompt_length + arrival.max_tokens
    fair = fair_shares(asked, sums[half - 1])
    return jain([got[tenant] / fair[tenant] for tenant in fair])


def fair_shares(asked: Mapping[str, float], given: float) -> dict[str, float]:
    """``given`` divided so that nobody gets more than was asked, and nobody could get more without one who has less
    getting even less (max-min fairness)."""
    shares, left = {}, given
    for number, tenant in enumerate(sorted(asked, key=lambda name: asked[name])):
        shares[tenant] = min(asked[tenant], left / (len(asked) - number))
        left -= shares[tenant]
    return shares


def jain(values: Sequence[float]) -> float:
    """(sum x)^2 / (n sum x^2): 1 when all are equal, 1/n when one has everything."""
    squares = sum(value * value for value in values)
    return sum(values) ** 2 / (len(values) * squares) if squares else 1.0
