"""Replay of a search: every row it read is computed again and compared, and its decisions are made again from them.

    rows       in the order of the tree, so that each token behind the prompt is computed once, however many lines
               begin with it; their hashes, and what was found in them
    decisions  the same strategy, given those rows: the same places looked at next, the same answer, bounds and proof

The first difference in the order of the search is named by the tokens up to the row. By the numeric contract nothing
depends on what the rows were computed among. A budget of time ends a search by the recorded clock, one of tokens by
the positions that the recording counts. It does not know how a recording is stored, nor where the model comes from.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from openwork.core.errors import TraceError
from openwork.core.output import Logprob, SearchReport
from openwork.core.request import Request
from openwork.core.step import Candidates, Step, Work
from openwork.decode.search import strategy_of
from openwork.decode.strategy import Answer, Generation
from openwork.run.capture import Examiner
from openwork.run.masks import DeadEnd, Masks
from openwork.run.sample import candidates, logprobs
from openwork.trace.entry import Began
from openwork.trace.replay.bits import check, check_model
from openwork.trace.replay.search_difference import SearchDifference, SearchVerdict, differs, pair, short
from openwork.trace.searched import Answered, Life, Line, Row
from openwork.trace.story import Story

_AGREES = "alone, in a chunk and in single operations this row has the same bits here in every layer"
_SAME_WEIGHTS = f"{_AGREES}, and the weights are those that served: a fault of the machine that served, or of the files"
_ANY_WEIGHTS = f"{_AGREES}: other weights under the same name, or a fault of the machine that served"
_DISAGREES = "ways of computing this row that must give the same bits differ here"
_OTHER_FIND = (
    "the row of logits is the one that was recorded, so it was read otherwise: for something else, or by a version"
    " that reads otherwise"
)
_OTHER_PLACES = "the rows before are those that were recorded, so the search decided otherwise"
_OTHER_ANSWER = "every row before is the one that was recorded, so something else was concluded from them"


def replay_search(
    examiner: Examiner, began: Began, story: Story, lives: Sequence[Life], token: int | None = None
) -> SearchVerdict:
    """Derive a search again and compare it: all of it, or the rows that ``token`` of its best answer was chosen by.

    ``lives`` are what it did in each process that had it (searched.py), ``began`` the last of these. Raises TraceError
    when the recording does not hold what this takes, or was made with another model or contract id; MemoryTooSmall
    when a line does not fit.
    """
    request = check(story, token)
    check_model(examiner, began)
    only = None if token is None else tuple(story.lines[0].tokens[:token])
    rows = [row for life in lives for row in life.rows if only is None or row.line == only]
    if not rows:
        if only is None:
            return SearchVerdict(story.id, 0, 0, None, 0)
        raise TraceError(f"no row that token {token} was chosen by is in the recording of request {story.id}")
    differences = _compare(examiner, request, rows)
    unhashed = sum(row.row_hash is None for row in rows)
    if only is not None:
        first = next(iter(differences.values()), None)
        tokens = 1
    else:
        courses = [_decided(request, life, differences) for life in lives]
        first = next((each.difference for each in courses if each.difference is not None), None)
        first = first or _told(request, story, courses)
        tokens = sum(len(line.tokens) for line in story.lines.values())
    if first is not None and first.what == "logits":
        otherwise = _ANY_WEIGHTS if began.weights is None else _SAME_WEIGHTS
        first = _located(first, examiner, (*request.prompt, *(first.line or ())), otherwise)
    return SearchVerdict(story.id, tokens, unhashed, first, len(rows))


def _located(first: SearchDifference, examiner: Examiner, line: Sequence[int], otherwise: str) -> SearchDifference:
    """The same, with the layer and the operation of the last row of ``line`` if this machine disagrees with itself."""
    place = examiner.examine(line).disagreement(len(line) - 1)
    if place is None:
        return replace(first, finding=otherwise)
    return replace(first, layer=place.layer, op=place.op, finding=_DISAGREES)


# -- rows ------------------------------------------------------------------------------------------------------------


def _compare(examiner: Examiner, request: Request, rows: Sequence[Row]) -> dict[int, SearchDifference]:
    """The rows that differ, by the id of the object, in the order of the search."""
    by_line: dict[Line, list[Row]] = {}
    for row in rows:
        by_line.setdefault(row.line, []).append(row)
    reader, found = _Reader(examiner, request), dict[int, SearchDifference]()
    try:
        for line, logits, row_hash in _rows(examiner, request.prompt, sorted(by_line)):
            for row in by_line[line]:
                if (difference := reader.compare(row, logits, row_hash)) is not None:
                    found[id(row)] = difference
    finally:
        reader.close()
    return {id(row): found[id(row)] for row in rows if id(row) in found}


def _rows(examiner: Examiner, prompt: tuple[int, ...], lines: Sequence[Line]) -> Iterator[tuple[Line, np.ndarray, int]]:
    """(line, row of logits behind it, its hash) of sorted lines. One pass for each that no other begins with, over what
    it does not share with the one before."""
    wanted = set(lines)
    tips = [line for line, after in pairwise(lines) if after[: len(line)] != line] + [lines[-1]]
    room = len(prompt) + max(map(len, tips))
    examination = examiner.examine((*prompt, *tips[0]), room=room)
    first = len(prompt) - 1
    for before, tip in zip([(), *tips], tips, strict=False):
        if tip is not tips[0]:
            examination.turn_to((*prompt, *tip))
            first = len(prompt) + _num_shared(before, tip)
        for position, logits, row_hash in examination.rows(first):
            line = tip[: position + 1 - len(prompt)]
            if line in wanted:
                yield line, logits, row_hash


def _num_shared(one: Line, other: Line) -> int:
    return next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


class _Reader:
    """Reads rows as the engine does."""

    def __init__(self, examiner: Examiner, request: Request) -> None:
        self._ops = examiner.model.ops
        self._behind = len(request.prompt)
        self._masks = Masks(examiner.guide, examiner.limits.vocab_size)
        self._step = 0

    def compare(self, row: Row, logits: np.ndarray, row_hash: int) -> SearchDifference | None:
        """``logits`` (vocab,) is what the row is here."""
        if row.row_hash not in (None, row_hash):
            return differs("logits", row.line, self._behind, f"{row.row_hash:016x}", f"{row_hash:016x}")
        found = self._read(row, logits)
        if found == row.found:
            return None
        name = "candidates" if row.expand is not None else "score"
        return differs("choice", row.line, self._behind, *pair(row.found, found, name), _OTHER_FIND)

    def _read(self, row: Row, logits: np.ndarray) -> Candidates | Logprob | None:
        """None: the constraint forbids even to ask."""
        if row.expand is None:
            return logprobs(self._ops, logits[None, :], [row.target], row.top)[0]
        try:
            return candidates(self._ops, logits, row.expand, self._allowed(row))
        except DeadEnd:
            return None

    def _allowed(self, row: Row) -> np.ndarray | None:
        work = Work(0, self._behind + len(row.line) - 1, (0,), False, (), expand=row.expand)
        masks = self._masks.begin(Step(self._step, (work,)), {})
        self._step += 1
        return masks[0][0].result() if masks else None

    def close(self) -> None:
        self._masks.close()


# -- decisions -------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Course:
    """What a life comes to when its search decides again: its end if it has one, or the first difference."""

    told: Line = ()  # tokens that its best sequence was said to go on with
    report: SearchReport | None = None
    difference: SearchDifference | None = None


def _decided(request: Request, life: Life, differences: Mapping[int, SearchDifference]) -> _Course:
    """Let the search decide again, by what was recorded of rows that are equal."""
    course, strategy, behind = _Course(), strategy_of(request), len(request.prompt)
    generation, at, row = strategy.begin(), 0, 0
    while True:
        answered = life.answers[at : at + len(generation.leaves)]
        at += len(answered)
        asked = Counter((leaf.line, leaf.expand) for leaf in generation.leaves)
        strange = Counter((each.line, each.expand) for each in answered) - asked
        for each in answered:
            if (each.line, each.expand) in strange:
                wanted = next(iter(asked - Counter((other.line, other.expand) for other in answered)))
                recorded, found = short(each.line), short(wanted[0])
                if each.line == wanted[0]:
                    recorded, found = pair(each.expand, wanted[1], "expand")
                course.difference = differs("choice", each.line, behind, recorded, found, _OTHER_PLACES)
                return course
        is_whole = len(answered) == len(generation.leaves)
        end = answered[-1].row + 1 if is_whole else len(life.rows)
        course.difference = next((differences[id(e)] for e in life.rows[row:end] if id(e) in differences), None)
        if course.difference is not None:
            return course
        row = end
        if not is_whole:  # it was ended, or its process was
            if life.report is not None:
                course.difference = _otherwise(life.report, None)
            return course
        decision = strategy.decide(_by_node(generation, answered), answered[-1].spent)
        if isinstance(decision, SearchReport):
            course.report = decision
            if life.report != decision:
                course.difference = _otherwise(life.report, decision)
            return course
        generation = decision
        course.told += decision.agreed


def _by_node(generation: Generation, answered: Sequence[Answered]) -> dict[int, Answer]:
    """Which leaf each answer is of. Lines that are the same have the same answers."""
    answers = {(each.line, each.expand): each.answer for each in answered}
    return {leaf.node: answers[leaf.line, leaf.expand] for leaf in generation.leaves}


def _told(request: Request, story: Story, courses: Sequence[_Course]) -> SearchDifference | None:
    """What its reader was given beside what was found."""
    last = courses[-1]
    if last.report is None:  # it was ended before; a process before the last may have told more of it
        longest = max((course.told for course in courses), key=len)
        given = tuple(story.line(0).tokens)
        is_right = given == longest[: len(given)] and len(given) >= len(last.told)
        return None if is_right else differs("answer", None, 0, short(given), short(longest), _OTHER_ANSWER)
    for index in range(request.params.n):
        line, found = story.line(index), last.report.found[index : index + 1]
        wanted = (found[0].token_ids, found[0].finish_reason, found[0].stop_id) if found else ((), "length", None)
        heard = (tuple(line.tokens), line.finish_reason, line.stop_id)
        if heard != wanted:
            return differs("answer", None, 0, short(heard), short(wanted), _OTHER_ANSWER, index)
    return None


def _otherwise(recorded: SearchReport | None, found: SearchReport | None) -> SearchDifference:
    if recorded is None or found is None:
        texts = ["it goes on" if each is None else f"it ends: {each.ended_by}" for each in (recorded, found)]
        return differs("answer", None, 0, texts[0], texts[1], _OTHER_ANSWER)
    return differs("answer", None, 0, *pair(recorded, found, "search"), _OTHER_ANSWER)
