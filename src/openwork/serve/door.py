"""Door: what is decided about a request before anybody asks who sent it: its Host, its Origin, whether it needs a key.

A page of the web can make a browser send requests to this machine, under a name that it points here (DNS rebinding) or
from another origin. So a server that only this machine should reach takes only this machine's names, and pages read
nothing unless their origin was listed. Paths are compared as they came, never decoded or rebuilt.
"""

from __future__ import annotations

from collections.abc import Iterable, MutableMapping
from typing import Any

from openwork.serve.errors import forbidden
from openwork.serve.settings import LOOPBACK, ServeSettings

# Probes of load balancers carry no keys, and these say one word about the process and nothing about anybody.
PUBLIC = frozenset({b"/health", b"/ready", b"/ping"})
SEE = b"/see"  # the page of the microscope, which holds nothing of anybody's; what it shows needs a key
OPERATIONS = PUBLIC | {b"/version", b"/metrics", b"/v1/limits"}  # answered also while loading and draining


class Door:
    """The names and origins that are let in."""

    def __init__(self, settings: ServeSettings) -> None:
        names = {name.lower().encode("ascii") for name in settings.allowed_hosts}
        if settings.is_loopback:
            names |= {name.encode("ascii") for name in LOOPBACK}
        self._hosts = frozenset(names)
        self._public = PUBLIC | ({SEE} if settings.allow_see else set())
        self._origins = frozenset(origin.encode("ascii") for origin in settings.cors_origins)

    def check(self, scope: MutableMapping[str, Any]) -> dict[str, str]:
        """The CORS headers of the answer. Raises ApiError 403 for a Host or an Origin that is not let in."""
        hosts, origins = _values(scope, b"host"), _values(scope, b"origin")
        host = hosts[0].lower() if hosts else b""
        if self._hosts and _name(host) not in self._hosts:
            raise forbidden("This server is not reached under this name; the operator can allow it: --allowed-host.")
        if not origins:
            return {}
        origin = origins[0] if len(origins) == 1 else b""
        if origin in self._origins:
            headers = {"access-control-allow-origin": origin.decode("ascii"), "vary": "origin"}
            if self.is_preflight(scope):
                headers["access-control-allow-methods"] = "GET, POST"
                headers["access-control-allow-headers"] = "authorization, content-type, x-request-id"
                headers["access-control-max-age"] = "600"
            return headers
        if origin.partition(b"://")[2].lower() != host:  # a page of this very server is no stranger
            raise forbidden("Pages of this origin may not use this server; the operator can allow it: --cors-origin.")
        return {}

    def is_preflight(self, scope: MutableMapping[str, Any]) -> bool:
        """Whether a browser asks for a page of a listed origin what it may send; it never sends a key with that."""
        is_asking = scope["method"] == "OPTIONS" and bool(_values(scope, b"access-control-request-method"))
        return is_asking and bool(self._origins.intersection(_values(scope, b"origin")))

    def is_public(self, scope: MutableMapping[str, Any]) -> bool:
        return scope["raw_path"] in self._public and scope["method"] in ("GET", "HEAD")

    def is_operation(self, scope: MutableMapping[str, Any]) -> bool:
        return scope["raw_path"] in OPERATIONS


def _values(scope: MutableMapping[str, Any], name: bytes) -> list[bytes]:
    headers: Iterable[tuple[bytes, bytes]] = scope["headers"]
    return [value for each, value in headers if each == name]


def _name(host: bytes) -> bytes:
    """A Host without its port."""
    if host.startswith(b"["):
        return host[1:].partition(b"]")[0]
    return host.partition(b":")[0]
