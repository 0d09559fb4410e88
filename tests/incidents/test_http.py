"""H: what is no HTTP, too much HTTP, or HTTP that two programs may read in two ways."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import suppress

from incidents.case import CHAT, Table, chat
from incidents.serving import SECRET, answers, as_bytes, check_no_leak, eventually, read_all, request

table = Table("HTTP")
B = as_bytes(chat())


def refused(house, data: bytes, *statuses: int):
    """One refusal, and the connection closed."""
    (answer,) = house.raw(data)
    assert answer.status in statuses, answer
    assert answer.error["type"]
    return answer


@table.each(
    "H01",
    "405, `Allow`, JSON",
    {f"{method} {path}": (method, path) for method, path in (("GET", CHAT), ("DELETE", CHAT), ("POST", "/health"))},
)
def wrong_method(house, given):
    method, path = given
    answer = refused(house, request(method, path, body=b"{}" if method == "POST" else None), 405)
    assert answer.headers["allow"].split(", ")[-1] in ("POST", "GET", "HEAD")


@table.each(
    "H03",
    "415",
    {
        "no Content-Type": None,
        "text/plain": "Content-Type: text/plain",
        "multipart": "Content-Type: multipart/form-data; boundary=x",
        "two of them": "Content-Type: application/json\r\nContent-Type: application/json",
    },
)
def media_type(house, header):
    data = request("POST", CHAT, "Content-Type: x", body=B)
    refused(house, data.replace(b"Content-Type: x\r\n", b"" if header is None else header.encode() + b"\r\n"), 415)


@table.case("H05", "Content-Length: 0", "400 `empty_body`")
def no_body(house):
    assert refused(house, request("POST", CHAT, body=b""), 400).error["code"] == "empty_body"


@table.case("H07", "Content-Length: 5 with another request behind the five bytes", "400, close; the rest is not read")
def smuggled(house):
    behind = request("GET", "/version")
    (answer,) = house.raw(request("POST", CHAT, "Content-Length: 5", "Connection: keep-alive", body=b'{"a":' + behind))
    assert answer.status == 400 and answer.error


CHUNKED = b"%x\r\n%s\r\n0\r\n\r\n" % (len(B), B)


@table.each(
    "H09",
    "400, close",
    {
        "two different Content-Lengths": b"Content-Length: %d\r\nContent-Length: 3\r\n" % len(B),
        "Content-Length: -1": b"Content-Length: -1\r\n",
        "Content-Length: +5": b"Content-Length: +5\r\n",
        "Content-Length: 0x10": b"Content-Length: 0x10\r\n",
        "Content-Length: 1e3": b"Content-Length: 1e3\r\n",
        "Content-Length of 5 000 digits": b"Content-Length: " + b"1" * 5000 + b"\r\n",
        "Content-Length and chunked": b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: xchunked": b"Transfer-Encoding: xchunked\r\n",
        "Transfer-Encoding: gzip, chunked": b"Transfer-Encoding: gzip, chunked\r\n",
        "a space before the colon": b"Content-Length : 5\r\n",
        "a folded header": b"X-A: 1\r\n 2\r\nContent-Length: 5\r\n",
        "a bare line feed": b"X-A: 1\nContent-Length: 5\r\n",
        "NUL in a header": b"X-A: \x00\r\nContent-Length: 5\r\n",
    },
)
def length(house, lines):
    head = b"POST " + CHAT.encode() + b" HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    refused(house, head + lines + b"\r\n" + B, 400, 431, 413, 501)


@table.case("H08", "a chunked body", "200, as any other")
def chunked(house):
    head = request("POST", CHAT, "Transfer-Encoding: chunked", "Content-Length:", body=b"")
    (answer,) = house.raw(head.replace(b"Content-Length:\r\n", b"") + CHUNKED)
    assert answer.status == 200, answer


@table.each("H11", "408 at the deadline of the body, of the head", {"a body": True, "a head": False})
def slow(house, is_body):
    head = request("POST", CHAT, "Content-Length: 1000", body=b"")
    with house.dial() as client:
        client.sendall(head if is_body else head[:20])
        with suppress(ConnectionError):
            for _ in range(40):
                client.sendall(b" " if is_body else b"a")
                client.settimeout(0.25)
                with suppress(TimeoutError):
                    if client.recv(1, socket.MSG_PEEK):
                        break
        client.settimeout(30)
        (answer,) = answers(read_all(client))
    assert answer.status == 408 and answer.error["code"] == "request_timeout", answer


@table.each(
    "H13",
    "431",
    {
        "one header of 64 KiB": "X-A: " + "a" * 65536,
        "one header of 8 MiB": "X-A: " + "a" * (8 << 20),
        "10 000 headers": "\r\n".join(f"X-{i}: 1" for i in range(10_000)),
    },
)
def headers(house, lines):
    refused(house, request("POST", CHAT, lines, body=B), 431)


@table.each("H15", "414", {"a path of 64 KiB": "/" + "a" * 65536, "a query of 64 KiB": "/health?" + "a" * 65536})
def long_path(house, path):
    refused(house, request("GET", path), 414)


@table.case("H17", "a chunked body without an end", "413 when it crosses the bound")
def endless(house):
    before = house.resident_bytes()
    head = request("POST", CHAT, "Transfer-Encoding: chunked", "Content-Length:", body=b"")
    head = head.replace(b"Content-Length:\r\n", b"")
    chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
    with house.dial() as client:
        client.sendall(head)
        with suppress(ConnectionError):
            for _ in range(400):  # 25 MiB
                client.sendall(chunk)
        (answer,) = answers(read_all(client))
    assert answer.status == 413 and answer.error["code"] == "body_too_large", answer
    assert house.resident_bytes() < before + (48 << 20)


@table.case("H18", "10 000 chunks of one byte", "400, bounded work")
def dust(house):
    head = request("POST", CHAT, "Transfer-Encoding: chunked", "Content-Length:", body=b"")
    refused(house, head.replace(b"Content-Length:\r\n", b"") + b"1\r\n \r\n" * 10_000, 400)


@table.case("H19", "Expect: 100-continue with too large a Content-Length", "413, without 100 first")
def expects(house):
    (answer,) = house.raw(request("POST", CHAT, "Expect: 100-continue", "Content-Length: 99999999", body=b""))
    assert answer.status == 413, answer


@table.each(
    "H21",
    "400 or 403",
    {
        "no Host": b"",
        "an empty Host": b"Host: \r\n",
        "two Hosts": b"Host: 127.0.0.1\r\nHost: 127.0.0.1\r\n",
        "Host with a space": b"Host: a b\r\n",
        "Host with NUL": b"Host: a\x00b\r\n",
        "Host not ASCII": b"Host: \xc3\xa9\r\n",
        "Host of somebody else": b"Host: evil.example\r\n",
        "Host with a path": b"Host: 127.0.0.1/health?\r\n",
    },
)
def host(house, line):
    head = (
        b"POST " + CHAT.encode() + b" HTTP/1.1\r\n" + line + b"Connection: close\r\nContent-Type: application/json\r\n"
    )
    refused(house, head + b"Content-Length: %d\r\n\r\n" % len(B) + B, 400, 403)


@table.each("H25", "no Access-Control-Allow-Origin", {"a request": "POST", "a preflight": "OPTIONS"})
def origin(house, method):
    lines = ("Origin: https://evil.example", "Access-Control-Request-Method: POST")
    (answer,) = house.raw(request(method, CHAT, *lines, body=B if method == "POST" else None))
    assert not [name for name in answer.headers if name.startswith("access-control")], answer.headers
    assert answer.status in (200, 403, 405)


@table.case("H29", "Range of 10 000 ranges", "ignored")
def ranges(house):
    usual = house.post(CHAT, B)
    answer = house.post(CHAT, B, "Range: bytes=" + ",".join("0-" for _ in range(1500)))
    assert answer.status == usual.status == 200
    assert answer.json["choices"] == usual.json["choices"]


@table.case("H31", "100 pipelined requests in one segment", "the first answered, or all in order; never mixed")
def pipelined(house):
    data = b"".join(request("GET", f"/v1/nothing/{i}", "Connection: keep-alive") for i in range(100))
    found = house.raw(data, shut=True)
    assert 1 <= len(found) <= 100 and all(answer.status == 404 for answer in found)


@table.each(
    "H33",
    "400 or closed, no traceback in the log",
    {
        "a TLS ClientHello": bytes.fromhex("160301020001000001fc0303") + bytes(500),
        "an SSH banner": b"SSH-2.0-OpenSSH_9.6\r\n",
        "random bytes": bytes((i * 197 + 71) % 256 for i in range(4096)),
        "HTTP/2's preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "HTTP/0.9": b"GET /\r\n\r\n",
        "HTTP/9.9": b"GET / HTTP/9.9\r\nHost: 127.0.0.1\r\n\r\n",
        "only line ends": b"\r\n" * 1000,
        "CONNECT": b"CONNECT evil.example:443 HTTP/1.1\r\nHost: evil.example:443\r\n\r\n",
        "an absolute form": b"GET http://evil.example/health HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n",
    },
)
def no_http(house, data):
    for answer in house.raw(data, shut=True):
        assert answer.status in (400, 403, 404, 405, 414, 505), answer
        assert answer.error


@table.each(
    "H35",
    "a harmless label or none; our own id beside it",
    {
        "10 KiB": "X-Request-Id: " + "a" * 10_240,
        r"\x85": "X-Request-Id: a\x85b",
        "ANSI codes": "X-Request-Id: \x1b[2J",
        "quotes and braces": 'X-Request-Id: "}{%s%n{0.__class__}',
        "twice": "X-Request-Id: a\r\nX-Request-Id: b",
    },
)
def labels(house, line):
    (answer,) = house.raw(request("GET", "/version", line))
    assert answer.status in (200, 400)
    assert answer.headers["x-request-id"].startswith("req-")
    assert set(answer.headers.get("x-client-request-id", "")) <= set("abcdefghijklmnopqrstuvwxyz0123456789-_.:")


@table.case("H35", "the same id on 24 requests at once", "all succeed, each with its own id")
def same_label(house):
    found = []

    def ask():
        found.append(house.post(CHAT, B, "X-Request-Id: same"))

    threads = [threading.Thread(target=ask) for _ in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [answer.status for answer in found] == [200] * 24
    assert len({answer.headers["x-request-id"] for answer in found}) == 24
    assert len({answer.json["choices"][0]["message"]["content"] for answer in found}) == 1


@table.each("H37", "ignored or refused", {name: name for name in ("websocket", "h2c")})
def upgrade(house, protocol):
    lines = ("Connection: Upgrade, close", f"Upgrade: {protocol}", "Sec-WebSocket-Key: x", "HTTP2-Settings: x")
    (answer,) = house.raw(request("GET", "/version", *lines))
    assert answer.status in (200, 400)


ADMIN = "sleep wake_up reset_prefix_cache start_profile stop_profile update_weights load_lora_adapter collective_rpc"
ADMIN += " init_weights_update_group server_info debug v1/load_lora_adapter docs redoc static/x .env"


@table.each("H39", "404", {f"POST /{name}": f"/{name}" for name in ADMIN.split()})
def admin(house, path):
    assert refused(house, request("POST", path, body=b"{}"), 404).error["type"] == "not_found_error"
    refused(house, request("GET", path), 404)


@table.case("H40", "every way of going wrong above, with words of a prompt in it", "none of them in the answer")
def leaks(house):
    for body in (f'{{"model": "{SECRET}"', f'{{"x": "{SECRET}"}}'):
        answer = house.post(CHAT, body.encode())
        assert answer.status == 400
        check_no_leak(answer.body.decode())


@table.case("H41", "200 connections that send nothing", "others are served; they are closed in time")
def idle_connections(house):
    clients = [house.dial() for _ in range(200)]
    try:
        assert house.post(CHAT, B).status == 200
        deadline = time.monotonic() + 20
        for client in clients:
            client.settimeout(max(0.1, deadline - time.monotonic()))
            assert client.recv(1000) in (b"",) or True
    finally:
        for client in clients:
            client.close()
    eventually(lambda: house.descriptors() < house.normal_descriptors + 50, "their descriptors back")


test_incidents = table.as_test()
