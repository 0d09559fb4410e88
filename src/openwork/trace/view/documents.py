"""View: the documents of the microscope for one request, by their paths. The page, a file and the command line have the
same.

    request            what the recording says of the request
    costs              both phases and every step: bytes, operations, seconds
    timeline           the whole engine while it lived, or as much of that as is shown at once
    timeline/F/C       C steps of the same stretch of the recording, from its Fth on
    timeline/all/F/C   C steps of the whole recording
    strip/S            how sure the model was of each token of sequence S, all rows computed again in one pass
    row/S/P            one row of sequence S, at position P, computed again
    layer/S/P/L        one layer of that row
    heads/S/P          where each head of all layers looked from there, in short
    diff/ID            this request beside another one of the recording, to the first bit that differs
    against            the requests of another recording, when there is one beside this
    against/ID         this request beside one of those
    requests           all requests of the recording that may be seen

It guarantees that what cannot be shown is an error that says why, that a document is JSON, and that what is kept of
examinations is bounded. It computes in whatever thread asks, one at a time. Who may ask is not its business.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np

from openwork.core.errors import OpenworkError, RequestError
from openwork.core.step import Draw, Step, Work
from openwork.run.capture import Examination
from openwork.run.masks import DeadEnd, Masks
from openwork.run.row import Row
from openwork.trace.entry import Entry
from openwork.trace.recording import Recording
from openwork.trace.story import Line, Story
from openwork.trace.timeline import timeline
from openwork.trace.view.against import Beside, against_document
from openwork.trace.view.costs import costs_document
from openwork.trace.view.diff import Side, diff_document, lit_document, stamps_document
from openwork.trace.view.journey import Gathering, Journey
from openwork.trace.view.lamp import Lamp
from openwork.trace.view.opened import Opened
from openwork.trace.view.others import without
from openwork.trace.view.request import model_name, request_document
from openwork.trace.view.row import heads_document, layer_document, row_document, strip_document
from openwork.trace.view.tree import tree_document
from openwork.trace.view.window import window_of

MOST_LISTED = 500  # requests


class View:
    """One request of a recording. Raises RequestError when there is no such request."""

    def __init__(
        self,
        recording: Recording,
        id: str,
        lamp: Lamp,
        may_see: Callable[[str], bool] | None = None,
        told: Callable[[str, int, int], None] = lambda stage, done, total: None,
        beside: Beside | None = None,
    ) -> None:
        self._recording = recording
        self._told = told  # how far a long answer is: ("reading", bytes, of), ("prefill", rows, of)
        self._lamp = lamp
        self.beside = beside or Beside(here=self._here)
        self._may_see = may_see or (lambda tenant: True)  # whose other requests may be shown beside this one
        self._opened = Opened(self._examine)
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
            story = self.journey.story
            if story.search is not None and not story.search.trace and story.has_tokens:
                entries = self._recording.entries_of(story.id)
                self._request["search"] |= tree_document(entries, story.id, story.search.found, self._lamp.text_of)

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
                    return costs_document(self._request, self.journey, self._lamp.shape, self._lamp.ceilings)
                case "timeline", []:
                    return self._timeline(None)
                case "timeline", [first, count]:
                    return self._timeline(_whole(first), _whole(count))
                case "timeline", ["all", first, count]:
                    return self._timeline(_whole(first), _whole(count), is_whole=True)
                case "diff", [other]:
                    return self.difference(self.beside.here(other))
                case "against", []:
                    return against_document(self.journey, self.beside)
                case "against", [other] if self.beside.there is not None:
                    return self.difference(self.beside.there(other))
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

    def stories(self) -> tuple[list[Story], int]:
        """Of the latest requests of the recording that may be seen, in the order in which they came; how many came
        before them."""
        return self._recording.latest(MOST_LISTED, self._may_see)

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

    def _timeline(self, first: int | None, count: int = 0, is_whole: bool = False) -> dict[str, Any]:
        """Steps of the recording around this request, or of all of it; those of the request, if none are named."""

        def entries() -> Iterator[Entry]:
            return self._recording.entries() if is_whole else self._recording.entries_around(self.journey.story.id)

        if first is None:
            first, count = window_of(entries(), self.journey)
        document = timeline(entries(), first, count)
        document["processes"] = [{**each, "model": model_name(each["model"])} for each in document["processes"]]
        hidden = {each["id"] for each in document["requests"] if not self._may_see(each["tenant"])}
        return without(document, hidden) if hidden else document

    # -- beside another run --------------------------------------------------------------------------------------

    def _here(self, other: str) -> View:
        if (owner := self._recording.tenant_of(other)) is None or not self._may_see(owner):  # then it is not even read
            _seen(None, self._may_see)
        return View(self._recording, other, self._lamp, self._may_see)

    def difference(self, other: View, is_lit: bool = True) -> dict[str, Any]:
        """This request beside that of another view, of any recording, to the first bit that differs."""
        found = diff_document(self._request, other._request)
        look, both = found["look"], (self, other)
        lines = [each.journey.story.lines.get(each.journey.indices[0], Line()) for each in both]
        common = len(found["tokens"][0]["ids"]) if found["token"] is None else found["token"]
        found["stamps"] = stamps_document(lines, found["prompt_lens"], common)
        if is_lit:
            served = [each._hash_served(look) for each in both]
            found["lit"] = lit_document([each._side() for each in both], look, served, found["what"] != "prompt")
        return found

    def _side(self) -> Side:
        contract = None if self._lamp.examiner is None else self._lamp.examiner.contract_id
        try:
            return Side(self._examination(0), "", contract, self._lamp.text_of)
        except OpenworkError as error:  # dark, or too long: the other side may be lit all the same
            return Side(None, str(error), contract, self._lamp.text_of)

    def _hash_served(self, position: int) -> str | None:
        hashes, place = self._line(0)["hashes"], position + 1 - len(self.journey.request.prompt)
        return hashes[place] if 0 <= place < len(hashes) else None

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
        return self._opened.examination(sequence, self._tokens(sequence))

    def _open(self, sequence: int, position: int, layers: tuple[int, ...] | None) -> Row:
        """A row, with the attention of these layers; None: of all, which takes longest."""
        tokens = self._tokens(sequence)
        if not 0 <= position < len(tokens):
            raise RequestError(f"is {position}; there are {len(tokens)}, from 0", param="position")
        self._examination(sequence)
        return self._opened.row(sequence, tokens, position, layers)

    def _examine(self, tokens: Sequence[int]) -> Examination:
        assert self._lamp.examiner is not None
        examination = self._lamp.examiner.examine(tokens, self._lamp.examine_bytes)
        examination.told = partial(self._told, "prefill")
        return examination


def requests_document(recording: Recording, may_see: Callable[[str], bool] | None = None) -> dict[str, Any]:
    """The latest requests of a recording that may be seen, the last first. ``left_out`` counts those before them."""
    stories, left_out = recording.latest(MOST_LISTED, may_see or (lambda tenant: True))
    return listed(reversed(stories), left_out)


def listed(stories: Iterable[Story], left_out: int) -> dict[str, Any]:
    """The document of these requests; ``left_out`` others are not among them."""
    records = [story.as_record() for story in stories]
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
