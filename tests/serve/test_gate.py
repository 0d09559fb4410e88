"""The gate: no route without a key, no stranger's page, one form for every failure, and no end that looks whole."""

import asyncio
import json
import time

import pytest
from serve.edge import Edge, Slow, edge, get, local_engine, post, read_all

from openwork.serve.app import Service, routes
from openwork.serve.door import OPERATIONS, PUBLIC
from openwork.serve.errors import unauthenticated, unavailable
from openwork.serve.keys import Grant, Keys, digest_of

KEY, OTHER = "ow-alice-key", "ow-bob-key"
ALICE = Grant(tenant="alice", digests=frozenset({digest_of(KEY.encode())}), requests_per_minute=1000)
BOB = Grant(tenant="bob", digests=frozenset({digest_of(OTHER.encode())}), may_operate=True)
BEARER = b"Authorization: Bearer " + KEY.encode()


@pytest.fixture(scope="module")
def locked():
    with edge(Slow(), keys=Keys([ALICE, BOB])) as it:
        yield it


def test_every_route_but_the_listed_ones_needs_a_key():
    service = Service(local_engine())
    with Edge(keys=Keys([ALICE, BOB]), routes=routes(service)) as it:
        paths = {route.path.encode() for route in it.routes}
        assert {b"/v1/chat/completions", b"/v1/completions", b"/v1/models", b"/tokenize"} | OPERATIONS <= paths
        for path in paths:
            for sent in (get(path), get(path).replace(b"GET", b"HEAD"), post(path=path), post(b"", path, kind=b"")):
                is_public = path in PUBLIC and not sent.startswith(b"POST")
                answers = it.send(sent)
                assert (answers.statuses == [401]) != is_public, path
                if sent.startswith((b"GET", b"POST")) and not is_public:
                    assert answers.error(401)[1]["www-authenticate"] == "Bearer"
        assert {route.path.encode() for route in it.operations} == OPERATIONS
    service.close()


@pytest.mark.parametrize(
    "path",
    [
        b"/v1//chat/completions",
        b"/v1/./chat/completions",
        b"/V1/chat/completions",
        b"/v1/%63hat/completions",
        b"/v1/chat/completions/",
        b"/v1/chat/completions;x",
        b"/health/%2e%2e/v1/chat/completions",
        b"/health/../v1/chat/completions",
        b"//health",
        b"/%68ealth",
        b"/health%2f",
        b"/health;x",
    ],
    ids=lambda path: "H23-" + path.decode(),
)
def test_a_path_in_disguise_opens_nothing(locked, path):
    assert locked.send(post(path=path)).statuses == [401]
    assert locked.send(get(path)).statuses == [401]


@pytest.mark.parametrize("host", [b"localhost/health?", b"x/health#"])
def test_a_host_does_not_become_a_path(locked, host):  # CVE-2026-48710
    assert locked.send(get(b"/v1/limits", host=host)).statuses == [400]


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        pytest.param([BEARER], 200, id="H27-right"),
        pytest.param([b"Authorization: bearer " + KEY.encode()], 200, id="H27-lower"),
        pytest.param([b"authorization: BEARER " + KEY.encode()], 200, id="H27-upper"),
        pytest.param([], 401, id="none"),
        pytest.param([b"Authorization: Bearer  " + KEY.encode()], 401, id="H27-two-spaces"),
        pytest.param([b"Authorization: Bearer"], 401, id="H27-no-key"),
        pytest.param([b"Authorization: Bearer "], 401, id="H27-empty-key"),
        pytest.param([b"Authorization: " + KEY.encode()], 401, id="H27-no-scheme"),
        pytest.param([b"Authorization: Basic " + KEY.encode()], 401, id="H27-basic"),
        pytest.param([BEARER + b"\xe9"], 401, id="H27-non-ascii"),
        pytest.param([BEARER + b"x"], 401, id="H27-longer"),
        pytest.param([BEARER[:-1]], 401, id="H27-shorter"),
        pytest.param([BEARER, BEARER], 401, id="H27-twice"),
        pytest.param([BEARER + b", Bearer x"], 401, id="H27-list"),
        pytest.param([b"Authorization: Bearer " + b"k" * 8000], 401, id="H27-long"),
        pytest.param([b"Authorization: Bearer " + b"k" * 2**20], 431, id="H27-mebibyte"),
        pytest.param([b"X-Api-Key: " + KEY.encode()], 401, id="other-header"),
    ],
)
def test_a_key_is_right_or_401(locked, lines, status):
    answers = locked.send(post(b"{}", b"/v1/echo", *lines))
    if status == 200:
        assert json.loads(answers.only()[2])["tenant"] == "alice"
    else:
        error, _ = answers.error(status)
        assert KEY not in str(error)
    assert KEY not in locked.written.getvalue()


def test_rate_headers_are_on_every_answer_to_a_key(locked):
    _, headers, _ = locked.send(post(b"{}", b"/v1/echo", BEARER)).only()
    assert headers["x-ratelimit-limit-requests"] == "1000"
    assert "x-ratelimit-limit-tokens" not in headers


def test_metrics_are_for_operators(locked):
    locked.send(get(b"/metrics", BEARER)).error(403)
    status, headers, page = locked.send(get(b"/metrics", b"Authorization: Bearer " + OTHER.encode())).only()
    assert status == 200 and headers["content-type"].startswith("text/plain; version=0.0.4")
    assert b"openwork:http_requests_total" in page


@pytest.mark.parametrize("host", [b"evil.example", b"localhost.evil.example", b"127.0.0.1.evil.example:8000"])
def test_a_server_of_this_machine_answers_to_this_machines_names_only(locked, host):
    locked.send(get(host=host)).error(403)


@pytest.mark.parametrize("host", [b"localhost", b"LOCALHOST:1", b"127.0.0.1:8000", b"[::1]:8000"])
def test_names_of_this_machine_are_let_in(locked, host):
    assert locked.send(get(host=host)).only()[0] == 200


def test_a_listed_name_is_let_in():
    with edge(allowed_hosts=("Box.example",)) as it:
        assert it.send(get(host=b"box.example:80")).only()[0] == 200


EVIL = b"Origin: https://evil.example"
PREFLIGHT = (
    b"OPTIONS /v1/echo HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
    b"Access-Control-Request-Method: POST\r\n%s\r\n\r\n"
)


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(get(b"/health", EVIL), id="H25-get"),
        pytest.param(post(b"{}", b"/v1/echo", EVIL), id="H25-post"),
        pytest.param(PREFLIGHT % EVIL, id="H25-preflight"),
        pytest.param(get(b"/health", b"Origin: null"), id="H25-null"),
        pytest.param(get(b"/health", b"Origin: https://evil.example", b"Origin: http://localhost"), id="H25-two"),
    ],
)
def test_pages_of_strangers_read_nothing(sent):
    with edge() as it:
        _, headers = it.send(sent).error(403)
        assert not [name for name in headers if name.startswith("access-control")]


def test_a_listed_origin_may_read_and_nobody_else():
    with edge(cors_origins=("https://app.example",), keys=Keys([ALICE])) as it:
        mine = b"Origin: https://app.example"
        status, headers, _ = it.send(PREFLIGHT % mine).only()
        assert status == 204 and headers["access-control-allow-origin"] == "https://app.example"
        assert "access-control-allow-credentials" not in headers
        _, headers, _ = it.send(post(b"{}", b"/v1/echo", mine, BEARER)).only()
        assert headers["access-control-allow-origin"] == "https://app.example" and headers["vary"] == "origin"
        it.send(post(b"{}", b"/v1/echo", mine)).error(401)  # only the preflight goes without a key
        it.send(PREFLIGHT % EVIL).error(403)


def test_a_page_of_this_server_is_no_stranger():
    with edge() as it:
        origin = b"Origin: http://localhost:%d" % it.port
        assert it.send(get(b"/health", origin, host=b"localhost:%d" % it.port)).only()[0] == 200


def test_an_unexpected_failure_tells_nothing(locked):
    error, headers = locked.send(post(b"{}", b"/v1/explode", BEARER)).error(500)
    assert error["code"] == "internal_error" and headers["x-request-id"] in error["message"]
    failed = locked.wait_for("failed")
    written = locked.written.getvalue()
    assert "canary-7f3a" not in written and "Traceback" not in written
    assert failed[-1]["exception"] == "ValueError" and "explode" in failed[-1]["where"]
    assert failed[-1]["id"] == headers["x-request-id"]


def test_an_expected_failure_is_told_and_not_traced():
    with edge() as it:
        error, headers = it.send(get(b"/v1/loading")).error(503)
        assert error["code"] == "loading" and headers["retry-after"] and "/path" not in str(error)
        it.send(get(b"/nothing")).error(404)
    assert not it.events("failed")


def test_a_router_speaks_in_our_words(locked):
    error, headers = locked.send(get(b"/v1/echo", BEARER)).error(405)
    assert headers["allow"] == "POST" and error["code"] == "method_not_allowed"
    assert locked.send(get(b"/v1/none", BEARER)).error(404)[0]["type"] == "not_found_error"


def test_a_stream_that_is_ended_says_so_once_and_never_done():
    slow = Slow()
    with edge(slow) as it, it.dial() as client:
        client.sendall(post(path=b"/v1/stream"))
        assert slow.begun.wait(20)
        it.call(it.gate.end(unavailable("draining", "The server is shutting down.")))
        got = read_all(client)
        assert slow.gone.wait(20)
    assert got.count(b'data: {"error"') == 1 and b"[DONE]" not in got
    assert got.endswith(b"0\r\n\r\n")
    assert it.events("request")[-1]["code"] == "draining"


def test_an_answer_that_has_not_begun_is_ended_with_the_error_itself():
    slow = Slow()
    with edge(slow) as it, it.dial() as client:
        client.sendall(post(path=b"/v1/plain", close=False))
        assert slow.begun.wait(20)
        it.call(it.gate.end(unavailable("draining", "The server is shutting down.")))
        got = client.recv(65536)
        assert got.startswith(b"HTTP/1.1 503") and b'"draining"' in got
        assert slow.gone.wait(20)


def test_an_answer_that_can_say_nothing_more_is_cut():
    slow = Slow()
    with edge(slow) as it, it.dial() as client:
        client.sendall(post(path=b"/v1/flood"))
        assert slow.begun.wait(20)
        it.call(it.gate.end(unavailable("draining", "")))
        assert not read_all(client).endswith(b"0\r\n\r\n")


def test_what_runs_for_a_revoked_key_is_ended_and_nobody_elses():
    slow = Slow()
    with edge(slow, keys=Keys([ALICE, BOB])) as it, it.dial() as alice, it.dial() as bob:
        alice.sendall(post(b"{}", b"/v1/stream", BEARER))
        bob.sendall(post(b"{}", b"/v1/stream", b"Authorization: Bearer " + OTHER.encode()))
        while len(it.gate.visits) < 2:
            time.sleep(0.01)

        async def revoke():
            it.callers.replace(Keys([BOB]))
            await it.gate.end_revoked(unauthenticated("The key of this request was revoked."))

        it.call(revoke())
        assert b"revoked" in read_all(alice)
        it.send(post(b"{}", b"/v1/echo", BEARER)).error(401)
        slow.may_end.set()
        assert b"data: [DONE]" in read_all(bob)


def test_while_draining_only_operations_are_answered():
    with edge() as it:
        it.gate.closed = unavailable("draining", "The server is shutting down and takes no new requests.")
        _, headers = it.send(post(b"{}")).error(503)
        assert headers["retry-after"]
        for path in OPERATIONS:
            assert it.send(get(path)).statuses == [200]


def test_a_request_is_one_line_whatever_its_path_holds():  # R13
    with edge() as it:
        it.send(get(b"/x%0a2026-01-01%20ERROR\\x1b[2J%s%n{0.__class__}\"'"))
        line = it.events("request")[-1]
    assert line["path"].startswith("/x%0a2026") and line["status"] == 404 and line["end"] == "whole"


def test_a_visit_that_is_cancelled_leaves_nothing_behind():
    slow = Slow()
    with edge(slow) as it:
        for _ in range(20):
            client = it.dial()
            client.sendall(post(path=b"/v1/plain", close=False))
            assert slow.begun.wait(20)
            client.close()
        assert slow.gone.wait(20)

        async def quiet():
            while it.gate.visits or len(asyncio.all_tasks()) > 3:
                await asyncio.sleep(0.01)

        it.call(asyncio.wait_for(quiet(), 15))
