"""openwork serve --allow-see: the microscope beside a server that goes on whatever befalls it."""

import json
import os
import signal
import time

import pytest
from serve.edge import Answers, get, read_all
from serve.processes import Running, children, is_alive

pytestmark = pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="Linux")


@pytest.fixture
def server(tmp_path):
    arguments = ["-m", "openwork", "serve", "--port", "0", "--threads", "1", "--kv-cache-bytes", "16MiB"]
    running = Running([*arguments, "--record", str(tmp_path), "--record-prompts", "--allow-see"])
    try:
        running.start()
        running.wait_for("ready")
        yield running
    finally:
        running.close()


def answered(server, path, body=None):
    if body is None:
        return server.send(get(path)).only()
    data = json.dumps(body).encode()
    head = get(path).replace(b"GET", b"POST", 1)[:-2]
    return server.send(head + b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(data) + data).only()


def complete(server, num_tokens):
    asked = {"model": "openwork/stories", "prompt": "Once upon a time", "max_tokens": num_tokens, "temperature": 0}
    status, _, body = answered(server, b"/v1/completions", asked)
    assert status == 200
    return json.loads(body)


def test_a_server_that_leaves_does_not_wait_for_a_row_that_is_computed(server):
    first = complete(server, 4)
    [engine] = children(server.process.pid)
    path = b"/see/api/requests/%s/" % first["id"].encode()
    assert answered(server, path + b"request")[0] == 200
    [looker] = set(children(server.process.pid)) - {engine}
    os.kill(looker, signal.SIGSTOP)  # it computes, for ever
    with server.dial() as client:
        client.sendall(get(path + b"row/0/5"))
        assert answered(server, path + b"progress")[0] == 200
        server.signal(signal.SIGTERM)
        status, _, body = Answers(read_all(client)).only()
    assert status == 503 and json.loads(body)["error"]["code"] == "microscope_unavailable"
    assert server.end() == 0, "nobody was cut off"
    assert not is_alive(looker)


def test_the_microscope_dies_and_the_server_does_not_notice(server):
    first = complete(server, 8)
    [engine] = children(server.process.pid)
    path = b"/see/api/requests/%s/" % first["id"].encode()
    status, _, body = answered(server, path + b"row/0/6")
    assert status == 200 and json.loads(body)["served"] is True, "the bits are those that were served"
    [looker] = set(children(server.process.pid)) - {engine}
    os.kill(looker, signal.SIGKILL)
    assert complete(server, 8)["choices"] == first["choices"]
    status, _, body = answered(server, path + b"progress")
    assert (status, json.loads(body)) == (200, {"stage": "", "done": 0, "total": 0})
    status, _, body = answered(server, path + b"layer/0/6/2")
    assert status == 200, "another was started"
    listed = json.loads(answered(server, b"/see/api/requests")[2])
    assert len(listed["requests"]) == 2 and listed["left_out"] == 0, "what came since is there too"
    processes = children(server.process.pid)
    assert engine in processes and looker not in processes
    server.signal(signal.SIGTERM)
    assert server.end() == 0 and not any("Traceback" in line for line in server.lines)
    deadline = time.monotonic() + 60
    while any(map(is_alive, processes)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(is_alive, processes))
