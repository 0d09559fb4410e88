"""View: the documents of the microscope for one request, by their paths. The page, a file and the command line have the
same.

    request            what the recording says of the request
    costs              both phases and every step: bytes, operations, seconds
    timeline           the whole engine while it lived
    strip/S            how sure the model was of each token of sequence S, all rows computed again in one pass
    row/S/P            one row of sequence S, at position P, computed again
    layer/S/P/L        one layer of that row
    heads/S/P          where each head of all layers looked from there, in short
    diff/ID            this request beside another one of the recording, to the first row that differs
    requests           all requests of the recording that may be seen

It guarantees that what cannot be shown is an error that says why, that a document is JSON, and that what is kept of
examinations is bounded. It computes in whatever thread asks, one at a time. Who may ask is not its business.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from openwork.core.errors import RequestError
from openwork.core.step import Draw, Step, Work
from openwork.run.capture import Examination, Examiner
from openwork.run.masks import DeadEnd, Masks
from openwork.run.row import Row
from openwork.trace.entry import Entry
from openwork.trace.recording import Recording
from openwork.trace.timeline import timeline
from openwork.trace.view_costs import Shape, costs_document
from openwork.trace.view_diff import diff_document, rows_beside
from openwork.trace.view_others import without
from openwork.trace.view_request import Gathering, Journey, gather, request_document
from openwork.trace.view_row import LENS, heads_document, layer_document, row_document, strip_document
from openwork.trace.view_search import TextOf

MOST_EXAMINED = 2  # sequences whose keys and values are kept
MOST_LISTED = 500  # requests
MOST_ROWS = 64  # rows that are kept open
ROW_BYTES = 64 << 20  # of rows that are kept open


@dataclass(frozen=True, slots=True, kw_only=True)
class Lamp:
    """What lights a recording up: a model to compute rows again with, its words, and the machine's ceilings."""

    examiner: Examiner | None = None
    dark: str = "No model was opened, so rows cannot be computed again."  # said when there is no examiner
    text_of: TextOf = lambda token: None
    shape: Shape | None = None
    ceilings: Mapping[str, Any] | None = None
    examine_bytes: int = 1 << 30  # of keys and values of one examination


class View:
    """One request of a recording. Raises RequestError when there is no such request."""

    def __init__(
        self,
        recording: Recording,
        id: str,
        lamp: Lamp,
        may_see: Callable[[str], bool] | None = None,
        told: Callable[[str, int, int], None] = lambda stage, done, total: None,
    ) -> None:
        self._recording = recording
        self._told = told  # how far a long answer is: ("reading", bytes, of), ("prefill", rows, of)
        self._lamp = lamp
        self._may_see = may_see or (lambda tenant: True)  # whose other requests may be shown beside this one
        self._examined: OrderedDict[int, Examination] = OrderedDict()
        self._rows: OrderedDict[tuple[int, int, tuple[int, ...] | None], Row] = OrderedDict()
        self._strips: dict[int, dict[str, Any]] = {}
        self._lock = threading.Lock()
        self._following, self._gathering = recording.following(id), Gathering(id)
        self.refresh()

    def refresh(self) -> None:
        """What was written of the request since, as far as the recording was refreshed; no line is read twice."""
        is_new = False
        for entry in self._following.more(partial(self._told, "reading")):
            self._gathering.take(entry)
            is_new = True
        self.journey = _seen(self._gathering.journey, self._may_see)
        if is_new:
            self._request = request_document(self.journey, self._lamp.text_of)
            self._strips.clear()

    @property
    def why_dark(self) -> str:
        """Why no row can be opened; empty when it can."""
        if self._lamp.examiner is None:
            return self._lamp.dark
        if not self.journey.story.has_tokens:
            return "The recording keeps no prompts, so nothing can be computed again: record with prompts kept."
        return ""

    def document(self, path: str) -> dict[str, Any]:
        """The document at a path. Raises RequestError when there is none, and says why."""
        kind, *places = path.split("/")
        with self._lock:
            match kind, places:
                case "request", []:
                    return self._request
                case "costs", []:
                    return costs_document(self._request, self._lamp.shape, self._lamp.ceilings)
                case "timeline", []:
                    return self._timeline()
                case "diff", [other]:
                    return self._diff(other)
                case "strip", [sequence]:
                    return self._strip(_whole(sequence))
                case "row", [sequence, position]:
                    return self._row(_whole(sequence), _whole(position))
                case "heads", [sequence, position]:
                    row = self._open(_whole(sequence), _whole(position), None)
                    return heads_document(row, self._request["sources"][_whole(sequence)])
                case "layer", [sequence, position, layer]:
                    return self._layer(_whole(sequence), _whole(position), _whole(layer))
        raise RequestError("names no document of a request", param="path")

    @property
    def num_layers(self) -> int:
        """Of the model that rows are computed again with; 0 when there is none."""
        return 0 if self._lamp.examiner is None else self._lamp.examiner.model.spec.num_layers

    def last_position(self, sequence: int) -> int:
        """Of the row that chose the last token."""
        return len(self._tokens(sequence)) - 2

    # -- documents -----------------------------------------------------------------------------------------------

    def _row(self, sequence: int, position: int) -> dict[str, Any]:
        row, tokens = self._open(sequence, position, ()), self._tokens(sequence)
        request, line = self.journey.request, self._line(sequence)
        prompt_len = len(request.prompt)
        generated = position + 1 - prompt_len
        is_chosen = 0 <= generated < len(line["ids"])
        allowed = None
        unmasked = ""
        if request.params.constraint is not None and is_chosen:
            allowed = self._allowed(sequence, line["ids"][:generated])
            if allowed is None:
                unmasked = "What the constraint took away cannot be shown here."
        document = row_document(
            row,
            request,
            tokens[position + 1] if position + 1 < len(tokens) else None,
            sequence,
            line["hashes"][generated] if is_chosen else None,
            self._lamp.text_of,
            allowed,
            tokens[: position + 1],
        )
        return document | {"unmasked": unmasked}

    def _strip(self, sequence: int) -> dict[str, Any]:
        line, first = self._line(sequence), len(self.journey.request.prompt) - 1
        if sequence not in self._strips:
            rows = self._examination(sequence).rows(first)
            self._strips[sequence] = strip_document(rows, line["ids"], line["hashes"], first)
        return self._strips[sequence]

    def _allowed(self, sequence: int, output: Sequence[int]) -> np.ndarray | None:
        """What the request's constraint left of the vocabulary (vocab,) after this output; None: nothing."""
        request, examiner = self.journey.request, self._lamp.examiner
        assert examiner is not None
        position = len(request.prompt) + len(output)
        draw = Draw(request.params, sequence, position, len(output), request.stop_ids, output=tuple(output))
        masks = Masks(examiner.guide, examiner.limits.vocab_size)
        try:
            return masks.begin(Step(0, (Work(0, 0, (0,), False, (), (draw,)),)), {})[0][0].result()
        except DeadEnd:
            return None
        finally:
            masks.close()

    def _layer(self, sequence: int, position: int, layer: int) -> dict[str, Any]:
        if not self.why_dark and layer >= self.num_layers:
            raise RequestError(f"is {layer}; there are {self.num_layers}, from 0", param="layer")
        row = self._open(sequence, position, (layer,))
        return layer_document(row, layer, self._request["sources"][sequence], self._request["block_size"] or 16)

    def _timeline(self) -> dict[str, Any]:
        id = self.journey.story.id
        window = self._window(self._recording.entries_around(id))
        document = timeline(self._recording.entries_around(id), *window)
        hidden = {each["id"] for each in document["requests"] if not self._may_see(each["tenant"])}
        return without(document, hidden) if hidden else document

    def _window(self, entries: Iterable[Entry]) -> tuple[int, int]:
        """The steps among these lines from a little before this request to a little after it."""
        first = last = None
        place = -1
        own = {(part.run, part.step.number) for part in self.journey.parts}
        run = 0
        for entry in entries:
            run = getattr(entry, "run", run)
            step = getattr(entry, "step", None)
            if step is not None and not isinstance(step, int):
                place += 1
                if (run, step.number) in own:
                    first, last = place if first is None else first, place
        return (0, 400) if first is None or last is None else (max(0, first - 20), last - max(0, first - 20) + 21)

    def _diff(self, other: str) -> dict[str, Any]:
        owner = self._recording.tenant_of(other)
        is_seen = owner is not None and self._may_see(owner)  # what is not is not even read
        journey = _seen(gather(self._recording.entries_of(other), other) if is_seen else None, self._may_see)
        beside = request_document(journey, self._lamp.text_of)
        found = diff_document(self._request, beside)
        position = found["row"]
        if position is not None and not self.why_dark and journey.story.has_tokens:
            rows = [self._open(0, position, ()), self._open_other(journey, position)]
            found["rows"] = rows_beside(rows, self._lamp.text_of)
        return found

    # -- rows ----------------------------------------------------------------------------------------------------

    def _line(self, sequence: int) -> dict[str, Any]:
        lines: list[dict[str, Any]] = self._request["sequences"]
        if not 0 <= sequence < len(lines):
            raise RequestError(f"is {sequence}; there are {len(lines)}, from 0", param="sequence")
        return lines[sequence]

    def _tokens(self, sequence: int) -> list[int]:
        return [*self.journey.request.prompt, *self._line(sequence)["ids"]]

    def _examination(self, sequence: int) -> Examination:
        if self.why_dark:
            raise RequestError(self.why_dark)
        examination, tokens = self._examined.get(sequence), self._tokens(sequence)
        if examination is None or len(examination.tokens) < len(tokens):  # it has gone on since
            examination = self._examined[sequence] = self._examine(tokens)
        self._examined.move_to_end(sequence)
        while len(self._examined) > MOST_EXAMINED:
            self._examined.popitem(last=False)
        return examination

    def _open(self, sequence: int, position: int, layers: tuple[int, ...] | None) -> Row:
        """A row, with the attention of these layers; None: of all, which takes longest."""
        key = (sequence, position, layers)
        if key in self._rows:
            self._rows.move_to_end(key)
            return self._rows[key]
        tokens = self._tokens(sequence)
        if not 0 <= position < len(tokens):
            raise RequestError(f"is {position}; there are {len(tokens)}, from 0", param="position")
        lens = 0 if layers is None or layers else LENS
        row = self._rows[key] = self._examination(sequence).row(position, layers=layers, lens=lens)
        while len(self._rows) > 1 and (len(self._rows) > MOST_ROWS or _num_bytes(self._rows.values()) > ROW_BYTES):
            self._rows.popitem(last=False)
        return row

    def _examine(self, tokens: Sequence[int]) -> Examination:
        assert self._lamp.examiner is not None
        examination = self._lamp.examiner.examine(tokens, self._lamp.examine_bytes)
        examination.told = partial(self._told, "prefill")
        return examination

    def _open_other(self, journey: Journey, position: int) -> Row:
        line = journey.story.lines[journey.indices[0]]
        return self._examine([*journey.request.prompt, *line.tokens]).row(position, layers=(), lens=LENS)


def requests_document(recording: Recording, may_see: Callable[[str], bool] | None = None) -> dict[str, Any]:
    """The latest requests of a recording that may be seen, the last first. ``left_out`` counts those before them."""
    stories, left_out = recording.latest(MOST_LISTED, may_see or (lambda tenant: True))
    records = [story.as_record() for story in reversed(stories)]
    for record in records:
        del record["number"]  # it counts those of others too
    return {"requests": records, "left_out": left_out}


def _seen(journey: Journey | None, may_see: Callable[[str], bool]) -> Journey:
    if journey is None or not may_see(journey.story.tenant):  # what is another's is as if it were not there
        raise RequestError("names no request of this recording", "openwork trace ls shows what there is.", param="id")
    return journey


def _whole(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 9):
        raise RequestError("has places that are not numbers", param="path")
    return int(text)


def _num_bytes(rows: Iterable[Row]) -> int:
    return sum(row.attention.nbytes + row.residual.nbytes + row.logits.row.nbytes + 5 * row.q.nbytes for row in rows)
