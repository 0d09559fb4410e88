"""Operations: the routes for whoever runs the server: is it alive, may it be sent work, what bounds are in force.

/health tells the truth in both directions: 200 only while an engine completes steps when it has work. /ready says
whether new requests are taken. They answer from what is known, and wait for nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any, Protocol

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from openwork.core.errors import EngineUnavailable
from openwork.engine.face import Facts, Status
from openwork.serve.callers import Caller
from openwork.serve.errors import forbidden
from openwork.serve.settings import ServeSettings

_IS_ALIVE = {"ready": True, "draining": True}  # else 503
METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Desk(Protocol):
    """What the operations are told by the server."""

    settings: ServeSettings

    def status(self) -> Status: ...
    def facts(self) -> Facts | None: ...
    def metrics_page(self) -> bytes: ...


def operations(desk: Desk, version: str, bounds: Mapping[str, Any]) -> list[Route]:
    """The routes. ``bounds`` are those of requests, for /v1/limits, beside the ones of HTTP."""
    at = _Answers(desk, version, bounds)
    table: dict[str, Callable[[Request], Any]] = {
        "/health": at.health,
        "/ping": at.ping,
        "/ready": at.ready,
        "/version": at.version,
        "/metrics": at.metrics,
        "/v1/limits": at.limits,
    }
    return [Route(path, answer, methods=["GET"]) for path, answer in table.items()]


class _Answers:
    def __init__(self, desk: Desk, version: str, bounds: Mapping[str, Any]) -> None:
        self._desk = desk
        self._version = version
        self._bounds = bounds

    async def health(self, request: Request) -> Response:
        status = self._desk.status()
        said = _health(status, self._desk.settings.stall_s)
        body = {"status": said, "state": status.state, "last_step_age_s": status.last_step_age_s}
        return JSONResponse(body, 200 if said == "ok" else 503)

    async def ping(self, request: Request) -> Response:
        is_well = _health(self._desk.status(), self._desk.settings.stall_s) == "ok"
        return JSONResponse({}, 200 if is_well else 503)

    async def ready(self, request: Request) -> Response:
        status = self._desk.status()
        is_ready = status.state == "ready" and _health(status, self._desk.settings.stall_s) == "ok"
        return JSONResponse({"ready": is_ready, "state": status.state}, 200 if is_ready else 503)

    async def version(self, request: Request) -> Response:
        return JSONResponse({"version": self._version})

    async def metrics(self, request: Request) -> Response:
        caller: Caller = request.scope["state"]["caller"]
        if not caller.may_operate:
            raise forbidden("Metrics tell on all tenants; this key may not read them (may_operate).")
        return Response(self._desk.metrics_page(), media_type=METRICS_TYPE)

    async def limits(self, request: Request) -> Response:
        caller: Caller = request.scope["state"]["caller"]
        settings, facts = self._desk.settings, self._desk.facts()
        model = {} if facts is None else {"context": facts.limits.context, "vocab_size": facts.limits.vocab_size}
        body = {
            "http": asdict(settings.http),
            "request": dict(self._bounds),
            "model": model,
            "server": {"drain_s": settings.drain_s, "stall_s": settings.stall_s},
            "caller": caller.limits(),
        }
        return JSONResponse(body)


def _health(status: Status, stall_s: float) -> str:
    if not _IS_ALIVE.get(status.state, False):
        return status.state
    return "stuck" if status.last_step_age_s is not None and status.last_step_age_s > stall_s else "ok"


def facts_of(engine: Any) -> Facts | None:
    """An engine's facts, once it has any."""
    try:
        facts: Facts = engine.facts
    except EngineUnavailable:
        return None
    return facts
