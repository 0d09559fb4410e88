"""The worker's end of the channel: nothing is lost, nothing piles up, and a parent that is gone is noticed."""

import socket
import threading

import pytest

from openwork.cluster.frames import DOWN, UP, Frames, frame
from openwork.cluster.pipe import Gone, Pipe
from openwork.cluster.wire import Accepted, Cancel, Planned, Stop
from openwork.core.errors import EngineError

LARGE = Planned(1, 2, list(range(500_000)))  # more than the system takes at once


@pytest.fixture
def ends():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield Pipe(theirs), ours


def read_all(end, found):
    frames = Frames(UP)
    while data := end.recv(65536):
        found += frames.feed(data)


def test_what_is_posted_goes_out_with_a_flush_and_not_before(ends):
    pipe, ours = ends
    ours.setblocking(False)
    pipe.post(Accepted(1))
    with pytest.raises(BlockingIOError):
        ours.recv(1)
    pipe.flush()
    assert list(Frames(UP).feed(ours.recv(1000))) == [Accepted(1)]


def test_a_parent_that_reads_late_is_waited_for_and_misses_nothing(ends):
    pipe, ours = ends
    pipe.post(LARGE)
    pipe.post(Accepted(2))
    found = []
    flushing = threading.Thread(target=pipe.flush)
    flushing.start()
    flushing.join(0.05)
    assert flushing.is_alive()  # nobody has read
    reading = threading.Thread(target=read_all, args=(ours, found))
    reading.start()
    flushing.join(30)
    assert not flushing.is_alive()
    pipe._end.shutdown(socket.SHUT_WR)
    reading.join(30)
    assert found == [LARGE, Accepted(2)]


def test_a_parent_that_goes_away_instead_of_reading_is_noticed(ends):
    pipe, ours = ends
    pipe.post(LARGE)
    failed = []

    def flush():
        try:
            pipe.flush()
        except Gone:
            failed.append(True)

    flushing = threading.Thread(target=flush)
    flushing.start()
    ours.close()
    flushing.join(30)
    assert failed == [True]


@pytest.mark.parametrize("wait_s", [0.0, 5.0, None])
def test_a_parent_that_is_gone_is_noticed_when_read_from(ends, wait_s):
    pipe, ours = ends
    ours.close()
    with pytest.raises(Gone):
        pipe.receive(wait_s)


def test_messages_come_as_they_were_sent_and_none_is_no_message(ends):
    pipe, ours = ends
    assert pipe.receive(0.0) == pipe.receive(0.01) == []
    sent = frame(Cancel(1, None, "stop"), DOWN) + frame(Stop(), DOWN)
    ours.sendall(sent[:30])
    assert pipe.receive(0.0) == [Cancel(1, None, "stop")]
    ours.sendall(sent[30:])
    assert pipe.receive(None) == [Stop()]


def test_what_is_no_message_is_refused(ends):
    pipe, ours = ends
    ours.sendall(b"GET / HTTP/1.1\r\n\r\n")
    with pytest.raises(EngineError):
        pipe.receive(None)
    pipe, ours = Pipe(ends[0]._end), ours
    ours.sendall(frame(Stop(), DOWN))
    with pytest.raises(EngineError, match="first message"):
        pipe.receive_first(Cancel)
