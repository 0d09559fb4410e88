"""One life of the engine's process: what it says is heard to the end, and why it ended is known."""

import asyncio
import os
import signal
import sys

import pytest
from remotely import is_alive, run

from openwork.cluster.frames import UP, frame
from openwork.cluster.process import Process
from openwork.cluster.wire import Accepted, Stop

SAYS = f"""
import os, signal, sys
os.write(int(sys.argv[1]), {b"".join(frame(Accepted(i), UP) for i in range(1000))!r})
"""


def life(code, heard):
    return Process((sys.executable, "-c", SAYS + code), heard)


@pytest.mark.parametrize(
    ("code", "cause"),
    [
        ("", "itself"),
        ("sys.exit(3)", "itself"),
        ("os.abort()", "itself"),
        ("os.kill(os.getpid(), signal.SIGSEGV)", "itself"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "outside"),
    ],
)
def test_all_that_was_said_is_heard_whatever_it_died_of(code, cause):
    async def test():
        heard = []
        process = life(code, heard.append)
        assert await process.cause() == cause
        assert heard == [Accepted(i) for i in range(1000)]
        process.send(Stop())
        process.close()
        assert not is_alive(process.pid) and not process.num_unsent_bytes

    run(test)


def test_what_is_sent_to_one_that_has_died_loses_nothing_that_it_said():
    async def test():
        heard = []
        process = life("", heard.append)
        while is_alive(process.pid):
            process.send(Stop())
        assert await process.cause() == "itself"
        assert heard == [Accepted(i) for i in range(1000)]

    run(test)


def test_what_it_does_not_read_is_counted_and_it_can_be_ended():
    async def test():
        process = life("import time; time.sleep(600)", lambda message: None)
        for _ in range(200_000):
            process.send(Stop())
        assert process.num_unsent_bytes
        process.kill()
        assert await process.cause() == "hang"
        assert not process.num_unsent_bytes

    run(test)


def test_one_that_lets_go_of_its_channel_is_ended():
    async def test():
        process = life("os.close(int(sys.argv[1])); os.abort()", lambda message: None)
        await process.gone
        assert await process.cause() == "itself"
        assert not is_alive(process.pid)

    run(test)


def test_a_fault_of_whoever_listens_ends_it_and_is_told():
    async def test():
        told = []
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: told.append(context["exception"]))

        def heard(message):
            raise KeyError(message)

        process = life("import time; time.sleep(600)", heard)
        assert await process.cause() == "itself"
        assert [type(error) for error in told] == [KeyError]
        assert not is_alive(process.pid)

    run(test)


def test_a_command_that_is_not_there_leaves_nothing_open():
    async def test():
        before = os.listdir("/proc/self/fd")
        with pytest.raises(OSError, match="No such file"):
            Process(("/nowhere/at/all",), print)
        assert os.listdir("/proc/self/fd") == before
        assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])

    run(test)
