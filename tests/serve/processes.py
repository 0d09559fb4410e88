"""A server in a process of its own, told by its log where it listens; ended by its number, whatever a test does."""

import json
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager, suppress
from pathlib import Path

from serve.edge import Answers, read_all

PATIENCE_S = 60


class Running:
    def __init__(self, arguments, **environment):
        self.process = subprocess.Popen(
            [sys.executable, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **environment},
        )
        self.lines = []
        self._news = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        for line in self.process.stderr:
            self._news.put(line)
        self._news.put(None)

    def wait_for(self, event):
        """The next line of the log about an event."""
        while (line := self._news.get(timeout=PATIENCE_S)) is not None:
            self.lines.append(line)
            if line.startswith("{") and (record := json.loads(line))["event"] == event:
                return record
        raise AssertionError(f"no {event} in {self.lines}")

    def start(self):
        self.port = self.wait_for("listening")["port"]
        return self

    def signal(self, number):
        self.process.send_signal(number)

    def end(self):
        """The exit code; everything it wrote is in ``lines`` and ``output`` then."""
        code = self.process.wait(PATIENCE_S)
        self.output = self.process.stdout.read()
        with suppress(queue.Empty):
            while (line := self._news.get(timeout=PATIENCE_S)) is not None:
                self.lines.append(line)
        return code

    def dial(self):
        client = socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE_S)
        return client

    def send(self, data):
        with self.dial() as client:
            client.sendall(data)
            return Answers(read_all(client))

    def close(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
        self.process.wait(PATIENCE_S)
        self._reader.join(PATIENCE_S)
        self.process.stdout.close()
        self.process.stderr.close()


@contextmanager
def small_server(**wish):
    wish = {"load": "quick", "drain": 30.0, "keys": None, "saving": 0.0, **wish}
    running = Running([str(Path(__file__).with_name("small_server.py")), json.dumps(wish)])
    try:
        yield running.start()
    finally:
        running.close()


def children(pid):
    """The processes that a process has started and that live."""
    found = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):
            found += [int(each) for each in path.read_text().split()]
    return found


def is_alive(pid):
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    return False
