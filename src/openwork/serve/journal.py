"""Journal: what is written down and counted about requests, connections and failures. It decides nothing."""

from __future__ import annotations

import asyncio
import errno
import time
from collections.abc import Iterable
from typing import Any

from starlette.routing import BaseRoute

from openwork.serve.door import PUBLIC
from openwork.serve.errors import ApiError
from openwork.serve.gate import Visit
from openwork.serve.logs import Log
from openwork.serve.metrics import Metrics

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class Journal:
    """Writes to a log and to metrics. Paths are labels only when they are routes, so that nobody can invent series."""

    def __init__(self, log: Log, metrics: Metrics, routes: Iterable[BaseRoute]) -> None:
        self._log = log
        self._metrics = metrics
        self._paths: set[str] = set()
        self._full_told_at = -1.0
        self.know(routes)

    def know(self, routes: Iterable[BaseRoute]) -> None:
        self._paths |= {str(getattr(route, "path", "")) for route in routes}

    def visited(self, visit: Visit) -> None:
        scope, status = visit.scope, visit.status
        path, method = scope["path"], scope["method"]
        label = path if path in self._paths else "(other)"
        self._metrics.http.labels(label, method if method in _METHODS else "(other)", status or "none").inc()
        tenant = "" if visit.caller is None else visit.caller.tenant
        if status == 429:
            self._metrics.tenant_limited.labels(self._metrics.tenant(tenant)).inc()
        if status == 200 and scope["raw_path"] in PUBLIC:
            return  # probes come every second and say nothing
        self._log.write(
            "request",
            "error" if status >= 500 and status != 503 else "info",
            id=visit.request_id,
            label=visit.label,
            tenant=tenant,
            method=method,
            path=scope["raw_path"].decode("latin-1"),
            status=status,
            code=visit.code,
            end="whole" if visit.is_whole else "gone" if visit.is_gone else "cut",
            bytes=visit.sent_bytes,
            seconds=round(time.monotonic() - visit.began, 4),
        )

    def failed(self, error: BaseException, request_id: str) -> None:
        self._log.write_exception("failed", error, id=request_id)

    def refused(self, error: ApiError, request_id: str) -> None:
        self._metrics.http_refused.labels(error.status).inc()
        self._log.write("refused", id=request_id, status=error.status, code=error.code)

    def cut_off(self, why: str) -> None:
        self._metrics.http_cut.labels(why).inc()
        self._log.write("cut_off", "warning", why=why)

    def loop_failed(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """What the event loop could not hand to anybody."""
        error = context.get("exception")
        if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
            if time.monotonic() - self._full_told_at > 1:  # asyncio tries as often as there may be waiting
                self._full_told_at = time.monotonic()
                said = "no file descriptors are left; trying again every second"
                self._log.write("accept_failed", "error", said=said)
        elif isinstance(error, BaseException):
            self._log.write_exception("loop", error)
        else:
            self._log.write("loop", "error")
