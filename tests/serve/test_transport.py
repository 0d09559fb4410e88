"""HTTP as it arrives: every limit, every deadline and every oddity ends in an answer of ours or a closed connection."""

import json
import os
import socket
import time
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from serve.edge import QUICK, Answers, Slow, edge, get, post, read_all

from openwork.serve import head
from openwork.serve.errors import ApiError
from openwork.serve.settings import HttpLimits

CHUNKED = b"Transfer-Encoding: chunked"


@pytest.fixture(scope="module")
def plain():
    with edge() as it:
        yield it


@pytest.fixture(autouse=True)
def lives_on(request):
    """Whatever was sent, the next client is served and nobody wrote of a failure."""
    yield
    if "plain" in request.fixturenames:
        it = request.getfixturevalue("plain")
        assert it.send(get()).only()[0] == 200
        assert '"failed"' not in it.written.getvalue() and '"library"' not in it.written.getvalue()


def test_an_ordinary_request_is_answered_and_the_connection_is_kept(plain):
    with plain.dial() as client:
        client.sendall(post(close=False))
        first = client.recv(65536)
        client.sendall(post(b'{"b": 22}'))
        answers = Answers(first + read_all(client))
    assert answers.statuses == [200, 200]
    assert [json.loads(body)["size"] for _, _, body in answers.all] == [8, 9]
    assert "server" not in answers.all[0][1]
    assert answers.all[0][1]["x-request-id"] != answers.all[1][1]["x-request-id"]


def read_on(client, most):
    """Read to the end, which is to come before so many bytes."""
    while most > 0 and (data := client.recv(65536)):
        most -= len(data)
    assert most > 0


def test_head_is_answered_without_a_body(plain):
    status, headers, body = plain.send(get().replace(b"GET", b"HEAD")).only()
    assert status == 200 and int(headers["content-length"]) > 0 and body == b""


def test_a_client_of_http_1_0_is_answered_and_let_go(plain):
    status, headers, body = plain.send(b"GET /health HTTP/1.0\r\n\r\n").only()
    assert status == 403 and b"not_allowed" in body  # without a Host it may be anybody
    status, headers, body = plain.send(b"GET /health HTTP/1.0\r\nHost: localhost\r\n\r\n").only()
    assert status == 200 and headers["connection"] == "close" and b"ok" in body


def body_of(*lines):
    return post(b"{}", b"/v1/echo", *lines)


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        pytest.param(get(b"/v1/chat/completions"), 405, id="H01"),
        pytest.param(post(kind=b""), 415, id="H03"),
        pytest.param(post(kind=b"text/plain"), 415, id="H03-text"),
        pytest.param(post(kind=b"application/json-patch"), 415, id="H03-near"),
        pytest.param(post(b""), 400, id="H05"),
        pytest.param(body_of(b"Content-Length: 2", b"Content-Length: 3"), 400, id="H09-two"),
        pytest.param(body_of(b"Content-Length: 2", b"Content-Length: 2"), 400, id="H09-same-twice"),
        pytest.param(body_of(b"Content-Length: 2, 2"), 400, id="H09-list"),
        pytest.param(body_of(b"Content-Length: -1"), 400, id="H09-negative"),
        pytest.param(body_of(b"Content-Length: +5"), 400, id="H09-plus"),
        pytest.param(body_of(b"Content-Length: 0x10"), 400, id="H09-hex"),
        pytest.param(body_of(b"Content-Length: " + b"9" * 30), 400, id="H09-huge"),
        pytest.param(body_of(CHUNKED, b"Content-Length: 2"), 400, id="H09-both"),
        pytest.param(body_of(b"Content-Length: 99999999999"), 413, id="H17-announced"),
        pytest.param(get(b"/health", b"X: " + b"a" * 65536), 431, id="H13"),
        pytest.param(get(b"/health", *[b"X: a"] * 101), 431, id="H13-many"),
        pytest.param(get(b"/" + b"a" * 65536), 414, id="H15"),
        pytest.param(b"GET /" + b"a" * 65536, 414, id="H15-endless"),
        pytest.param(get(host=b""), 400, id="H21-empty"),
        pytest.param(get(b"/health", b"Host: localhost"), 400, id="H21-two"),
        pytest.param(get(host=b"local host"), 400, id="H21-space"),
        pytest.param(get(host=b"local\x00host"), 400, id="H21-nul"),
        pytest.param(get(host=b"l\xc3\xb6calhost"), 400, id="H21-non-ascii"),
        pytest.param(get(host=b"localhost/@evil"), 400, id="H21-path"),
        pytest.param(b"GET /health HTTP/1.1\r\n\r\n", 400, id="H21-none"),
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(64), 400, id="H33-tls"),
        pytest.param(b"SSH-2.0-OpenSSH_9.6\r\n\r\n", 400, id="H33-ssh"),
        pytest.param(b"\x00\x01\x02\x03", 400, id="H33-binary"),
        pytest.param(b"\xff\xfe" * 40, 400, id="H33-high"),
        pytest.param(b"GARBAGE\r\n\r\n", 400, id="H33-word"),
        pytest.param(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, id="H37-http2"),
        pytest.param(b"CONNECT localhost:80 HTTP/1.1\r\nHost: localhost\r\n\r\n", 400, id="connect"),
        pytest.param(b"OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n", 400, id="asterisk"),
        pytest.param(b"GET http://evil/ HTTP/1.1\r\nHost: localhost\r\n\r\n", 400, id="absolute"),
        pytest.param(b"GET /health HTTP/1.1\nHost: localhost\n\n", 400, id="bare-lf"),
        pytest.param(b"GET /health\n", 400, id="bare-lf-at-once"),
        pytest.param(get(b"/health", b"A: b\r\n c: d"), 400, id="folded"),
        pytest.param(get(b"/health", b"A : b"), 400, id="space-before-colon"),
        pytest.param(get(b"/health", b"A: b\rC: d"), 400, id="bare-cr"),
        pytest.param(get(b"/health", b"no colon"), 400, id="no-colon"),
        pytest.param(body_of(b"Transfer-Encoding: xchunked"), 400, id="coding"),
        pytest.param(body_of(b"Transfer-Encoding: gzip, chunked"), 400, id="codings"),
        pytest.param(body_of(CHUNKED, CHUNKED), 400, id="chunked-twice"),
        pytest.param(post(b"zz\r\n", b"/v1/echo", CHUNKED), 400, id="bad-chunk"),
        pytest.param(post(b"1\r\na\r\n" * 300, b"/v1/echo", CHUNKED), 400, id="tiny-chunks"),
        pytest.param(b"GET /health HTTP/9.1\r\nHost: localhost\r\n\r\n", 400, id="version"),
        pytest.param(get(b"/v1/sleep"), 404, id="H39-sleep"),
        pytest.param(post(path=b"/reset_prefix_cache"), 404, id="H39-reset"),
        pytest.param(post(path=b"/collective_rpc"), 404, id="H39-rpc"),
    ],
)
def test_what_cannot_be_served_is_refused_as_json(plain, sent, status):
    _, headers = plain.send(sent).error(status)
    assert headers["connection"] == "close"
    if status == 405:
        assert headers["allow"] == "POST"


@pytest.mark.parametrize(
    "behind",
    [
        pytest.param(get(), id="H07"),
        pytest.param(b"x" * 30_000, id="H07-junk"),
    ],
)
def test_what_follows_a_body_is_never_a_request(plain, behind):
    sent = post(b'{"a":', close=False) + behind
    status, _, body = plain.send(sent).only()
    assert status == 200 and json.loads(body)["size"] == 5


def test_pipelined_requests_are_not_mixed(plain):
    assert plain.send(get(close=False) * 100).statuses == [200]  # H31: closed behind the first


@pytest.mark.parametrize("upgrade", [b"websocket", b"h2c"], ids=["H37-websocket", "H37-h2c"])
def test_an_upgrade_is_not_taken_up(plain, upgrade):
    assert plain.send(get(b"/health", b"Upgrade: " + upgrade, b"HTTP2-Settings: AAMAAABkAAQ")).only()[0] == 200


def test_a_range_is_ignored(plain):  # H29
    ranges = b"Range: bytes=" + b",".join([b"0-"] * 4000)
    assert plain.send(get(b"/health", ranges)).only()[0] == 200


@pytest.mark.parametrize(
    ("label", "echoed"),
    [
        pytest.param(b"abc-1.2:3_4", "abc-1.2:3_4", id="H35-harmless"),
        pytest.param(b"a\x85b", None, id="H35-nel"),
        pytest.param(b"a b", None, id="H35-space"),
        pytest.param(b"x" * 10_000, None, id="H35-long"),
        pytest.param(b"a\r\nX-Evil: 1", "a", id="H35-split"),
    ],
)
def test_a_clients_request_id_is_a_label_at_most(plain, label, echoed):
    status, headers, _ = plain.send(get(b"/health", b"X-Request-Id: " + label)).only()
    assert status == 200 and headers["x-request-id"].startswith("req-")
    assert headers.get("x-client-request-id") == echoed
    assert "x-evil" not in headers


def test_the_same_request_id_twice_is_none(plain):  # H35
    _, headers, _ = plain.send(get(b"/health", b"X-Request-Id: a", b"X-Request-Id: a")).only()
    assert "x-client-request-id" not in headers


def test_too_large_a_body_is_refused_before_it_is_asked_for(plain):  # H19
    answers = plain.send(body_of(b"Expect: 100-continue", b"Content-Length: 99999999"))
    answers.error(413)
    assert b"100 Continue" not in answers.raw


def test_a_body_is_asked_for_when_somebody_wants_it(plain):
    with plain.dial() as client:
        client.sendall(body_of(b"Expect: 100-continue", b"Content-Length: 8").removesuffix(b"{}"))
        assert client.recv(100).startswith(b"HTTP/1.1 100 Continue\r\n\r\n")
        client.sendall(b'{"a": 1}')
        assert Answers(read_all(client)).only()[0] == 200


def test_a_body_nobody_wants_is_not_asked_for(plain):
    answers = plain.send(post(b"", b"/nope", b"Expect: 100-continue", b"Content-Length: 8"))
    answers.error(404)


def test_an_endless_body_is_refused_where_it_crosses_the_bound():  # H17
    with edge(http=replace(QUICK, body_bytes=100_000)) as it:
        chunk = b"2710\r\n" + b"x" * 10_000 + b"\r\n"
        answers = it.send(post(chunk, b"/v1/echo", CHUNKED), *[chunk] * 200)
        answers.error(413)


def test_a_body_at_the_bound_is_taken_and_one_above_is_not():
    with edge(http=replace(QUICK, body_bytes=1000)) as it:
        assert it.send(post(b"x" * 1000)).only()[0] == 200
        it.send(post(b"x" * 1001)).error(413)
        whole = b"3e8\r\n" + b"x" * 1000 + b"\r\n"
        assert it.send(post(whole + b"0\r\n\r\n", b"/v1/echo", CHUNKED)).only()[0] == 200
        it.send(post(whole + b"1\r\nx\r\n0\r\n\r\n", b"/v1/echo", CHUNKED)).error(413)


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(b"GET /health HTTP/1.1\r\nHost: loc", id="head"),
        pytest.param(post(b"5\r\nab", b"/v1/echo", CHUNKED), id="H11"),
        pytest.param(post(b"ab", b"/v1/echo", b"Content-Length: 5"), id="body"),
    ],
)
def test_a_request_that_takes_too_long_is_answered_408(sent):
    with edge(http=replace(QUICK, header_s=0.2, body_s=0.2)) as it:
        error, headers = it.send(sent).error(408)
        assert error["code"] == "request_timeout" and headers["connection"] == "close"


def test_a_connection_without_a_request_is_closed_without_a_word():
    with edge(http=replace(QUICK, header_s=0.2, idle_s=0.2)) as it:
        assert it.send().raw == b""
        assert it.send(get(close=False)).statuses == [200]  # and then closed, since nothing follows


def test_no_more_connections_are_held_than_may_be():
    with edge(http=replace(QUICK, connections=2)) as it:
        with it.dial() as one, it.dial():
            one.sendall(get(close=False))
            assert one.recv(4096).startswith(b"HTTP/1.1 200")
            it.send(get()).error(503)
        for _ in range(100):  # the two are noticed to be gone
            if it.send(get()).statuses == [200]:
                break
            time.sleep(0.05)
        assert it.send(get()).only()[0] == 200


def test_a_half_closed_client_gets_its_answer(plain):  # Q03
    with plain.dial() as client:
        client.sendall(post(close=False))
        client.shutdown(socket.SHUT_WR)
        assert Answers(read_all(client)).all[-1][0] == 200


@pytest.mark.parametrize("route", [b"/v1/plain", b"/v1/stream"])
def test_a_half_closed_client_that_waits_gets_its_answer(route):  # Q03
    slow = Slow()
    with edge(slow) as it, it.dial() as client:
        client.sendall(post(path=route, close=False))
        assert slow.begun.wait(20)
        client.shutdown(socket.SHUT_WR)
        time.sleep(0.2)
        assert not slow.gone.is_set()
        slow.may_end.set()
        got = read_all(client)
    if route == b"/v1/stream":
        assert got.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")
    else:
        assert got.endswith(b'{"ok":true}')


@pytest.mark.parametrize("route", [b"/v1/plain", b"/v1/stream"])
@pytest.mark.parametrize("way", ["close", "reset"])
def test_a_client_that_is_gone_is_noticed(route, way):  # Q01
    slow = Slow()
    with edge(slow) as it:
        client = it.dial()
        client.sendall(post(path=route, close=False))
        assert slow.begun.wait(20)
        if way == "reset":
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        client.close()
        assert slow.gone.wait(20)
        assert it.send(get()).only()[0] == 200


def test_junk_during_an_answer_changes_nothing_and_ends_the_connection():  # Q07
    slow = Slow()
    with edge(slow) as it, it.dial() as client:
        client.sendall(post(path=b"/v1/plain", close=False))
        assert slow.begun.wait(20)
        client.sendall(b"junk" * 100)
        time.sleep(0.1)
        slow.may_end.set()
        assert Answers(read_all(client)).only()[2] == b'{"ok":true}'


def test_a_flood_of_junk_is_cut_off():  # Q07
    slow = Slow()
    with edge(slow) as it, it.dial() as client:
        client.sendall(post(path=b"/v1/plain", close=False))
        assert slow.begun.wait(20)
        with pytest.raises(ConnectionError):
            client.sendall(b"junk" * 16_000_000)
        assert slow.gone.wait(20)


def test_a_reader_that_takes_nothing_is_cut_off_and_costs_little():  # Q05
    slow = Slow()
    with edge(slow, http=replace(QUICK, write_s=0.3)) as it, it.dial(receive_bytes=4096) as client:
        client.sendall(post(path=b"/v1/flood", close=False))
        assert slow.gone.wait(20)
        assert not slow.may_end.is_set()
        assert it.send(get()).only()[0] == 200
        with pytest.raises(ConnectionError):
            read_on(client, 4 * 1024 * 1024)
    assert it.events("cut_off")[0]["why"] == "slow_reader"


def test_an_answer_that_is_not_finished_is_visibly_cut():
    async def half(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        raise ValueError("canary-55")

    slow = Slow()
    slow.plain = half
    with edge(slow) as it:
        for sent in (post(path=b"/v1/plain"), post(path=b"/v1/plain").replace(b"HTTP/1.1", b"HTTP/1.0")):
            with it.dial() as client:
                client.sendall(sent)
                with pytest.raises(ConnectionError):  # not an orderly end
                    read_on(client, 100_000)
    assert "canary-55" not in it.written.getvalue()
    assert it.events("failed")


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="Linux")
def test_running_out_of_descriptors_is_a_pause():  # R05
    import resource

    with edge() as it:
        assert it.send(get()).only()[0] == 200
        clients = [it.dial() for _ in range(3)]
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        spare = os.open("/dev/null", os.O_RDONLY)
        os.close(spare)
        resource.setrlimit(resource.RLIMIT_NOFILE, (spare + 1, hard))
        try:
            with it.dial():  # takes the last descriptor: none is left to accept it with
                time.sleep(0.3)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert it.send(get()).only()[0] == 200
        for client in clients:
            client.close()
    assert len(it.events("accept_failed")) < 20


# -- the head as bytes alone

HEAD = b"POST /v1/echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n"


@given(st.binary(max_size=300), st.integers(0, len(HEAD)))
def test_any_bytes_are_a_head_or_an_error_of_ours(junk, place):
    data = bytearray(HEAD[:place] + junk + HEAD[place:])
    try:
        end = head.find_end(data, HttpLimits())
        if end is not None:
            head.check_fields(bytes(data[:end]), HttpLimits())
    except ApiError as error:
        status = error.status
    else:
        return
    assert status in (400, 413, 414, 431)


@given(st.integers(1, len(HEAD)))
def test_a_head_that_comes_in_parts_is_found_where_it_ends(place):
    data = bytearray(HEAD[:place])
    assert head.find_end(data, HttpLimits()) == (len(HEAD) if place == len(HEAD) else None)
    data += HEAD[place:] + b"{}"
    assert head.find_end(data, HttpLimits()) == len(HEAD)


@pytest.mark.parametrize("room", [0, 1])
def test_the_bounds_of_a_head_are_exact(room):
    limits = HttpLimits(line_bytes=22, header_bytes=50, num_headers=2)
    line = b"POST /v1/echo HTTP/1.1" + b"x" * room
    fields = b"Host: localhost\r\nX: " + b"y" * (30 + room)
    for whole, status in ((line + b"\r\nHost: a\r\n\r\n", 414), (line[:22] + b"\r\n" + fields + b"\r\n\r\n", 431)):
        if room:
            with pytest.raises(ApiError) as caught:
                head.find_end(bytearray(whole), limits)
            assert caught.value.status == status
        else:
            for end in range(1, len(whole) + 1):
                assert head.find_end(bytearray(whole[:end]), limits) == (len(whole) if end == len(whole) else None)
