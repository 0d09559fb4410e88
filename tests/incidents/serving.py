"""A real server process, what can be seen of it from outside, and ways to knock at it.

Nothing here imports the server: it is started as an operator starts it, and looked at through its port, its log, its
metrics and /proc. Everything it starts, it ends, by pid.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

import openwork

PATIENCE_S = 60.0  # for what is bound to happen; no test passes because it waited
MODEL = "m"
SECRET = "vermilion-otter-7391"  # stands in every prompt, and must stand in no log and no error
TEMPLATE = """{% if tools %}{{ bos_token }}tools: {% for tool in tools %}{{ tool | tojson }}{% endfor %}
Answer with <tool_call>{"name": ..., "arguments": ...}</tool_call>.
{% endif %}{% for m in messages %}{% if m.role == 'system' and not loop.first %}
{{- raise_exception('Only the first message may be the system\\'s <b>.') }}{% endif %}
{{- bos_token }}{{ m.role }}: {{ m.content }}
{%- for call in m.tool_calls %}<tool_call>{{ call.function | tojson }}</tool_call>{% endfor %}{{ eos_token }}
{% endfor %}{% if add_generation_prompt %}{{ bos_token }}assistant:{{ style }}{% endif %}"""


def write_model(directory: Path) -> Path:
    """The embedded model, with a chat template that knows roles, tools and a variable."""
    source = Path(openwork.__file__).parent / "stories"
    directory.mkdir(parents=True, exist_ok=True)
    for name in (
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ):
        shutil.copy(source / name, directory / name)
    (directory / "chat_template.jinja").write_text(TEMPLATE, encoding="utf-8")
    return directory


class Serving:
    """``python -m openwork serve`` with these arguments, listening on a port of its own choosing."""

    def __init__(
        self, directory: Path, *args: str, env: dict[str, str] | None = None, faults: str = "", **options
    ) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.log_path = directory / "log"
        self.watch_path = directory / "watched"
        self.watch_path.touch()
        watched = Path(__file__).parent / "watched"
        environment = os.environ | {"OPENWORK_WATCH": str(self.watch_path), **(env or {})}
        environment["PYTHONPATH"] = os.pathsep.join([str(watched), *filter(None, sys.path)])
        faulty = [str(Path(__file__).with_name("faulty_server.py")), faults]
        with self.log_path.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, *(faulty if faults else ["-m", "openwork"]), "serve", "--port", "0", *args],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                **options,
            )
        self._log_read = self._watch_read = 0

    @property
    def pid(self) -> int:
        return self.process.pid

    # -- its life

    def wait_until_ready(self) -> Serving:
        def is_ready():
            assert self.process.poll() is None, f"it ended with {self.process.returncode}: {self.log_text()[-2000:]}"
            port = listening_port(self.pid)
            if port is None:
                return False
            self.port = port
            return self.get("/ready").status == 200

        eventually(is_ready, "ready")
        return self

    def stop(self) -> int:
        """SIGTERM, and SIGKILL where that was not enough; the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(PATIENCE_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
        return self.process.wait(PATIENCE_S)

    def __enter__(self) -> Serving:
        return self

    def __exit__(self, *exc: object) -> None:
        children = self.processes() if self.process.poll() is None else []
        self.stop()
        for child in children:
            eventually(lambda child=child: not is_alive(child), "the engine's process gone with its parent")

    # -- what it says

    def log_text(self) -> str:
        return self.log_path.read_text(encoding="utf-8", errors="replace")

    def new_log(self) -> str:
        """What was logged since the last call."""
        text = self.log_text()
        new, self._log_read = text[self._log_read :], len(text)
        return new

    def new_deeds(self) -> list[str]:
        """Files opened and connections made by its processes since the last call, as an audit hook saw them."""
        lines = self.watch_path.read_text(errors="replace").splitlines()
        new, self._watch_read = lines[self._watch_read :], len(lines)
        return new

    def metrics(self) -> dict[str, float]:
        """Every sample by name; of those with labels the sum, and each as name{value,...}."""
        page = self.get("/metrics")
        assert page.status == 200, page.body
        found: dict[str, float] = {}
        for family in text_string_to_metric_families(page.body.decode()):
            for sample in family.samples:
                labels = {key: value for key, value in sample.labels.items() if key not in ("engine", "model_name")}
                found[sample.name] = found.get(sample.name, 0) + sample.value
                if labels:
                    found[f"{sample.name}{{{','.join(labels.values())}}}"] = sample.value
        return found

    def is_idle(self) -> bool:
        """Whether nothing runs, waits or holds a block."""
        found = self.metrics()
        held = [found[f"openwork:kv_blocks{{{kind}}}"] for kind in ("private", "shared", "pinned")]
        return found["vllm:num_requests_running"] == found["vllm:num_requests_waiting"] == sum(held) == 0

    # -- what can be seen of it

    def processes(self) -> list[int]:
        """Those it has started: engines, and the helper that tries constraints, which comes and goes."""
        return children_of(self.pid)

    def workers(self) -> list[int]:
        """Engines."""
        return [pid for pid in self.processes() if not is_helper(pid)]

    def helpers(self) -> list[int]:
        return [pid for pid in self.processes() if is_helper(pid)]

    def descriptors(self) -> int:
        return sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in (self.pid, *self.workers()))

    def threads(self) -> int:
        return sum(len(os.listdir(f"/proc/{pid}/task")) for pid in (self.pid, *self.workers()))

    def resident_bytes(self) -> int:
        page = os.sysconf("SC_PAGE_SIZE")
        pids = (self.pid, *self.workers())
        return sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * page for pid in pids)

    # -- knocking

    def dial(self, receive_bytes: int | None = None) -> socket.socket:
        client = socket.socket()
        client.settimeout(PATIENCE_S)
        if receive_bytes is not None:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        client.connect(("127.0.0.1", self.port))
        return client

    def raw(self, *parts: bytes, shut: bool = False) -> list[Answer]:
        """Send bytes and read until the server closes: the answers, in order. The request must end the connection."""
        with self.dial() as client:
            for part in parts:
                with suppress(ConnectionError):  # it may refuse before all was sent
                    client.sendall(part)
            if shut:
                with suppress(OSError):
                    client.shutdown(socket.SHUT_WR)
            return answers(read_all(client))

    def get(self, path: str, *headers: str) -> Answer:
        return self.ask(request("GET", path, *headers))

    def post(self, path: str, body: object, *headers: str) -> Answer:
        """A body as bytes, or as what is to be JSON."""
        return self.ask(request("POST", path, *headers, body=as_bytes(body)))

    def ask(self, data: bytes) -> Answer:
        (answer,) = self.raw(data)
        return answer

    @contextmanager
    def stream(self, path: str, body: object, receive_bytes: int | None = None):
        with self.dial(receive_bytes) as client:
            client.sendall(request("POST", path, body=as_bytes(body)))
            stream = Stream(client)
            with stream.file:
                yield stream


class Answer:
    """One answer, taken apart by hand."""

    def __init__(self, status: int, headers: dict[str, str], body: bytes, is_whole: bool) -> None:
        self.status = status
        self.headers = headers
        self.body = body
        self.is_whole = is_whole

    def __repr__(self) -> str:
        return f"{self.status} {self.body[:300]!r}"

    @property
    def json(self):
        return json.loads(self.body)

    @property
    def error(self) -> dict:
        """The error, if that is what it is: as the contract has it, and without a word too much."""
        assert self.status >= 400, self
        assert self.headers["content-type"] == "application/json", self.headers
        assert self.headers["x-request-id"].startswith("req-")
        body = self.json
        assert set(body) == {"error"} and set(body["error"]) == {"message", "type", "param", "code"}, body
        error = body["error"]
        assert isinstance(error["message"], str) and 0 < len(error["message"]) < 1200, error
        assert isinstance(error["type"], str)
        assert error["param"] is None or isinstance(error["param"], str)
        assert error["code"] is None or isinstance(error["code"], str)
        check_no_leak(self.body.decode())
        return error

    @property
    def events(self) -> list:
        """The events of a stream: dicts, and "[DONE]"."""
        return [event for event in map(as_event, self.body.split(b"\n\n")) if event is not None]


def is_known_answer(answer: Answer) -> bool:
    """Whether the contract has such an answer: a success, or a refusal in the one form of all of them."""
    if answer.status == 200:
        return True
    return answer.status in (400, 401, 403, 404, 405, 408, 413, 414, 415, 431) and bool(answer.error)


class Stream:
    """The events of one answer as they come."""

    def __init__(self, client: socket.socket) -> None:
        self.client = client
        self.status = 0
        self.raw = bytearray()
        self._data = bytearray()
        self.file = client.makefile("rb")

    def __iter__(self):
        while True:
            event = self.next()
            if event is None:
                return
            yield event

    def next(self):
        """The next event; None at the end, and at once where the answer is no stream."""
        if self.status == 0:
            self.status = int(self.file.readline().split()[1])
            while self.file.readline() not in (b"\r\n", b""):
                pass
        if self.status != 200:
            return None
        while b"\n\n" not in self._data:
            size = self.file.readline().strip()
            if not size or int(size, 16) == 0:
                return None
            self._data += self.file.read(int(size, 16))
            self.file.readline()
        event, _, rest = bytes(self._data).partition(b"\n\n")
        self._data[:] = rest
        self.raw += event + b"\n\n"
        parsed = as_event(event)
        return self.next() if parsed is None else parsed


def as_event(data: bytes):
    if not data.startswith(b"data: "):
        return None  # a comment, or nothing
    return "[DONE]" if data == b"data: [DONE]" else json.loads(data[6:])


_LEAKS = re.compile(r'Traceback|File "|/usr/|/tmp/|/home/|/root/|site-packages|0x[0-9a-f]{6,}|\w+\.py\b|<class ')


def check_no_leak(text: str) -> None:
    assert not (found := _LEAKS.search(text)), f"{found[0]!r} in {text[:500]!r}"
    assert SECRET not in text, text[:500]


def as_bytes(body: object) -> bytes:
    return body if isinstance(body, bytes) else json.dumps(body).encode()


def request(method: str, path: str, *headers: str, body: bytes | None = None) -> bytes:
    """One request that ends its connection. A header given here takes the place of the usual one of its name."""
    usual = {"host": "Host: 127.0.0.1", "connection": "Connection: close"}
    if body is not None:
        usual |= {"content-type": "Content-Type: application/json", "content-length": f"Content-Length: {len(body)}"}
    for header in headers:
        usual.pop(header.partition(":")[0].lower(), None)
    head = "\r\n".join([f"{method} {path} HTTP/1.1", *usual.values(), *headers])
    return head.encode("latin-1") + b"\r\n\r\n" + (body or b"")


def read_all(client: socket.socket) -> bytes:
    got = bytearray()
    with suppress(ConnectionError):
        while data := client.recv(1 << 16):
            got += data
    return bytes(got)


def answers(raw: bytes) -> list[Answer]:
    found = []
    while raw:
        assert raw.startswith(b"HTTP/1.1 "), raw[:100]
        head, _, raw = raw.partition(b"\r\n\r\n")
        if head[9:10] == b"1":  # an interim answer
            continue
        fields = [line.partition(b": ")[::2] for line in head.split(b"\r\n")[1:]]
        headers = {name.decode().lower(): value.decode("latin-1") for name, value in fields}
        assert len(headers) == len(fields), f"a header twice: {head!r}"
        if headers.get("transfer-encoding") == "chunked":
            body, raw, is_whole = unchunked(raw)
        else:
            size = int(headers.get("content-length", 0))
            body, raw, is_whole = raw[:size], raw[size:], len(raw) >= size
        found.append(Answer(int(head[9:12]), headers, body, is_whole))
    return found


def unchunked(raw: bytes) -> tuple[bytes, bytes, bool]:
    body = bytearray()
    while True:
        size, mark, rest = raw.partition(b"\r\n")
        if not mark or len(rest) < int(size, 16) + 2:
            return bytes(body), b"", False
        count = int(size, 16)
        body += rest[:count]
        raw = rest[count + 2 :]
        if count == 0:
            return bytes(body), raw, True


def eventually(holds, what: str, seconds: float = PATIENCE_S) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.02)


def is_alive(pid: int) -> bool:
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def children_of(pid: int) -> list[int]:
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        with suppress(OSError):
            found += map(int, (task / "children").read_text().split())
    return [child for child in found if is_alive(child)]


def is_helper(pid: int) -> bool:
    with suppress(OSError):
        return b"openwork.text.judge" in Path(f"/proc/{pid}/cmdline").read_bytes()
    return False


def listening_port(pid: int) -> int | None:
    """The port that a process listens on, read off the kernel's tables."""
    inodes = set()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(OSError):
            link = os.readlink(entry)
            inodes |= {link[8:-1]} if link.startswith("socket:[") else set()
    ports = []
    for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[3] == "0A" and fields[9] in inodes:
            ports.append(int(fields[1].partition(":")[2], 16))
    assert len(ports) <= 1, f"it listens on {ports}"
    return ports[0] if ports else None
