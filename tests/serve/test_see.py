"""/see: off unless allowed, behind the same keys, each tenant its own requests, and nothing of the operator's told."""

import json
import threading
from dataclasses import replace

import looked_into
import pytest
from looked_into import ALONE, BOUND
from serve.edge import Edge

from openwork.build import build
from openwork.core.event import Ended, Finished, Token
from openwork.core.request import Limits
from openwork.core.settings import LoadSettings, ScheduleSettings
from openwork.core.step import Choice
from openwork.core.terms import Terms
from openwork.serve.keys import digest_of, parse_keys
from openwork.serve.see import InThread, See
from openwork.trace.log import FlightRecorder
from openwork.trace.recording import Recording
from openwork.trace.view.desk import MOST_VIEWS, Desk
from openwork.trace.view.lamp import Lamp

KEYS = {name: f"key-of-{name}" for name in ("alice", "bob")}


def grants():
    lines = [f'[tenants.{name}]\nkeys = ["sha256:{digest_of(key.encode()).hex()}"]' for name, key in KEYS.items()]
    return parse_keys("\n".join(lines))


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    return Recording.open(looked_into.record(tmp_path_factory.mktemp("recording")))


@pytest.fixture(scope="module")
def lamp():
    built = build(None, LoadSettings(kv_cache_bytes=8 << 20), ScheduleSettings())
    yield Lamp(examiner=built.examiner, text_of=str)
    built.engine.close()


@pytest.fixture(scope="module")
def of_alice(tmp_path_factory):
    """The same, as if all had come from one tenant."""
    submitted = FlightRecorder.submitted

    def as_hers(self, time, number, name, request, so_far, error):
        submitted(self, time, number, name, replace(request, terms=Terms(tenant="alice")), so_far, error)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FlightRecorder, "submitted", as_hers)
        return Recording.open(looked_into.record(tmp_path_factory.mktemp("alice")))


def edge(recording, lamp, keys=None, ask=None, opened=None, **settings):
    see = See(InThread(opened or (lambda: recording), lambda: lamp), ask, lambda: Limits(2048, 512))
    return Edge(keys=keys, routes=see.routes(), allow_see=True, **settings), see


class Answer:
    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body

    def json(self):
        return json.loads(self.body)


def get(edge, path, key=None, method="GET", body=None):
    content = b"" if body is None else json.dumps(body).encode()
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost", "Connection: close"]
    lines += [f"Authorization: Bearer {key}"] if key else []
    lines += ["Content-Type: application/json", f"Content-Length: {len(content)}"] if body is not None else []
    return Answer(*edge.send("\r\n".join(lines).encode() + b"\r\n\r\n" + content).only())


def test_the_page_is_for_everybody_and_holds_nothing(recording, lamp):
    it, see = edge(recording, lamp, grants())
    with it:
        answer = get(it, "/see")
        assert answer.status == 200 and b"Lily" not in answer.body
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy and "connect-src 'self'" in policy
        assert get(it, "/see/api/requests").status == 401
        assert get(it, "/see/").status == 401
    see.close()


def test_a_server_that_does_not_allow_it_has_no_such_page():
    with Edge(keys=grants()) as it:
        assert get(it, "/see").status == 401
        assert get(it, "/see", KEYS["alice"]).status == 404


def test_a_tenant_sees_its_own_and_nothing_of_others(of_alice, lamp):
    it, see = edge(of_alice, lamp, grants())
    with it:
        own = get(it, "/see/api/requests", KEYS["alice"]).json()["requests"]
        assert ALONE in [each["id"] for each in own]
        assert get(it, "/see/api/requests", KEYS["bob"]).json() == {"requests": [], "left_out": 0}
        path = f"/see/api/requests/{ALONE}/request"
        assert get(it, path, KEYS["alice"]).json()["id"] == ALONE
        theirs = get(it, path, KEYS["bob"])
        nobodys = get(it, "/see/api/requests/none/request", KEYS["bob"])
        assert (theirs.status, theirs.body) == (404, nobodys.body), "another's is as if it were not there"
        assert get(it, f"/see/api/requests/{ALONE}/diff/{BOUND}", KEYS["bob"]).status == 404
        assert (
            get(it, f"/see/api/requests/{ALONE}/fork", KEYS["bob"], "POST", {"position": 30, "token": 5}).status == 400
        )
    see.close()


def test_documents_are_as_in_a_file_and_are_kept_by_nobody(recording, lamp):
    it, see = edge(recording, lamp)
    with it:
        for id in (ALONE, BOUND, "1", "2"):
            answer = get(it, f"/see/api/requests/{id}/row/0/4")
            assert answer.status == 200 and answer.json()["position"] == 4
            assert answer.headers["cache-control"] == "no-store"
        assert len(see._looking._desk._views) <= MOST_VIEWS
        for path, status in (("row/0/4000", 400), ("row/x/1", 400), ("none", 400), ("layer/0/4/99", 400)):
            answer = get(it, f"/see/api/requests/{ALONE}/{path}")
            assert answer.status == status and answer.json()["error"]["type"] == "invalid_request_error"
        assert get(it, f"/see/api/requests/{ALONE}/request", method="DELETE").status == 405
    see.close()


def test_a_damaged_recording_tells_no_path(tmp_path, lamp, recording):
    it, see = edge(recording, lamp, opened=lambda: Recording.open(tmp_path / "gone"))
    with it:
        answer = get(it, "/see/api/requests")
        assert answer.status == 400 and str(tmp_path).encode() not in answer.body
    see.close()


def test_a_branch_is_asked_of_the_engine_as_the_caller(of_alice, lamp):
    asked = []

    async def ask(request, tenant):
        asked.append((request, tenant))
        return [Token(0, 0, 0, Choice(7), 0.0), Finished(0, 0, "length", 0.0), Ended(0, 1, 0.0)]

    it, see = edge(of_alice, lamp, grants(), ask)
    with it:
        told = get(it, f"/see/api/requests/{ALONE}/request", KEYS["alice"]).json()
        position = len(told["prompt"]["ids"]) + 2
        path = f"/see/api/requests/{ALONE}/fork"
        branch = get(it, path, KEYS["alice"], "POST", {"position": position, "token": 5}).json()
        assert branch["ids"] == [5, 7] and branch["finish_reason"] == "length"
        [(request, tenant)] = asked
        assert tenant == "alice" and request.terms.tenant == "alice" and request.terms.namespace
        assert request.prompt[-1] == 5 and len(request.prompt) == position + 1
        for body in (
            {"position": -1, "token": 5},
            {"position": 2},
            {"position": position, "token": "5"},
            {"token": 1.5},
        ):
            assert get(it, path, KEYS["alice"], "POST", body).status == 400
    see.close()


def test_how_far_a_long_answer_is_is_told_at_once_and_to_its_asker_alone(of_alice, lamp, monkeypatch):
    begun, go_on, answer = threading.Event(), threading.Event(), Desk.answer

    def slowly(self, question):
        if question.kind == "document":
            self._told("prefill", 512, 2000)
            begun.set()
            assert go_on.wait(60)
        return answer(self, question)

    monkeypatch.setattr(Desk, "answer", slowly)
    it, see = edge(of_alice, lamp, grants())
    nothing = {"stage": "", "done": 0, "total": 0}

    def far(key, id=ALONE):
        return get(it, f"/see/api/requests/{id}/progress", key).json()

    with it:
        asking = threading.Thread(target=get, args=(it, f"/see/api/requests/{ALONE}/request", KEYS["alice"]))
        asking.start()
        assert begun.wait(60)
        assert far(KEYS["alice"]) == {"stage": "prefill", "done": 512, "total": 2000}
        assert far(KEYS["alice"], BOUND) == far(KEYS["bob"]) == nothing
        assert get(it, f"/see/api/requests/{ALONE}/progress").status == 401
        go_on.set()
        asking.join()
        assert far(KEYS["alice"]) == nothing
    see.close()


def test_there_is_an_end_to_those_who_wait(recording, lamp, monkeypatch):
    monkeypatch.setattr("openwork.serve.see.MOST_WAITING", 0)
    it, see = edge(recording, lamp)
    with it:
        answer = get(it, "/see/api/requests")
        assert answer.status == 503 and answer.headers["retry-after"]
    see.close()
