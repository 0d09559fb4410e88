"""Metrics: vLLM's names with true numbers, a bounded number of series, and a dashboard that asks for what there is."""

import asyncio
import json
import re
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from serve.edge import LIMITS, edge, get, local_engine, post, request_of

from openwork.core.event import Ended
from openwork.core.gauges import Gauges
from openwork.core.request import Request, SamplingParams
from openwork.core.terms import Terms
from openwork.engine.face import Recorded, Status
from openwork.serve.metered import Metered
from openwork.serve.metrics import MAX_TENANTS, Metrics
from openwork.serve.recorded import tell_of_recording

DASHBOARD = Path(__file__).parents[2] / "docs" / "grafana" / "openwork.json"
MODEL = {"model_name": "echo", "engine": "0"}


def read(metrics):
    """Sample name and labels -> value, after a parse of the page."""
    families = text_string_to_metric_families(metrics.page().decode())
    return {(s.name, frozenset(s.labels.items())): s.value for family in families for s in family.samples}


def value(samples, name, **labels):
    labels = labels or MODEL
    return samples[name, frozenset(labels.items())]


async def run(engine, *requests):
    for request in requests:
        stream = await engine.submit(request)
        assert stream.request is request
        while not isinstance((await stream.take())[-1], Ended):
            pass


@pytest.fixture(scope="module")
def counted():
    metrics = Metrics("echo")

    async def world():
        engine = Metered(local_engine(), metrics)
        prompt = tuple(range(40))
        await run(
            engine,
            request_of(5, prompt),
            request_of(1, prompt, terms=Terms(tenant="alice")),
            Request(prompt, SamplingParams(max_tokens=3, n=2), LIMITS),
        )
        stream = await engine.submit(request_of(500, (9,), terms=Terms(tenant="alice")))
        stream.cancel()
        while not isinstance((await stream.take())[-1], Ended):
            pass
        assert engine.facts.model == "echo" and engine.status().state == "ready"
        await engine.close()

    asyncio.run(world())
    return read(metrics)


def test_requests_are_counted_by_how_they_ended(counted):
    done = {
        s["finished_reason"]: v
        for (n, labels), v in counted.items()
        if n == "vllm:request_success_total" and (s := dict(labels))
    }
    assert done == {"length": 4, "abort": 1}


def test_tokens_are_counted(counted):
    assert value(counted, "vllm:prompt_tokens_total") == 121
    assert value(counted, "vllm:generation_tokens_total") == 5 + 1 + 6
    assert value(counted, "openwork:tenant_prompt_tokens_total", tenant="alice") == 41
    assert value(counted, "openwork:tenant_generation_tokens_total", tenant="") == 11
    cached = value(counted, "vllm:prompt_tokens_cached_total")
    assert 0 < cached < 121
    assert value(counted, "vllm:request_prefill_kv_computed_tokens_sum") == 121 - cached


def test_times_are_the_engines(counted):
    assert value(counted, "vllm:time_to_first_token_seconds_count") == 3
    assert value(counted, "vllm:inter_token_latency_seconds_count") == 4 + 2 * 2
    assert value(counted, "vllm:e2e_request_latency_seconds_count") == 4
    whole = value(counted, "vllm:e2e_request_latency_seconds_sum")
    parts = ("request_queue_time", "request_prefill_time", "request_decode_time")
    assert 0 < sum(value(counted, f"vllm:{part}_seconds_sum") for part in parts) <= whole + 1e-9
    assert value(counted, "vllm:request_params_n_sum") == 5
    assert value(counted, "vllm:request_max_num_generation_tokens_sum") == 5 + 1 + 3


def test_the_engine_is_asked_when_somebody_reads():
    metrics, engine = Metrics("echo"), local_engine()
    engine.status = lambda: Status(
        "ready", running=3, waiting=2, steps=10, rows=70, preemptions=1, prefix_queries=9, prefix_hits=4, restarts=2,
        last_step_age_s=0.5, gauges=Gauges(10, 20, 5, 40, 25, 7), by_tenant={"a": Gauges(0, 1, 0, 2, 0, 0)},
    )  # fmt: skip
    Metered(engine, metrics)
    samples = read(metrics)
    expected = {
        "vllm:num_requests_running": 3,
        "vllm:num_requests_waiting": 2,
        "vllm:num_preemptions_total": 1,
        "vllm:prefix_cache_queries_total": 9,
        "vllm:prefix_cache_hits_total": 4,
        "vllm:iteration_tokens_total_count": 10,
        "vllm:iteration_tokens_total_sum": 70,
        "vllm:kv_cache_usage_perc": 0.7,
        "openwork:engine_restarts_total": 2,
        "openwork:last_step_age_seconds": 0.5,
        "openwork:kv_wasted_slots": 7,
    }
    assert {name: value(samples, name) for name in expected} == pytest.approx(expected)
    assert value(samples, "openwork:tenant_kv_blocks", tenant="a") == 3
    assert value(samples, "openwork:kv_blocks", kind="shared") == 25
    assert not [name for name, _ in samples if name.endswith("_created")]


def test_before_a_model_is_loaded_there_is_a_page():
    assert b"vllm:generation_tokens_total" in Metrics("echo").page()


def test_nobody_invents_series():
    with edge() as it:
        for number in range(30):
            it.send(get(b"/invented/%d" % number))
            it.send(get(b"/health").replace(b"GET", b"VERB%d" % number))
        it.send(post(b"{}"))
        samples = read(it.metrics)
    http = {labels for name, labels in samples if name == "openwork:http_requests_total"}
    assert len(http) == 3
    assert value(samples, "openwork:http_requests_total", path="(other)", method="GET", status="404") == 30


def test_how_recording_goes_is_told_where_there_is_one():
    class Recording:
        facts = local_engine().facts

        def status(self):
            return Status("ready", recorded=Recorded(False, 7, 2, "recording stopped: No space left on device"))

    metrics = Metrics("echo")
    metrics.watch(Recording())
    found = read(metrics)
    assert value(found, "openwork:recording") == 0 and value(found, "openwork:recorded_bytes_total") == 7
    assert value(found, "openwork:recording_failures_total") == 2


def test_a_stop_of_the_recording_is_one_line_of_the_log_and_its_end_another():
    said = []
    states = [Status("ready")] + [Status("ready", recorded=Recorded(on, 0, 1, "why")) for on in (1, 0, 0, 1, 1)]

    class Log:
        def write(self, event, level="info", **fields):
            said.append((event, level, fields.get("said")))

    async def world():
        await tell_of_recording(lambda: states.pop(0), Log(), every_s=0)

    with pytest.raises(IndexError):
        asyncio.run(world())
    assert said == [("recording_stopped", "error", "why"), ("recording_goes_on", "info", None)]


def test_tenants_share_a_series_when_there_are_many():
    metrics = Metrics("echo")
    labels = {metrics.tenant(f"t{number}") for number in range(MAX_TENANTS + 50)}
    assert len(labels) == MAX_TENANTS + 1 and "(others)" in labels
    assert metrics.tenant("t0") == "t0"


def test_the_dashboard_asks_for_series_that_exist(counted):
    page = json.loads(DASHBOARD.read_text())
    asked = [target["expr"] for panel in page["panels"] for target in panel.get("targets", ())]
    names = {name for expr in asked for name in re.findall(r"(?:vllm|openwork):\w+", expr)}
    metrics = Metrics("echo")
    metrics.http.labels("/", "GET", 200)
    known = {name for name, _ in read(metrics)} | {name for name, _ in counted}
    families = {family.name for family in text_string_to_metric_families(metrics.page().decode())}
    missing = {n for n in names if n not in known and n.removesuffix("_total") not in families}
    assert len(names) > 15 and not missing
    ids = [panel["id"] for panel in page["panels"]]
    assert len(ids) == len(set(ids))
