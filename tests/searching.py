"""Searches without an engine: a strategy driven by a distribution alone, and what enumeration says is true."""

import math
from functools import cache

from openwork.core.output import SearchReport
from openwork.core.step import Candidates
from openwork.decode.objective import Objective
from openwork.decode.search import strategy_of
from openwork.decode.strategy import Answer, Spent
from openwork.testing.echo import candidates


def answer(leaf, prompt, likelihood, allowed=None):
    """What the model says of a leaf; ``allowed`` maps what was generated to the tokens that a constraint leaves."""
    line = (*prompt, *leaf.line)
    first = len(line) - leaf.fresh + 1
    scores = tuple(likelihood(line[:at])[line[at]] for at in range(first, len(line))) if leaf.fresh > 1 else ()
    if leaf.expand.constraint is None:
        return Answer(scores, candidates(likelihood(line), leaf.expand))
    assert leaf.expand.output == leaf.line
    left = allowed(leaf.line)
    row = [own if token in left else -math.inf for token, own in enumerate(likelihood(line))]
    found = candidates(row, leaf.expand)
    return Answer(scores, Candidates(tuple(each for each in found.top if each[0] in left), found.among))


def search_alone(request, likelihood, seconds=0.0, allowed=lambda line: range(1 << 16)):
    """The report of a search, and the tokens it told before its end."""
    strategy, told, tokens = strategy_of(request), [], 0
    generation = strategy.begin()
    while True:
        answers = {leaf.node: answer(leaf, request.prompt, likelihood, allowed) for leaf in generation.leaves}
        tokens += sum(max(1, leaf.fresh) for leaf in generation.leaves)
        generation = strategy.decide(answers, Spent(tokens, seconds))
        if isinstance(generation, SearchReport):
            return generation, told
        told += generation.agreed


def line_logprob(likelihood, prompt, line):
    return math.fsum(likelihood((*prompt, *line[:at]))[token] for at, token in enumerate(line))


def option_logprobs(request, likelihood):
    """The log-probability of each option, its end included where it has one."""
    ends = sorted(request.stop_ids)
    found = []
    for option in request.search.choose.options:
        logprob = line_logprob(likelihood, request.prompt, option)
        if request.search.choose.end:
            after = likelihood((*request.prompt, *option))
            logprob += math.log(math.fsum(math.exp(after[token]) for token in ends))
        found.append(logprob)
    return found


def every_legal(request, likelihood, allowed):
    """All complete sequences under a constraint, best first: (score, tokens, log-probability)."""
    ends, most = request.end_ids, request.max_tokens
    objective = Objective(request.search.penalty, most)
    found, jobs = [], [((), 0.0)]
    for line, logprob in jobs:
        row = likelihood((*request.prompt, *line))
        for token in allowed(line):
            longer, total = (*line, token), logprob + row[token]
            if token not in ends and len(longer) < most:
                jobs.append((longer, total))
            elif token in ends and len(line) >= request.params.min_tokens:
                found.append((objective.score(total, longer), longer, total))
    return sorted(found, key=lambda each: (-each[0], each[1]))


def every_sequence(request, likelihood):
    """All sequences that can be generated, best first: (score, tokens, log-probability)."""
    params, stops, most = request.params, request.stop_ids, request.max_tokens
    objective = Objective(request.search.penalty, most)
    found = []

    def go(line, logprob):
        for token, own in enumerate(likelihood((*request.prompt, *line))):
            if token in stops and len(line) < params.min_tokens:
                continue
            longer, total = (*line, token), logprob + own
            if token in stops or len(longer) == most:
                found.append((objective.score(total, longer), longer, total))
            else:
                go(longer, total)

    go((), 0.0)
    return sorted(found, key=lambda each: (-each[0], each[1]))


def remembered(likelihood):
    """The same distribution, computed once for each beginning."""
    kept = cache(lambda tokens: tuple(likelihood(list(tokens))))
    return lambda tokens: kept(tuple(tokens))
