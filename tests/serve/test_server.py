"""The life of a server as a process: loading, signals, drains and exit codes. No answer that is cut looks whole."""

import json
import signal
import socket

import pytest
from serve.edge import get, post, read_all
from serve.processes import small_server

from openwork.serve.keys import new_key

STREAM = post(b"{}", b"/v1/stream")


def error_of(answers, status):
    return answers.error(status)[0]["code"]


def begin(server, *headers):
    """A stream that has begun."""
    client = server.dial()
    client.sendall(post(b"{}", b"/v1/stream", *headers))
    got = b""
    while b": begun" not in got:
        got += client.recv(4096)
    return client


def test_an_idle_server_ends_at_once_and_well():  # C05
    with small_server() as server:
        server.wait_for("ready")
        server.signal(signal.SIGTERM)
        assert server.end() == 0
        with pytest.raises(ConnectionRefusedError):
            server.dial()


def test_a_running_stream_is_finished_before_the_end():
    with small_server() as server:
        server.wait_for("ready")
        with begin(server) as client:
            server.signal(signal.SIGTERM)
            server.wait_for("draining")
            assert error_of(server.send(STREAM), 503) == "draining"
            server.signal(signal.SIGUSR1)
            got = read_all(client)
        assert got.count(b"data: token") == 3 and got.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")
        assert server.end() == 0


@pytest.mark.parametrize(("second", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)], ids=["C07-term", "C07-int"])
def test_a_second_signal_ends_streams_with_an_error_at_once(second, code):
    with small_server(drain=3600.0) as server:
        server.wait_for("ready")
        with begin(server) as client, begin(server) as other:
            server.signal(signal.SIGTERM)
            server.wait_for("draining")
            assert error_of(server.send(STREAM), 503) == "draining"
            assert server.send(get(b"/health")).statuses == [200]
            assert server.send(get(b"/ready")).statuses == [503]
            server.signal(second)
            for got in (read_all(client), read_all(other)):
                assert got.count(b'data: {"error"') == 1 and b'"draining"' in got
                assert b"[DONE]" not in got and got.endswith(b"0\r\n\r\n")
        assert server.end() == code


def test_what_outlasts_the_drain_ends_with_an_error():
    with small_server(drain=0.2) as server:
        server.wait_for("ready")
        with begin(server) as client:
            server.signal(signal.SIGTERM)
            got = read_all(client)
        assert got.count(b'data: {"error"') == 1 and b"[DONE]" not in got
        assert server.end() == 143


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["C09-int", "C09-term"])
def test_while_loading_it_says_so_and_can_be_stopped(number, code):
    with small_server(load="never") as server:
        _, headers = server.send(STREAM).error(503)
        assert int(headers["retry-after"]) >= 1
        assert error_of(server.send(STREAM), 503) == "loading"
        status, _, body = server.send(get(b"/health")).only()
        assert status == 503 and json.loads(body)["status"] == "loading"
        assert server.send(get(b"/metrics")).statuses == [200]
        assert server.send(get(b"/ready")).statuses == [503]
        server.signal(number)
        assert server.end() == code
        assert "not loaded" in server.output


def test_an_engine_may_take_its_time_to_save():
    with small_server(saving=2.5) as server:
        server.wait_for("ready")
        server.signal(signal.SIGTERM)
        assert server.end() == 0 and "saved" in server.output


def test_a_second_signal_does_not_wait_for_what_is_saved():
    with small_server(saving=3600.0) as server:
        server.wait_for("ready")
        server.signal(signal.SIGTERM)
        server.wait_for("draining")
        server.signal(signal.SIGTERM)
        assert server.end() == 143 and "saved" not in server.output


def test_a_model_that_cannot_be_loaded_ends_it():
    with small_server(load="fails") as server:
        assert server.end() == 1
        assert "cannot be used" in server.output


def test_a_server_whose_engine_gives_up_says_why_and_ends():
    with small_server() as server:
        server.wait_for("ready")
        with begin(server) as client:
            server.signal(signal.SIGUSR2)
            assert server.wait_for("engine_ended")["said"] == "it has had enough"
            got = read_all(client)
        assert got.count(b'data: {"error"') == 1 and b"[DONE]" not in got
        assert server.end() == 1
        assert "it has had enough" in server.output and "started again" in server.output


def keys_file(path, **entries):
    path.write_text("".join(f'[tenants.{name}]\nkeys = ["{entry}"]\n' for name, entry in entries.items()))


def test_keys_are_read_again_and_revoked_ones_end_what_runs(tmp_path):  # K11
    (alice, alices), (bob, bobs) = new_key(), new_key()
    path = tmp_path / "keys.toml"
    keys_file(path, alice=alices, bob=bobs)
    with small_server(keys=str(path)) as server:
        server.wait_for("ready")
        assert error_of(server.send(STREAM), 401) == "invalid_api_key"
        of_alice, of_bob = (begin(server, b"Authorization: Bearer " + key.encode()) for key in (alice, bob))
        with of_alice, of_bob:
            path.write_text("[tenants.alice]\nkeys = []\n")
            server.signal(signal.SIGHUP)
            assert "tenants.alice.keys" in server.wait_for("reload_failed")["said"]
            keys_file(path, bob=bobs)
            server.signal(signal.SIGHUP)
            server.wait_for("reload")
            got = read_all(of_alice)
            assert b"revoked" in got and got.count(b'data: {"error"') == 1
            of_bob.settimeout(0.2)
            with pytest.raises(socket.timeout):
                of_bob.recv(4096)  # nobody touched it
        server.signal(signal.SIGTERM)
        assert server.end() == 0
        assert not [line for line in server.lines if alice in line or bob in line]
