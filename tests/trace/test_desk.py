"""The desk: one question after another about a recording that may still be written, and nothing read or told twice."""

import json

import pytest

from openwork import LLM, SamplingParams
from openwork.build import build
from openwork.core.errors import RequestError
from openwork.core.settings import LoadSettings, ScheduleSettings
from openwork.trace.reading import Reading
from openwork.trace.recording import Recording
from openwork.trace.view.desk import MOST_VIEWS, Desk, Question
from openwork.trace.view.lamp import Lamp


@pytest.fixture(scope="module")
def lamp():
    built = build(None, LoadSettings(kv_cache_bytes=8 << 20), ScheduleSettings())
    yield Lamp(examiner=built.examiner, text_of=str)
    built.engine.close()


def document(desk, path, id="0", tenant=None):
    return json.loads(desk.answer(Question(kind="document", id=id, path=path, tenant=tenant)).document)


def test_a_request_that_runs_is_shown_as_far_as_it_is(lamp, tmp_path, monkeypatch):
    lines = []
    read = Reading.lines
    monkeypatch.setattr(
        Reading, "lines", lambda self, parts: (lines.append(each) or each for each in read(self, parts))
    )
    with LLM(record=tmp_path) as llm:
        stream = llm.stream("Once upon a time", SamplingParams(max_tokens=40, ignore_eos=True, temperature=0))
        next(stream)
        told = []
        desk = Desk(lambda: Recording.open(tmp_path), lambda: lamp, lambda *far: told.append(far))
        first = document(desk, "request")
        said = len(first["sequences"][0]["ids"])
        assert 0 < said < 40 and first["took_s"] is None
        assert document(desk, f"row/0/{len(first['prompt']['ids']) - 1}")["served"] is True
        for _ in range(10):
            next(stream)
        more = document(desk, "request")["sequences"][0]["ids"]
        assert len(more) > said and more[:said] == first["sequences"][0]["ids"]
        last = len(first["prompt"]["ids"]) + len(more) - 2
        assert document(desk, f"row/0/{last}")["served"] is True, "it is examined as far as it has come"
        list(stream)
    whole = document(desk, "request")
    assert len(whole["sequences"][0]["ids"]) == 40 and whole["took_s"] is not None
    assert len(lines) == len(list(read(Reading(), Recording.open(tmp_path).index.files[0].parts))), "each line once"
    assert {stage for stage, _, _ in told} == {"reading", "prefill"} and all(0 <= done <= of for _, done, of in told)
    assert document(desk, "request") == json.loads(
        Desk(lambda: Recording.open(tmp_path), lambda: lamp)
        .answer(Question(kind="document", id="0", path="request"))
        .document
    )


def test_nothing_of_anothers_request_is_read(lamp, tmp_path, monkeypatch):
    with LLM(record=tmp_path) as llm:
        llm.generate(["a"] * (MOST_VIEWS + 2), SamplingParams(max_tokens=2))
    desk = Desk(lambda: Recording.open(tmp_path), lambda: lamp)
    for id in "0123":
        document(desk, "request", id)
    assert len(desk._views) <= MOST_VIEWS
    monkeypatch.setattr(Reading, "lines", None)
    for id in ("0", "nobody"):
        with pytest.raises(RequestError, match="names no request"):
            document(desk, "request", id, tenant="alice")
