"""The log: one line an event whatever is in it, never in anybody's way, and honest about what it left out."""

import io
import json
import logging
import os
import threading

import pytest

from openwork.serve.logs import LINES_AT_ONCE, LINES_PER_S, Log, StdlibBridge

HOSTILE = ["\n2026-01-01 ERROR fake", "\x1b[2J", "%s%n", "{0.__class__}", '"quoted"', "\u2028", "\ud800", "\x00\x85"]


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def made(is_human=False, clock=None):
    stream = io.StringIO()
    return Log(stream, is_human, clock or Clock()), stream


@pytest.mark.parametrize("is_human", [False, True])
@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: f"R13-{text!r}")
def test_a_line_stays_a_line(text, is_human):
    log, stream = made(is_human)
    log.write("event", field=text, other=[text])
    log.close()
    written = stream.getvalue()
    assert written.endswith("\n") and len(written.splitlines()) == 1
    assert written.isascii() and written.strip().isprintable()
    if not is_human:
        assert json.loads(written)["field"] == text


def test_a_line_has_a_time_a_level_and_an_event():
    log, stream = made()
    log.write("event", "warning", number=1, truth=True, nothing=None, long="x" * 10_000)
    log.close()
    line = json.loads(stream.getvalue())
    assert (line["level"], line["event"], line["number"], line["truth"], line["nothing"]) == (
        "warning", "event", 1, True, None,
    )  # fmt: skip
    assert line["time"].endswith("+00:00") and len(line["long"]) == 512


def test_too_many_lines_of_a_kind_are_left_out_and_counted():  # R15
    clock = Clock()
    log, stream = made(clock=clock)
    for _ in range(10_000):
        log.write("flood")
    log.write("other")
    clock.now = 1.0
    log.write("flood")
    log.close()
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [line["event"] for line in lines].count("flood") == LINES_AT_ONCE + 1
    assert log.dropped == {"flood": 10_000 - LINES_AT_ONCE}
    assert lines[-2]["event"] == "other" and lines[-1]["dropped_before"] == 10_000 - LINES_AT_ONCE
    assert log.written == len(lines) and LINES_PER_S >= 1


def test_a_reader_that_does_not_read_holds_up_nobody():
    reader, writer = os.pipe()
    clock = Clock()
    with os.fdopen(writer, "w") as stream, os.fdopen(reader) as readable:
        log = Log(stream, False, clock)
        for number in range(30_000):
            clock.now += 1.0
            log.write("event", number=number, padding="x" * 500)
        assert log.dropped["event"] > 0 and log.written + log.dropped["event"] == 30_000
        got = []
        thread = threading.Thread(target=lambda: got.extend(readable), daemon=True)
        thread.start()
        log.close()
        stream.close()
        thread.join(20)
    numbers = [json.loads(line)["number"] for line in got]
    assert numbers == sorted(numbers) and len(numbers) == log.written


def test_a_closed_stream_is_no_failure():
    stream = io.StringIO()
    log = Log(stream, False, Clock())
    stream.close()
    log.write("event")
    log.close()


def test_an_exception_tells_where_and_not_what(monkeypatch):
    monkeypatch.delenv("OPENWORK_DEBUG", raising=False)
    log, stream = made()
    try:
        raise ValueError("canary: what a client said")
    except ValueError as error:
        log.write_exception("failed", error, id="req-1")
    log.close()
    line = json.loads(stream.getvalue())
    assert line["exception"] == "ValueError" and "test_logs.py" in line["where"] and line["id"] == "req-1"
    assert "canary" not in stream.getvalue() and "/" not in line["where"]


def test_libraries_speak_through_it():
    log, stream = made()
    logger = logging.getLogger("a.library")
    bridge = StdlibBridge(log)
    logger.addHandler(bridge)
    logger.propagate = False
    try:
        logger.info("not written")
        logger.warning("Invalid thing: %s", "canary")
        logger.error("failed", exc_info=ValueError("canary"))
    finally:
        logger.removeHandler(bridge)
    log.close()
    first, second = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert first["level"] == "warning" and first["by"].startswith("a.library:")
    assert second["exception"] == "ValueError" and "canary" not in stream.getvalue()
