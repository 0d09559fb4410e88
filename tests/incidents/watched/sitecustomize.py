"""Runs in every Python process of a server under test: an audit hook writes down what it opens and whom it calls.

Reading what any Python process reads as it goes (its own modules, /proc, devices) is left out where it is recorded.
"""

import os
import sys

_WATCHED = {"open", "socket.connect", "socket.getaddrinfo", "subprocess.Popen", "os.system", "os.exec", "os.fork"}
_path = os.environ.get("OPENWORK_WATCH")


def _watch(path):
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND)

    def hook(event, args):
        if event in _WATCHED:
            first = args[0] if event != "socket.connect" else args[1]
            if event == "open" and (first == path or not isinstance(first, (str, bytes))):
                return
            os.write(descriptor, f"{event} {first!r}\n"[:300].encode(errors="replace"))

    sys.addaudithook(hook)


if _path:
    _watch(_path)
