"""The auditor itself: each of its checks can fail."""

from __future__ import annotations

import json

import pytest
from incidents.house import House, Victim
from incidents.serving import SECRET, Answer, answers, check_no_leak, request

HEADERS = {"content-type": "application/json", "x-request-id": "req-1"}
FINE = {"message": "n is 99; at most 16 are given.", "type": "invalid_request_error", "param": "n", "code": None}


def error(body, status=400, headers=HEADERS):
    return Answer(status, headers, json.dumps(body).encode(), True).error


def test_an_error_as_the_contract_has_it():
    assert error({"error": FINE}) == FINE


@pytest.mark.parametrize(
    "body",
    [
        {"detail": "no"},
        {"error": "no"},
        {"error": FINE, "more": 1},
        {"error": FINE | {"more": 1}},
        {"error": FINE | {"message": ""}},
        {"error": FINE | {"message": "x" * 5000}},
        {"error": FINE | {"code": 400}},
        {"error": FINE | {"message": f"{SECRET} is wrong"}},
        {"error": FINE | {"message": "Traceback (most recent call last)"}},
        {"error": FINE | {"message": "in /usr/lib/x"}},
    ],
)
def test_an_error_in_another_form_is_found(body):
    with pytest.raises((AssertionError, TypeError)):
        error(body)


@pytest.mark.parametrize("text", ["at 0x7f3a2b1c4d", 'File "x", line 1', "in app.py line 3", "<class 'int'>", SECRET])
def test_a_leak_is_found(text):
    with pytest.raises(AssertionError):
        check_no_leak(f"a {text} b")


def test_answers_are_taken_apart():
    raw = b"HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
    first, second = answers(raw + b"HTTP/1.1 404 No\r\nContent-Length: 9\r\n\r\nx")
    assert (first.status, first.body, first.is_whole) == (200, b"abc", True)
    assert (second.status, second.body, second.is_whole) == (404, b"x", False)
    assert request("GET", "/x", "Host: y") == b"GET /x HTTP/1.1\r\nConnection: close\r\nHost: y\r\n\r\n"


class Changing(Victim):
    """Streams whose tokens change."""

    def __init__(self):
        super().__init__(None)
        self.reference = [1, 2]
        self.num_streams = 0

    def stream(self, began=None):
        self.num_streams += 1
        began.set()
        return [1, 2] if self.num_streams == 1 else [1, 3]


def test_a_victim_whose_tokens_change_is_found():
    with pytest.raises(AssertionError, match="victim"):
        wait_for_streams(Changing())


def wait_for_streams(victim):
    with victim.streaming():
        while victim.num_streams < 2:
            pass


@pytest.fixture
def house(tmp_path):
    """An auditor without a server."""
    house = House.__new__(House)
    house.log_path, house.watch_path = tmp_path / "log", tmp_path / "watched"
    house._log_read = house._watch_read = 0
    return house


@pytest.mark.parametrize(
    "line",
    ["plain text", '{"event": "failed"}', f'{{"event": "x", "said": "{SECRET}"}}', "Traceback", '{"no": "event"}'],
)
def test_a_wrong_line_of_the_log_is_found(house, line):
    house.log_path.write_text('{"event": "request"}\n')
    house.check_log()
    house.log_path.write_text(f'{{"event": "request"}}\n{line}\n')
    with pytest.raises((AssertionError, ValueError, KeyError)):
        house.check_log()


@pytest.mark.parametrize("deed", ["open '/etc/passwd'", "socket.connect ('1.2.3.4', 80)", "os.system 'id'"])
def test_an_unusual_deed_is_found(house, deed):
    house.watch_path.write_text("open '/proc/self/stat'\n")
    house.check_deeds(crashes=False)
    house.watch_path.write_text(f"open '/proc/self/stat'\n{deed}\n")
    with pytest.raises(AssertionError):
        house.check_deeds(crashes=False)
