"""Replay of the bits: a recorded request, derived again in one prefill pass, compared token by token.

    prompt + answer --one pass--> row of logits i --hash--> is it the one recorded with token i?
                                                  --choose--> is token i what is chosen from it?

By the numeric contract both hold whatever the request was served among: batches, prefix hits, preemptions, forks, other
processes. What differs is named: the sequence, the token, and the layer and operation as far as stamps tell them
(difference.py). It does not know how a recording is stored, nor where the model comes from.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from openwork.core.errors import TraceError
from openwork.core.request import Request
from openwork.core.stamp import Stamp, first_difference
from openwork.core.step import Draw, Step, Work
from openwork.run.capture import Examination, Examiner
from openwork.run.masks import DeadEnd, Masks
from openwork.run.sample import choose
from openwork.trace.entry import Began
from openwork.trace.replay.difference import Difference, damaged, locate
from openwork.trace.replay.verdict import Verdict
from openwork.trace.story import Line, Story


def replay(examiner: Examiner, began: Began, story: Story, token: int | None = None) -> Verdict[Difference]:
    """Derive a request again and compare it: all of it, or one ``token`` of each sequence that has so many. A search is
    replay_search's.

    ``began`` is the process that served it. Raises TraceError when the recording does not hold what this takes, or was
    made with another model or contract id; MemoryTooSmall when the sequence does not fit.
    """
    request = check(story, token)
    check_model(examiner, began)
    lines = {index: line for index, line in sorted(story.lines.items()) if len(line.tokens) > (token or 0)}
    compared = unhashed = 0
    chooser = _Chooser(examiner, request)
    try:
        for index, i, row, found_hash, stamp in _rows(examiner, request, lines, token):
            line = lines[index]
            recorded, wanted = line.row_hashes[i], line.tokens[i]
            compared, unhashed = compared + 1, unhashed + (recorded is None)
            found = chooser.choose(row, index, tuple(line.tokens[:i]))
            if recorded not in (None, found_hash):
                difference = Difference(
                    index, i, len(request.prompt) - 1 + i, "logits", f"{recorded:016x}", f"{found_hash:016x}"
                )
                difference = locate(difference, examiner, request.prompt, line, began.weights is not None)
                return Verdict(story.id, compared, unhashed, difference)
            if found != wanted:
                difference = Difference(
                    index, i, len(request.prompt) - 1 + i, "choice", str(wanted), str(found), finding=_OTHER_CHOICE
                )
                return Verdict(story.id, compared, unhashed, difference)
            if stamp != line.stamps[i]:
                return Verdict(story.id, compared, unhashed, _damaged(index, i, request, line.stamps[i], stamp))
    finally:
        chooser.close()
    return Verdict(story.id, compared, unhashed, None)


def check(story: Story, token: int | None = None) -> Request:
    """What was asked, if the recording has it and it is something that can be derived again; else TraceError."""
    what, request = f"request {story.id}", story.request
    if story.error:
        raise TraceError(f"{what} was not accepted: {story.error}", "Nothing was computed for it.")
    # A search is what its rows were, and a picture holds none of them.
    is_there = request is not None and (story.is_known if request.search is None else story.is_whole)
    if request is None or not is_there:
        raise TraceError(f"a part of {what} is not in the recording", "Give the recording more room on disk.")
    if not story.has_tokens:
        raise TraceError(
            f"{what} was recorded without its tokens, so its bits cannot be derived again",
            "Record with prompts kept; its schedule can be replayed as it is.",
        )
    longest = max((len(line.tokens) for line in story.lines.values()), default=0)
    if token is not None and not 0 <= token < longest:
        raise TraceError(f"{what} has no token {token}", f"It has {longest}, counted from 0.")
    return request


_OTHER_CHOICE = (
    "the row of logits is the one that was recorded, so the choice was made otherwise: with other parameters, or by a "
    "version that chooses otherwise"
)


def check_model(examiner: Examiner, began: Began) -> None:
    """Refuse to compare what must differ."""
    pairs = (
        ("contract id", began.contract_id, examiner.contract_id, "The same needs a machine with these instructions."),
        ("dtype", began.dtype, examiner.dtype, "Open the model with the dtype that served."),
        ("kv_dtype", began.kv_dtype, examiner.kv_dtype, "Open the model with the kv_dtype that served."),
        ("vocabulary", began.vocab_size, examiner.limits.vocab_size, "Name the model that served with --model."),
    )
    for name, recorded, here, hint in pairs:
        if recorded != here:
            raise TraceError(f"the recording was made with {name} {recorded}, this is {here}", hint)
    if began.weights is not None and began.weights != (found := examiner.fingerprint()):
        raise TraceError(
            f"the recording was made with other weights: its model {began.model} has the fingerprint "
            f"{began.weights:016x}, this one, {examiner.name}, {found:016x}",
            "Name the model that served with --model.",
        )


def _rows(
    examiner: Examiner, request: Request, lines: Mapping[int, Line], token: int | None
) -> Iterator[tuple[int, int, np.ndarray, int, Stamp | None]]:
    """(sequence, token, row of logits, its hash, its stamp if one was recorded) for every token that is compared, each
    line in one pass."""
    before = len(request.prompt)
    sequences = {  # what is read: all but the token that is chosen last
        index: (*request.prompt, *line.tokens[: len(line.tokens) - 1 if token is None else token])
        for index, line in lines.items()
        if line.tokens
    }
    examination: Examination | None = None
    for index, sequence in sequences.items():
        if examination is None:
            examination = examiner.examine(sequence, room=max(map(len, sequences.values())))
        else:
            examination.turn_to(sequence)
        stamped = [before - 1 + i for i, stamp in enumerate(lines[index].stamps) if stamp is not None]
        for position, row, row_hash in examination.rows(before - 1 + (token or 0), stamped):
            yield index, position + 1 - before, row, row_hash, examination.stamps.get(position)


def _damaged(index: int, token: int, request: Request, recorded: Stamp | None, found: Stamp | None) -> Difference:
    """Of a row that has the hash and not the stamp that were recorded with it."""
    assert recorded is not None and found is not None
    is_alike = len(recorded) == len(found)
    differing = sum(one != other for one, other in zip(recorded, found, strict=False))
    said = f"{len(recorded)} points", f"{len(found)} points, {differing} of them others"
    difference = Difference(index, token, len(request.prompt) - 1 + token, "stamp", *said)
    return damaged(difference, first_difference(recorded, found) if is_alike else None)


class _Chooser:
    """Chooses tokens as the engine does, from what a request says and the tokens before."""

    def __init__(self, examiner: Examiner, request: Request) -> None:
        self._ops = examiner.model.ops
        self._request = request
        self._masks = Masks(examiner.guide, examiner.limits.vocab_size)
        self._step = 0

    def choose(self, row: np.ndarray, index: int, output: tuple[int, ...]) -> int | None:
        """None: the constraint leaves nothing to choose."""
        request = self._request
        position = len(request.prompt) + len(output)
        draw = Draw(
            params=request.params,
            index=index,
            position=position,
            generated=len(output),
            stop_ids=request.stop_ids,
            history=(*request.prompt, *output) if request.params.has_penalties else (),
            prompt_len=len(request.prompt),
            output=output if request.params.constraint is not None else (),
        )
        try:
            return choose(self._ops, row, draw, allowed=self._allowed(draw, index)).token
        except DeadEnd:
            return None

    def _allowed(self, draw: Draw, index: int) -> np.ndarray | None:
        work = Work(index, draw.position - 1, (0,), False, (), (draw,))
        masks = self._masks.begin(Step(self._step, (work,)), {})
        self._step += 1
        return masks[0][0].result() if masks else None

    def close(self) -> None:
        self._masks.close()
