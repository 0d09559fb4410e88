"""Metered: an AsyncEngine that counts what passes through it, so that no route knows metrics.

Times are those of the engine's own clock, from the events themselves. Events pass unchanged, in order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from openwork.core.event import Admitted, Arrived, Ended, Event, Finished, Token
from openwork.core.output import FinishReason
from openwork.core.request import Request
from openwork.core.terms import Tenant
from openwork.engine.face import AsyncEngine, AsyncStream, Facts, Status
from openwork.serve.metrics import Metrics

_REASONS = {"cancelled": "abort"}  # in vLLM's words


class Metered:
    """Another engine, counted."""

    def __init__(self, engine: AsyncEngine, metrics: Metrics) -> None:
        self._engine = engine
        self._metrics = metrics
        metrics.watch(engine)

    @property
    def facts(self) -> Facts:
        return self._engine.facts

    async def submit(self, request: Request, name: str | None = None) -> AsyncStream:
        return MeteredStream(await self._engine.submit(request, name), self._metrics)

    def status(self) -> Status:
        return self._engine.status()

    async def pin(self, namespace_of: Request, tokens: Sequence[int], seconds: float) -> int:
        return await self._engine.pin(namespace_of, tokens, seconds)

    def replace_tenants(self, known: Mapping[str, Tenant]) -> None:
        self._engine.replace_tenants(known)

    async def drain(self, seconds: float) -> bool:
        return await self._engine.drain(seconds)

    async def close(self) -> None:
        await self._engine.close()


class MeteredStream:
    """Another stream, counted as its events are taken."""

    def __init__(self, stream: AsyncStream, metrics: Metrics) -> None:
        self.request = stream.request
        self._stream = stream
        self._metrics = metrics
        self._arrived: float | None = None
        self._admitted: float | None = None
        self._first: float | None = None
        self._last: dict[int, float] = {}  # index -> time of its last token
        self._tokens: dict[int, int] = {}

    async def take(self) -> list[Event]:
        events = await self._stream.take()
        for event in events:
            self._see(event)
        return events

    def cancel(self, index: int | None = None, reason: FinishReason = "cancelled") -> None:
        self._stream.cancel(index, reason)

    def _see(self, event: Event) -> None:
        match event:
            case Token(index=index, time=time):
                self._token(index, time)
            case Arrived(time=time):
                self._arrived = time if self._arrived is None else self._arrived
            case Admitted(time=time):
                self._admitted = time if self._admitted is None else self._admitted
            case Finished():
                self._metrics.finished(_REASONS.get(event.reason, event.reason))
                if event.failure == "numbers":
                    self._metrics.corrupted.inc()
            case Ended():
                self._ended(event)

    def _token(self, index: int, time: float) -> None:
        metrics = self._metrics
        metrics.generation_tokens.inc()
        if self._first is None:
            self._first = time
            if self._arrived is not None:
                metrics.time_to_first_token.observe(max(0.0, time - self._arrived))
        elif index in self._last:
            metrics.inter_token.observe(max(0.0, time - self._last[index]))
        self._last[index] = time
        self._tokens[index] = self._tokens.get(index, 0) + 1

    def _ended(self, event: Ended) -> None:
        metrics, request, account = self._metrics, self.request, event.account
        prompt, generated = len(request.prompt), sum(self._tokens.values())
        cached = min(prompt, account.cached)
        metrics.prompt_tokens.inc(prompt)
        metrics.cached_tokens.inc(cached)
        metrics.request_prompt.observe(prompt)
        metrics.request_generation.observe(generated)
        metrics.request_longest.observe(max(self._tokens.values(), default=0))
        metrics.request_n.observe(request.params.n)
        metrics.request_max.observe(request.max_tokens)
        metrics.computed.observe(prompt - cached)
        metrics.drafts.inc(account.guessed.verify_steps)
        metrics.draft_tokens.inc(account.guessed.drafted)
        metrics.accepted_tokens.inc(account.guessed.accepted)
        self._times(event)
        for cause, seconds in account.stalls:
            metrics.stalled.labels(cause).inc(max(0.0, seconds))
        tenant = metrics.tenant(request.terms.tenant)
        metrics.tenant_requests.labels(tenant).inc()
        metrics.tenant_prompt.labels(tenant).inc(prompt)
        metrics.tenant_generation.labels(tenant).inc(generated)

    def _times(self, event: Ended) -> None:
        metrics, end = self._metrics, event.time
        if self._arrived is not None:
            metrics.e2e.observe(max(0.0, end - self._arrived))
        if self._admitted is None:
            return
        metrics.queue_time.observe(max(0.0, event.account.queued_s))
        metrics.inference_time.observe(max(0.0, end - self._admitted))
        if self._first is None:
            return
        metrics.prefill_time.observe(max(0.0, self._first - self._admitted))
        metrics.decode_time.observe(max(0.0, end - self._first))
        longest = max(self._tokens.values())
        if longest > 1:
            metrics.per_token.observe(max(0.0, max(self._last.values()) - self._first) / (longest - 1))
