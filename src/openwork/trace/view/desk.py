"""Desk: where a recording is looked into for whoever asks. One Question after another, each with one Answer.

    whose      the tenant of a request: asked before anything else is, by whoever decides who may see what
    requests   the latest requests that a tenant may see, or anybody's
    document   one document of one request (view.py lists them)
    fork       the request of a branch that goes on from a place with another token (view_fork.py)
    texts      what tokens say

The recording may still be written: of what was read, nothing is read again. It guarantees that what is kept is bounded,
and that a tenant is told nothing of another's request. ``told`` hears how far a long answer is. It computes in whatever
thread or process asks, and knows neither.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from openwork.core.errors import RequestError
from openwork.core.request import Limits, Request
from openwork.trace.page import as_json
from openwork.trace.recording import Recording
from openwork.trace.view.documents import View, requests_document
from openwork.trace.view.fork import fork_request
from openwork.trace.view.lamp import Lamp

Told = Callable[[str, int, int], None]
OpenView = Callable[[str, Told], View]
MOST_VIEWS = 2  # requests that are kept open; each holds keys and values of the sequences that were looked into


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """``tenant`` sees its own requests; None: sees everything."""

    kind: Literal["whose", "requests", "document", "fork", "texts"]
    tenant: str | None = None
    id: str = ""
    path: str = ""
    sequence: int = 0
    position: int = 0
    token: int = 0
    tokens: tuple[int, ...] = ()
    limits: Limits | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """That part of it which was asked for. ``tenant`` is None when there is no such request."""

    document: bytes = b""
    tenant: str | None = None
    request: Request | None = None
    texts: tuple[str | None, ...] = ()


class Desk:
    """``open_recording`` is called once, and so is ``open_lamp``, when a document needs it.

    ``open_view`` opens a request for somebody who sees everything; None: it is lit by the lamp, like all others.
    """

    def __init__(
        self,
        open_recording: Callable[[], Recording],
        open_lamp: Callable[[], Lamp],
        told: Told = lambda stage, done, total: None,
        open_view: OpenView | None = None,
    ) -> None:
        self._open_recording = open_recording
        self._open_lamp = open_lamp
        self._told = told
        self._open_view = open_view
        self._recording: Recording | None = None
        self._lamp: Lamp | None = None
        self._views: OrderedDict[tuple[str | None, str], View] = OrderedDict()

    def answer(self, question: Question) -> Answer:
        """Raises RequestError for what cannot be shown, TraceError when nothing can be read, MemoryTooSmall."""
        recording = self._now()
        match question.kind:
            case "whose":
                return Answer(tenant=recording.tenant_of(question.id))
            case "requests":
                return Answer(document=as_json(requests_document(recording, _only(question.tenant))).encode())
            case "document":
                return Answer(document=as_json(self._view(question, recording).document(question.path)).encode())
            case "fork":
                return Answer(request=self._fork(question, recording))
            case "texts":
                return Answer(texts=tuple(map(self._light().text_of, question.tokens)))

    def _now(self) -> Recording:
        """The recording as it is now."""
        if self._recording is None:
            self._recording = self._open_recording()
        else:
            self._recording.refresh()
        return self._recording

    def _fork(self, question: Question, recording: Recording) -> Request:
        assert question.limits is not None, "whoever asks knows the engine's"
        journey = self._view(question, recording).journey
        return fork_request(journey, question.sequence, question.position, question.token, question.limits)

    def _view(self, question: Question, recording: Recording) -> View:
        key = question.tenant, question.id
        view = self._views.get(key)
        if view is None:
            if question.tenant not in (None, recording.tenant_of(question.id)):  # before a line of it is read
                raise RequestError("names no request of this recording", param="id")
            if self._open_view is None or question.tenant is not None:
                view = View(recording, question.id, self._light(), _only(question.tenant), self._told)
            else:
                view = self._open_view(question.id, self._told)
            self._views[key] = view
        else:
            view.refresh()
        self._views.move_to_end(key)
        while len(self._views) > MOST_VIEWS:
            self._views.popitem(last=False)
        return view

    def _light(self) -> Lamp:
        if self._lamp is None:
            self._lamp = self._open_lamp()
        return self._lamp


def _only(tenant: str | None) -> Callable[[str], bool]:
    return (lambda each: True) if tenant is None else (lambda each: each == tenant)
