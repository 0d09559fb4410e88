"""What whoever runs the server is told: the truth, in both directions, to whom it concerns."""

import json

import pytest
from serve.edge import QUICK, edge, get

from openwork.engine.face import Status


@pytest.fixture(scope="module")
def it():
    with edge() as it:
        yield it


def ask(it, path):
    status, _, body = it.send(get(path)).only()
    return status, json.loads(body)


@pytest.mark.parametrize(
    ("said", "health", "ready"),
    [
        pytest.param(Status("ready"), "ok", True, id="idle"),
        pytest.param(Status("ready", last_step_age_s=59.0), "ok", True, id="Q23-a-long-prefill"),
        pytest.param(Status("ready", last_step_age_s=61.0), "stuck", False, id="stuck"),
        pytest.param(Status("draining"), "ok", False, id="draining"),
        pytest.param(Status("draining", last_step_age_s=61.0), "stuck", False, id="draining-and-stuck"),
        pytest.param(Status("loading"), "loading", False, id="loading"),
        pytest.param(Status("restarting"), "restarting", False, id="C01-restarting"),
        pytest.param(Status("closed"), "closed", False, id="closed"),
    ],
)
def test_health_and_readiness(it, said, health, ready):
    it.desk.said = said
    try:
        well = 200 if health == "ok" else 503
        told = {"status": health, "state": said.state, "last_step_age_s": said.last_step_age_s}
        assert ask(it, b"/health") == (well, told)
        assert ask(it, b"/ping") == (well, {})
        assert ask(it, b"/ready") == (200 if ready else 503, {"ready": ready, "state": said.state})
    finally:
        it.desk.said = Status("ready")


def test_limits_are_all_that_is_in_force(it):
    status, body = ask(it, b"/v1/limits")
    assert status == 200
    assert body["http"]["body_bytes"] == QUICK.body_bytes and body["http"]["header_s"] == QUICK.header_s
    assert body["request"] == {"n": 16} and body["server"]["drain_s"] == 30


def test_the_version_is_told(it):
    assert ask(it, b"/version") == (200, {"version": "1.2.3"})
