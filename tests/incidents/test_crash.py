"""C: processes that are killed, hang, or are told to end. Each of these servers is its own."""

from __future__ import annotations

import os
import resource
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from incidents.case import COMPLETIONS, Table, completion
from incidents.house import open_house
from incidents.serving import MODEL, Serving, eventually, is_alive, listening_port, write_model

table = Table("Crash")
LONG = {"max_tokens": 200, "ignore_eos": True, "return_token_ids": True}
NAMES = ("dog", "cat", "bird", "fish", "tree", "girl", "boy", "king")
BODIES = [completion(prompt=f"Once there was a {name}", **LONG) for name in NAMES]


@pytest.fixture(scope="module")
def house(tmp_path_factory, model):
    with open_house(tmp_path_factory.mktemp("crash"), model, "--hang", "2", "--drain", "20") as opened:
        yield opened


def tokens_of_stream(house, body, on_event=lambda number: None) -> list[int]:
    tokens = []
    with house.stream(COMPLETIONS, body | {"stream": True}) as stream:
        events = []
        for event in stream:
            events.append(event)
            if event != "[DONE]" and event["choices"]:
                tokens += event["choices"][0].get("token_ids") or []
                on_event(len(tokens))
    assert events[-1] == "[DONE]", events[-1]
    return tokens


def all_at_once(house, strike) -> tuple[list, list]:
    """Eight streams and eight plain requests, and ``strike`` in their middle; their tokens."""
    begun = threading.Barrier(9)
    is_waiting = [True] * 8

    def stream(number):
        def on_event(count):
            if is_waiting[number] and count >= 5:
                is_waiting[number] = False
                begun.wait(60)

        return tokens_of_stream(house, BODIES[number], on_event)

    def plain(number):
        answer = house.post(COMPLETIONS, BODIES[number])
        assert answer.status == 200, answer
        return answer.json["choices"][0]["token_ids"]

    with ThreadPoolExecutor(17) as pool:
        plains = [pool.submit(plain, number) for number in range(8)]
        streams = [pool.submit(stream, number) for number in range(8)]
        begun.wait(60)
        strike()
        return [each.result(120) for each in streams], [each.result(120) for each in plains]


PAUSE = "a pause; every answer has the tokens it would have had, and a new process computes"
UNDER = "of the engine's process under 8 streams and 8 requests"
QUICK = {f"SIGKILL {UNDER}": signal.SIGKILL, f"SIGSTOP, for ever, {UNDER}": signal.SIGSTOP}
MORE = {f"SIGABRT {UNDER}": signal.SIGABRT, f"SIGSEGV {UNDER}": signal.SIGSEGV}


@table.each("C01", PAUSE, MORE, crashes=True, needs_long=True)
@table.each("C01", PAUSE, QUICK, crashes=True)
def killed(house, number):
    alone = [house.post(COMPLETIONS, body).json["choices"][0]["token_ids"] for body in BODIES]
    (worker,) = house.workers()
    streams, plains = all_at_once(house, lambda: os.kill(worker, number))
    assert streams == alone and plains == alone
    eventually(lambda: not is_alive(worker), "the old process gone")
    house.wait_until_ready()


@table.case("C02", "kill -9 of an idle engine process", "/ready says 503, then 200 again", crashes=True)
def killed_idle(house):
    restarts = house.metrics()["openwork:engine_restarts_total"]
    (worker,) = house.workers()
    os.kill(worker, signal.SIGKILL)
    eventually(lambda: house.metrics()["openwork:engine_restarts_total"] > restarts, "a restart counted")


@table.case("C17", "other programs that look for a way to the engine", "none: one port, and no named socket")
def closed_off(house):
    assert listening_port(house.pid) == house.port
    (worker,) = house.workers()
    assert listening_port(worker) is None
    inodes = {
        os.readlink(entry)[8:-1]
        for pid in (house.pid, worker)
        for entry in Path(f"/proc/{pid}/fd").iterdir()
        if os.readlink(entry).startswith("socket:[")
    }
    for line in Path(f"/proc/{house.pid}/net/unix").read_text().splitlines()[1:]:
        fields = line.split()
        assert fields[6] not in inodes or len(fields) == 7, "a socket with a name"


@pytest.fixture
def server(tmp_path, model):
    """A server for one test, to be ended by it."""
    with Serving(tmp_path, "--model", str(model), "--served-model-name", MODEL, "--drain", "20") as serving:
        yield serving.wait_until_ready()


def test_c03_kill_of_the_server_leaves_nothing(server):
    """C03: kill -9 of the API process: the engine's process gone, the port free."""
    workers = server.workers()
    assert len(workers) == 1
    with server.stream(COMPLETIONS, completion(**LONG, stream=True)) as stream:
        stream.next()
        os.kill(server.pid, signal.SIGKILL)
        server.process.wait(30)
        eventually(lambda: not any(map(is_alive, workers)), "its engine gone")
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", server.port))
        other.listen()


def test_c05_sigterm_when_idle(server):
    """C05: SIGTERM idle: exit 0."""
    workers = server.workers()
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(30) == 0
    assert not any(map(is_alive, workers))


def test_c06_sigterm_lets_streams_end(server):
    """C06: SIGTERM under a stream: it is finished, whoever comes is told 503, exit 0."""
    with server.stream(COMPLETIONS, completion(**LONG, stream=True)) as stream:
        stream.next()
        server.process.send_signal(signal.SIGTERM)
        events = list(stream)
    assert events[-1] == "[DONE]" and events[-2]["choices"][0]["finish_reason"] == "length"
    assert server.process.wait(30) == 0


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_c07_a_second_signal_ends_streams_with_an_error(server, number, code):
    """C07: a second signal while it drains: an error event and no [DONE], exit 143 or 130."""
    bodies = [
        completion(prompt=[5 + at], max_tokens=500, ignore_eos=True, stream=True, n=16, temperature=1)
        for at in range(8)
    ]
    found = []

    def follow(body, begun):
        with server.stream(COMPLETIONS, body) as stream:
            events = [stream.next()]
            begun.wait(60)
            while (event := stream.next()) is not None:
                events.append(event)
            found.append(events)

    begun = threading.Barrier(9)
    threads = [threading.Thread(target=follow, args=(body, begun)) for body in bodies]
    for thread in threads:
        thread.start()
    begun.wait(60)
    server.process.send_signal(number)
    time.sleep(0.1)
    server.process.send_signal(number)
    assert server.process.wait(60) == code
    for thread in threads:
        thread.join(60)
    cut = [events for events in found if events[-1] != "[DONE]"]
    assert len(found) == 8 and cut, "all of them ended before the second signal"
    for events in cut:
        assert events[-1]["error"]["code"] == "draining"
        assert not any(event.get("error") for event in events[:-1])


def test_c09_sigint_while_loading(tmp_path, model):
    """C09: SIGINT while the engine's process begins: it ends, without an orphan."""
    with Serving(tmp_path, "--model", str(model)) as serving:
        eventually(serving.workers, "the engine's process")
        (worker,) = serving.workers()
        serving.process.send_signal(signal.SIGINT)
        assert serving.process.wait(60) in (0, 130)  # 0: it was quick, and ready
        assert not is_alive(worker)


FATAL = 2046  # nobody's answer holds it
POISON = [*range(20, 60), FATAL]


@contextmanager
def faulty(directory, model, faults, *args):
    """A server whose engine's process has faults; afterwards nothing runs, waits or is held."""
    args = ("--model", str(model), "--served-model-name", MODEL, *args)
    with Serving(directory, *args, faults=faults) as serving:
        yield serving.wait_until_ready()
        eventually(lambda: serving.get("/ready").status == 200, "ready again")
        eventually(serving.is_idle, "nothing running, waiting or held")
        assert "Traceback" not in serving.log_text()


def test_c11_a_request_that_ends_the_engine_each_time(tmp_path, model):
    """C11: a request that aborts the engine's process, beside eight streams: 500 quarantined; they get their tokens."""
    with faulty(tmp_path, model, f"abort={FATAL}") as serving:
        alone = [serving.post(COMPLETIONS, body).json["choices"][0]["token_ids"] for body in BODIES]
        with ThreadPoolExecutor(9) as pool:
            streams = [pool.submit(tokens_of_stream, serving, body) for body in BODIES]
            poison = pool.submit(serving.post, COMPLETIONS, completion(prompt=POISON))
            found = [each.result(240) for each in streams]
        assert poison.result(240).status == 500 and poison.result().error["code"] == "quarantined"
        assert found == alone
        assert serving.post(COMPLETIONS, BODIES[0]).json["choices"][0]["token_ids"] == alone[0]


def test_c13_numbers_that_are_not_finite(tmp_path, model):
    """C13: NaN in a row of a step, beside eight streams: 500 numerical_error, nothing cached; they get their tokens."""
    with faulty(tmp_path, model, f"nan={FATAL}") as serving:
        alone = [serving.post(COMPLETIONS, body).json["choices"][0]["token_ids"] for body in BODIES]
        with ThreadPoolExecutor(12) as pool:
            streams = [pool.submit(tokens_of_stream, serving, body) for body in BODIES]
            spoiled = [pool.submit(serving.post, COMPLETIONS, completion(prompt=POISON)) for _ in range(2)]
            beam = {"strategy": "beam", "width": 2}
            spoiled += [
                pool.submit(serving.post, COMPLETIONS, completion(prompt=POISON, temperature=..., decoding=beam))
            ]
            assert [each.result(60) for each in streams] == alone
        for each in spoiled:
            assert each.result().status == 500 and each.result().error["code"] == "numerical_error", each.result()
        usage = serving.post(COMPLETIONS, completion(prompt=POISON[:-1], max_tokens=1)).json["usage"]
        assert usage["prompt_tokens_details"]["cached_tokens"] == 0


def test_c15_an_id_that_is_no_token(tmp_path, model):
    """C15: a kernel that chooses id = vocabulary, beside eight streams: 500 numerical_error; they get theirs."""
    with faulty(tmp_path, model, f"lie={FATAL}") as serving:
        (worker,) = serving.workers()
        alone = [serving.post(COMPLETIONS, body).json["choices"][0]["token_ids"] for body in BODIES]
        ways = ({}, {"temperature": 1}, {"n": 2, "temperature": 1}, {"stream": True}, {"echo": True})
        with ThreadPoolExecutor(16) as pool:
            streams = [pool.submit(tokens_of_stream, serving, body) for body in BODIES]
            spoiled = [pool.submit(serving.post, COMPLETIONS, completion(prompt=POISON, **way)) for way in ways]
            assert [each.result(60) for each in streams] == alone
        for way, each in zip(ways, spoiled, strict=True):
            answer = each.result(60)
            error = answer.events[-1]["error"] if "stream" in way else answer.error
            assert error["code"] == "numerical_error" and "went wrong" in error["message"], answer
        usage = serving.post(COMPLETIONS, completion(prompt=POISON[:-1], max_tokens=1)).json["usage"]
        assert usage["prompt_tokens_details"]["cached_tokens"] == 0
        assert serving.workers() == [worker]


def test_r01_memory_that_runs_out_in_a_step(tmp_path, model):
    """R01: an allocation that fails at the Nth token of a stream, N = 1, 2, 3, 5 ...: one error, then all as before."""
    trigger = tmp_path / "full"
    with faulty(tmp_path, model, f"memory={trigger}") as serving:
        alone = serving.post(COMPLETIONS, BODIES[0]).json["choices"][0]["token_ids"]
        for count in (1, 2, 3, 5, 8, 13):
            with serving.stream(COMPLETIONS, BODIES[0] | {"stream": True}) as stream:
                events = [stream.next() for _ in range(count)]
                trigger.touch()
                events += list(stream)
            assert events[-1]["error"]["code"] == "internal_error" and "[DONE]" not in events
            assert not trigger.exists()
            assert serving.post(COMPLETIONS, BODIES[0]).json["choices"][0]["token_ids"] == alone


def test_r03_no_room_for_the_recording(tmp_path, model):
    """R03: no room for what is recorded: it stops with a line and a metric, answers go on; it goes on when there is."""
    args = ("--model", str(model), "--served-model-name", MODEL, "--record", str(tmp_path / "recorded"))
    with Serving(tmp_path / "server", *args) as serving:
        serving.wait_until_ready()
        alone = serving.post(COMPLETIONS, BODIES[0]).json["choices"][0]["token_ids"]
        (worker,) = serving.workers()
        before = resource.prlimit(worker, resource.RLIMIT_FSIZE)
        resource.prlimit(worker, resource.RLIMIT_FSIZE, (64, before[1]))

        def is_off():
            assert serving.post(COMPLETIONS, BODIES[0]).json["choices"][0]["token_ids"] == alone
            return serving.metrics()["openwork:recording"] == 0

        eventually(is_off, "the recording to stop")
        eventually(lambda: "recording_stopped" in serving.log_text(), "a line on it")
        assert serving.log_text().count("recording_stopped") == 1 and serving.workers() == [worker]
        resource.prlimit(worker, resource.RLIMIT_FSIZE, before)

        def is_on():
            assert serving.post(COMPLETIONS, BODIES[0]).status == 200
            return serving.metrics()["openwork:recording"] == 1

        eventually(is_on, "the recording to go on")
        assert "Traceback" not in serving.log_text()


def test_c25_an_engine_that_cannot_go_on(tmp_path):
    """C25: kill -9 of the engine's process when the model's file has changed: it says why, and exit 1."""
    model = write_model(tmp_path / "model")
    with Serving(tmp_path / "server", "--model", str(model), "--served-model-name", MODEL) as serving:
        serving.wait_until_ready()
        (worker,) = serving.workers()
        with (model / "model.safetensors").open("r+b") as file:
            file.seek(-1, os.SEEK_END)
            last = file.read(1)
            file.seek(-1, os.SEEK_END)
            file.write(bytes([last[0] ^ 1]))
        os.kill(worker, signal.SIGKILL)
        assert serving.process.wait(60) == 1
        text = serving.log_text()
        assert "files changed" in text and "engine_ended" in text and "Traceback" not in text, text[-2000:]


def test_c23_the_whole_group_killed_and_started_again(tmp_path, model):
    """C23: everything killed at once, as by a loss of power: the next start needs no help."""
    cache = tmp_path / "cache"
    for turn in range(2):
        args = ("--model", str(model), "--served-model-name", MODEL, "--cache-dir", str(cache))
        with Serving(tmp_path / str(turn), *args, start_new_session=True) as serving:
            serving.wait_until_ready()
            assert serving.post(COMPLETIONS, completion()).status == 200
            os.killpg(serving.pid, signal.SIGKILL)
            serving.process.wait(30)


test_incidents = table.as_test()
