"""Metrics: what Prometheus reads. vLLM's names wherever we have the number, ours under ``openwork:``.

It guarantees a bounded number of series: labels are the model, tenants of the keys file and routes of the server, never
words of a client. Counts of steps and blocks are read from the engine when somebody asks. Nothing is global.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)

from openwork.core.errors import EngineUnavailable
from openwork.engine.face import AsyncEngine, Status

MAX_TENANTS = 200  # that have series of their own
LAG_EVERY_S = 0.25
_ENGINE = "0"

_TTFT_S = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80, 160, 640)
_ITL_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 40)
_WHOLE_S = (0.01, 0.05, 0.1, 0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480, 960)
_TOKENS = tuple(float(digit * 10**power) for power in range(6) for digit in (1, 2, 5))
_LAG_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)


class Metrics:
    """All series of one served model."""

    def __init__(self, model: str) -> None:
        self.registry = CollectorRegistry(auto_describe=False)
        self._model = model
        self._tenants: set[str] = set()
        vllm, own = self._vllm, self._own
        self.time_to_first_token = vllm(Histogram, "time_to_first_token_seconds", "Until the first token.", _TTFT_S)
        self.inter_token = vllm(Histogram, "inter_token_latency_seconds", "Between two tokens of a sequence.", _ITL_S)
        self.per_token = vllm(Histogram, "request_time_per_output_token_seconds", "Mean of a request.", _ITL_S)
        self.e2e = vllm(Histogram, "e2e_request_latency_seconds", "From arrival to the end.", _WHOLE_S)
        self.queue_time = vllm(Histogram, "request_queue_time_seconds", "Until it first held blocks.", _WHOLE_S)
        self.inference_time = vllm(Histogram, "request_inference_time_seconds", "From then to the end.", _WHOLE_S)
        self.prefill_time = vllm(Histogram, "request_prefill_time_seconds", "From then to the first token.", _WHOLE_S)
        self.decode_time = vllm(Histogram, "request_decode_time_seconds", "First token to the end.", _WHOLE_S)
        self.request_prompt = vllm(Histogram, "request_prompt_tokens", "Tokens of a prompt.", _TOKENS)
        self.request_generation = vllm(Histogram, "request_generation_tokens", "Tokens of an answer.", _TOKENS)
        self.request_longest = vllm(Histogram, "request_max_num_generation_tokens", "Of its longest.", _TOKENS)
        self.request_n = vllm(Histogram, "request_params_n", "Sequences asked for.", (1, 2, 5, 10, 20, 50, 100))
        self.request_max = vllm(Histogram, "request_params_max_tokens", "Tokens asked for at most.", _TOKENS)
        self.computed = vllm(Histogram, "request_prefill_kv_computed_tokens", "Of a prompt, not cached.", _TOKENS)
        self.prompt_tokens = vllm(Counter, "prompt_tokens", "Prompt tokens of ended requests.")
        self.cached_tokens = vllm(Counter, "prompt_tokens_cached", "Of those, found in the prefix cache.")
        self.generation_tokens = vllm(Counter, "generation_tokens", "Tokens generated.")
        self.drafts = vllm(Counter, "spec_decode_num_drafts", "Steps that verified guesses of a request.")
        self.draft_tokens = vllm(Counter, "spec_decode_num_draft_tokens", "Tokens that were guessed.")
        self.accepted_tokens = vllm(Counter, "spec_decode_num_accepted_tokens", "Of those, right ones.")
        self.corrupted = vllm(Counter, "corrupted_requests", "Ended because numbers were not finite.")
        labels = ("model_name", "engine", "finished_reason")
        self.success = Counter("vllm:request_success", "Requests that ended.", labels, registry=self.registry)
        self.http = own(Counter, "http_requests", "Answers by path, method and status.", ("path", "method", "status"))
        self.http_refused = own(Counter, "http_refused", "Refused before any route.", ("status",))
        self.http_cut = own(Counter, "http_cut_off", "Connections cut, and why.", ("why",))
        self.log_dropped = own(Gauge, "log_lines_dropped", "Log lines left out, by event.", ("event",))
        self.stalled = own(Counter, "stalled_seconds", "Requests left out of steps, by cause.", ("cause",))
        self.tenant_requests = own(Counter, "tenant_requests", "Ended requests by tenant.", ("tenant",))
        self.tenant_prompt = own(Counter, "tenant_prompt_tokens", "Prompt tokens by tenant.", ("tenant",))
        self.tenant_generation = own(Counter, "tenant_generation_tokens", "Generated by tenant.", ("tenant",))
        self.tenant_limited = own(Counter, "tenant_rate_limited", "Answers 429 by tenant.", ("tenant",))
        self.lag = own(Histogram, "event_loop_lag_seconds", "How late the event loop was.", (), _LAG_S)

    def tenant(self, name: str) -> str:
        """The label of a tenant; whoever comes after the first so many shares one."""
        if name in self._tenants or len(self._tenants) < MAX_TENANTS:
            self._tenants.add(name)
            return name
        return "(others)"

    def finished(self, reason: str) -> None:
        self.success.labels(self._model, _ENGINE, reason).inc()

    def watch(self, engine: AsyncEngine) -> None:
        """Read counts of steps and blocks from this engine from now on."""
        self.registry.register(_EngineCounts(engine, self._model, self.tenant))

    def page(self) -> bytes:
        """Everything, in Prometheus' text format."""
        return generate_latest(_WithoutCreated(self.registry))

    async def measure_lag(self) -> None:
        """Until cancelled: how much later than asked for the event loop comes back."""
        while True:
            before = time.monotonic()
            await asyncio.sleep(LAG_EVERY_S)
            self.lag.observe(max(0.0, time.monotonic() - before - LAG_EVERY_S))

    def _vllm(self, kind: Any, name: str, help: str, buckets: tuple[float, ...] = ()) -> Any:
        more = {"buckets": buckets} if buckets else {}
        metric = kind(f"vllm:{name}", help, ("model_name", "engine"), registry=self.registry, **more)
        return metric.labels(self._model, _ENGINE)

    def _own(
        self, kind: Any, name: str, help: str, labels: tuple[str, ...] = (), buckets: tuple[float, ...] = ()
    ) -> Any:
        more = {"buckets": buckets} if buckets else {}
        return kind(f"openwork:{name}", help, labels, registry=self.registry, **more)


class _WithoutCreated:
    """A registry without the times at which series began, which nobody reads and which double the page."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def collect(self) -> Iterator[Metric]:
        for metric in self._registry.collect():
            metric.samples = [sample for sample in metric.samples if not sample.name.endswith("_created")]
            yield metric


class _EngineCounts:
    """What the engine knows of itself, at the moment somebody asks."""

    def __init__(self, engine: AsyncEngine, model: str, tenant: Callable[[str], str]) -> None:
        self._engine = engine
        self._labels = {"model_name": model, "engine": _ENGINE}
        self._tenant = tenant

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterator[Metric]:
        status = self._engine.status()
        yield self._gauge("vllm:num_requests_running", "Sequences that hold blocks.", status.running)
        yield self._gauge("vllm:num_requests_waiting", "Sequences that do not.", status.waiting)
        yield self._count("vllm:num_preemptions", "Sequences that gave their blocks back.", status.preemptions)
        yield self._count("vllm:prefix_cache_queries", "Prompt tokens looked up.", status.prefix_queries)
        yield self._count("vllm:prefix_cache_hits", "Prompt tokens found.", status.prefix_hits)
        yield self._count("openwork:engine_restarts", "Times the engine was started again.", status.restarts)
        age = 0.0 if status.last_step_age_s is None else status.last_step_age_s
        yield self._gauge("openwork:last_step_age_seconds", "Since a step was completed; 0 when idle.", age)
        yield from self._recorded(status)
        yield from self._steps(status)
        yield from self._blocks(status)

    def _recorded(self, status: Status) -> Iterator[Metric]:
        recorded = status.recorded
        if recorded is None:
            return
        yield self._gauge("openwork:recording", "1 while the flight recorder writes, 0 when it cannot.", recorded.is_on)
        yield self._count("openwork:recorded_bytes", "Written by the flight recorder.", recorded.num_bytes)
        yield self._count("openwork:recording_failures", "Times it had to stop.", recorded.num_failures)

    def _steps(self, status: Status) -> Iterator[Metric]:
        steps = HistogramMetricFamily("vllm:iteration_tokens_total", "Rows of a step.", labels=list(self._labels))
        steps.add_metric(list(self._labels.values()), [("+Inf", float(status.steps))], float(status.rows))
        yield steps
        try:
            facts = self._engine.facts
        except EngineUnavailable:
            return
        shape = {"block_size": facts.block_size, "num_gpu_blocks": facts.num_blocks, "cache_dtype": facts.kv_dtype}
        labels = self._labels | {name: str(value) for name, value in shape.items()}
        info = GaugeMetricFamily("vllm:cache_config_info", "The shape of the KV cache.", labels=list(labels))
        info.add_metric(list(labels.values()), 1.0)
        yield info

    def _blocks(self, status: Status) -> Iterator[Metric]:
        gauges = status.gauges
        if gauges is not None and gauges.total:
            used = 1 - (gauges.free + gauges.evictable) / gauges.total
            yield self._gauge("vllm:kv_cache_usage_perc", "Part of the KV cache that cannot be evicted.", used)
            kinds = ("free", "evictable", "pinned", "private", "shared")
            blocks = GaugeMetricFamily("openwork:kv_blocks", "Blocks by what becomes of them.", labels=["kind"])
            for kind in kinds:
                blocks.add_metric([kind], getattr(gauges, kind))
            yield blocks
            yield self._gauge("openwork:kv_wasted_slots", "Slots at the ends of last blocks.", gauges.wasted)
        tenants: dict[str, int] = {}
        for name, each in status.by_tenant.items():
            label = self._tenant(name)
            tenants[label] = tenants.get(label, 0) + each.total - each.free
        held = GaugeMetricFamily("openwork:tenant_kv_blocks", "Blocks charged to a tenant.", labels=["tenant"])
        for label, count in tenants.items():
            held.add_metric([label], count)
        yield held

    def _gauge(self, name: str, help: str, value: float) -> Metric:
        metric = GaugeMetricFamily(name, help, labels=list(self._labels))
        metric.add_metric(list(self._labels.values()), value)
        return metric

    def _count(self, name: str, help: str, value: float) -> Metric:
        metric = CounterMetricFamily(name, help, labels=list(self._labels))
        metric.add_metric(list(self._labels.values()), value)
        return metric
