"""What became of one request, told as one document.

    entries -> gather(id) -> Journey -> request_document -> JSON

Numbers in the document are measured (they stand in the recording) or derived (they follow from those that do);
``marks`` says which.
What the recording does not hold is None and named in ``missing``. It knows no model and no text.
"""

from __future__ import annotations

from dataclasses import asdict, fields
from pathlib import PurePath
from typing import Any

from openwork.core.event import Account, Admitted, Finished, Preempted, Token
from openwork.core.request import SamplingParams
from openwork.core.step import Work
from openwork.trace.story import Line
from openwork.trace.view.guesses import guesses
from openwork.trace.view.journey import Journey, Part
from openwork.trace.view.search import TextOf, search_document

MARKS = {
    "elapsed_s": "measured",
    "time_s": "measured",
    "rows": "measured",
    "hash": "measured",
    "blocks": "measured",
    "logprob": "measured",
    "source": "derived",
    "held": "derived",
}


def request_document(journey: Journey, text_of: TextOf) -> dict[str, Any]:
    """All that the recording says about a request. Times are seconds since it arrived."""
    request, began, story = journey.request, journey.began, journey.story
    arrived = story.arrived_unix_s or 0.0

    def text(token: int) -> str | None:
        return text_of(token) if story.has_tokens else None

    about = ("contract_id", "dtype", "kv_dtype", "threads", "version")
    return {
        "id": story.id,
        "model": None if began is None else model_name(began.model),
        **{name: None if began is None else getattr(began, name) for name in about},
        "block_size": None if began is None else began.cache.block_size,
        "num_blocks": None if began is None else began.cache.num_blocks,
        "unix_s": story.arrived_unix_s,
        "processes": story.lives,
        "tenant": story.tenant,
        "queued_s": story.queued_s,
        "first_token_s": story.first_token_s,
        "took_s": story.took_s,
        "has_tokens": story.has_tokens,
        "sampling": sampling(request.params),
        "constraint": None if request.params.constraint is None else request.params.constraint.kind,
        "prompt": {"ids": list(request.prompt), "texts": [text(t) for t in request.prompt]},
        "cached": story.cached,
        "sequences": [_sequence(journey, index, text, arrived) for index in journey.indices],
        "sources": [_sources(journey, index) for index in journey.indices],
        "steps": _steps(journey, arrived),
        "guesses": guesses(journey, text),
        "guessed_by": None if began is None or began.schedule.speculation is None else began.schedule.speculation.guess,
        "story": _told(journey, arrived),
        "account": None if story.account is None else _account(story.account),
        "search": None if story.search is None else search_document(story.search, text),
        "marks": MARKS,
        "missing": _missing(journey),
    }


def model_name(model: str) -> str:
    """As it is shown: of a directory its own name alone, since where it lies is the operator's business."""
    return PurePath(model).name if model.startswith(("/", "~", ".", "\\")) or ":" in model else model


def _account(account: Account) -> dict[str, Any]:
    """Without who took the blocks that were missing: that is for operators, and in the timeline."""
    miss = None if account.miss is None else {"cause": account.miss.cause, "token": account.miss.token}
    return {**asdict(account), "miss": miss}


def sampling(params: SamplingParams) -> dict[str, Any]:
    """What was asked for that is not the default, and always the temperature and the seed."""
    plain = SamplingParams()
    found: dict[str, Any] = {"temperature": params.temperature, "seed": params.seed}
    for each in fields(params):
        value = getattr(params, each.name)
        if each.name != "constraint" and value != getattr(plain, each.name):
            found[each.name] = {str(k): v for k, v in value.items()} if each.name == "logit_bias" else value
    return found


def _sequence(journey: Journey, index: int, text: TextOf, arrived: float) -> dict[str, Any]:
    line = journey.story.lines.get(index, Line())
    logprobs = {
        e.position - journey.story.prompt_len: e.choice.logprob.logprob
        for _, _, e in journey.events
        if isinstance(e, Token) and e.index == index and e.choice.logprob is not None
    }
    return {
        "index": index,
        "ids": list(line.tokens),
        "texts": [text(t) for t in line.tokens],
        "hashes": [None if each is None else f"{each:016x}" for each in line.row_hashes],
        "steps": list(line.steps),
        "runs": list(line.runs),
        "logprobs": [logprobs.get(place) for place in range(len(line.tokens))],
        "finish_reason": line.finish_reason,
        "stop_id": line.stop_id,
    }


def _sources(journey: Journey, index: int) -> list[dict[str, Any]]:
    """Where the keys and values at each position came from: found in the cache, a chunk of the prompt, generated."""
    prompt_len, cached = journey.story.prompt_len, journey.story.cached
    found: list[dict[str, Any]] = []
    if cached:
        found.append({"kind": "shared", "first": 0, "end": cached, "label": "shared prefix"})
    reached, chunk = cached, 0
    for part in journey.parts:
        for own, work in part.works:
            end = min(work.start + work.count, prompt_len)
            if own in (index, 0) and end > reached:
                chunk += 1
                label = f"prompt, chunk {chunk}"
                found.append({"kind": "chunk", "first": reached, "end": end, "label": label, "step": part.step.number})
                reached = end
    count = len(journey.story.lines.get(index, Line()).tokens)
    if count:
        found.append({"kind": "generated", "first": prompt_len, "end": prompt_len + count, "label": "generated"})
    return found


def _steps(journey: Journey, arrived: float) -> list[dict[str, Any]]:
    tables: dict[int, tuple[int, ...]] = {}  # the block table of each sequence, in its step before
    return [_step(part, arrived, tables) for part in journey.parts]


def _step(part: Part, arrived: float, tables: dict[int, tuple[int, ...]]) -> dict[str, Any]:
    why = part.step.why
    return {
        "run": part.run,
        "number": part.step.number,
        "time_s": part.time - arrived,
        "elapsed_s": part.elapsed_s,
        "rows": part.step.num_rows,
        "own_rows": sum(work.count for _, work in part.works),
        "sequences": len(part.step.works),
        "copies": [[copy.source, copy.target] for copy in part.copies],
        "works": [_work(index, work, tables) for index, work in part.works],
        "why": None if why is None else {"order": why.order, "rows": why.rows, "bound": why.bound},
        "failed": part.failed or None,
    }


def _work(index: int, work: Work, tables: dict[int, tuple[int, ...]]) -> dict[str, Any]:
    """Its first ``kept`` blocks are those of its step before: told whole, a long answer would grow with its square."""
    before = tables.get(index, ())
    pairs = enumerate(zip(before, work.blocks, strict=False))
    kept = next((place for place, (a, b) in pairs if a != b), min(len(before), len(work.blocks)))
    tables[index] = work.blocks
    return {
        "index": index,
        "start": work.start,
        "count": work.count,
        "kept": kept,
        "blocks": list(work.blocks[kept:]),
    }


def _told(journey: Journey, arrived: float) -> list[dict[str, Any]]:
    """What happened to its blocks and its place, each with its cause, in order."""
    told: list[dict[str, Any]] = []

    def say(step: int | None, time: float, what: str, cause: str, index: int, **more: Any) -> None:
        told.append({"step": step, "time_s": time - arrived, "what": what, "cause": cause, "index": index, **more})

    tables: dict[int, tuple[int, ...]] = {}
    size = 1 if journey.began is None else journey.began.cache.block_size
    adopted = {(e.index, step): e.cached for _, step, e in journey.events if isinstance(e, Admitted)}
    for part in journey.parts:
        number = part.step.number
        for index, work in part.works:
            cached = adopted.get((index, number))
            held = set() if cached is not None else set(tables.get(index, ()))
            new = [block for block in work.blocks if block not in held]
            shared = new[: (cached or 0) // size]
            if shared:
                say(number, part.time, "share", f"{cached} positions were in the cache", index, blocks=shared)
            copied = [copy.target for copy in part.copies]
            taken = [b for b in new[len(shared) :] if b not in copied]
            if taken and index not in tables and cached is None:
                say(number, part.time, "share", "it goes on from its sibling", index, blocks=taken)
            elif taken:
                last = work.start + work.count - 1
                say(number, part.time, "take", f"room for positions up to {last}", index, blocks=taken)
            tables[index] = work.blocks
            for copy in part.copies:
                if copy.target in work.blocks:
                    cause = "a shared block is about to be written to"
                    say(number, part.time, "copy", cause, index, blocks=[copy.source, copy.target])
    for time, step, event in journey.events:
        if isinstance(event, Admitted):
            miss = "nothing was missing" if event.miss is None else f"no more was cached: {event.miss.cause}"
            say(step, time, "admit", f"{event.cached} positions found in the cache; {miss}", event.index)
        elif isinstance(event, Preempted):
            kept = f"{event.forgotten} positions forgotten, {event.kept} of them still cached"
            say(step, time, "preempt", f"{event.cause} ran out; {kept}", event.index)
        elif isinstance(event, Finished):
            say(step, time, "finish", event.reason, event.index)
    rank = {"admit": 0, "share": 1, "copy": 2, "take": 3}
    return sorted(told, key=lambda each: (each["time_s"], rank.get(each["what"], 4)))


def _missing(journey: Journey) -> list[str]:
    story, found = journey.story, []
    if not story.has_tokens:
        found.append("The recording keeps no prompts: tokens are stand-ins, and nothing can be derived again.")
    if not story.is_whole:
        found.append("A part of this request is not in the recording any more.")
    if any(part.elapsed_s is None and not part.failed for part in journey.parts):
        found.append("Of some steps no result was recorded: the engine ended before it came.")
    hashes = [each for line in story.lines.values() for each in line.row_hashes]
    if hashes and story.search is None and all(each is None for each in hashes):
        found.append("No hashes of logits were recorded, so nothing can be proved to be the bits that were served.")
    if story.search is not None and not story.search.trace and not story.has_tokens:
        found.append("The search was not asked for its tree (trace); without tokens it cannot be drawn from rows.")
    return found
