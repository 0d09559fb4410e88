"""What an operator chose for the edge: bounds of HTTP, where to listen, who may come, how long things may take.

Records only, checked when they are made. Every bound here is told at /v1/limits.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields

from openwork.core.errors import RequestError

LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpLimits:
    """Bounds of one connection and of one request on it. Sizes in bytes, times in seconds.

    line_bytes     the request line, else 414
    header_bytes   all header lines together, else 431
    num_headers    header lines, else 431
    header_s       from the first byte of a request to the last of its headers, else 408
    body_bytes     the body, else 413
    body_s         from the last byte of the headers to the last of the body, else 408
    idle_s         between two requests of a connection, which is then closed
    output_bytes   of an answer, written but not yet taken by the kernel
    write_s        a reader may take to make room, else its connection is cut
    linger_s       an answer that ends a connection is given to arrive while the client still sends
    connections    open at once, else 503
    """

    line_bytes: int = 8 * 1024
    header_bytes: int = 16 * 1024
    num_headers: int = 100
    header_s: float = 10.0
    body_bytes: int = 8 * 1024 * 1024
    body_s: float = 30.0
    idle_s: float = 30.0
    output_bytes: int = 256 * 1024
    write_s: float = 30.0
    linger_s: float = 2.0
    connections: int = 1024

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
                raise RequestError(f"must be a number above 0, not {value!r}", param=each.name)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeSettings:
    """Where the server listens, whom it lets in, and how it ends.

    allowed_hosts   names that a Host header may have, beside those of this machine when bound to loopback only
    cors_origins    web origins whose pages may read answers; none by default
    drain_s         running requests may take after a first SIGTERM
    stall_s         an engine with work may take over a step before /health says 503
    allow_see       the microscope is served: its page is for everybody, its numbers for whoever has a key
    """

    host: str = "127.0.0.1"
    port: int = 8000
    allowed_hosts: tuple[str, ...] = ()
    cors_origins: tuple[str, ...] = ()
    drain_s: float = 30.0
    stall_s: float = 60.0
    allow_see: bool = False
    http: HttpLimits = field(default_factory=HttpLimits)

    def __post_init__(self) -> None:
        if isinstance(self.port, bool) or not isinstance(self.port, int) or not 0 <= self.port <= 65535:
            raise RequestError(f"must be from 0 (any free one) to 65535, not {self.port!r}", param="port")
        if not self.host or not self.host.isascii() or len(self.host) > 253:
            raise RequestError(f"must be an address or a name, not {self.host!r}", param="host")
        for name in ("drain_s", "stall_s"):
            if not 0 <= getattr(self, name) < math.inf:
                raise RequestError(f"must be seconds from 0 up, not {getattr(self, name)!r}", param=name)
        for origin in self.cors_origins:
            if not origin.startswith(("http://", "https://")) or origin.endswith("/") or "*" in origin:
                raise RequestError(
                    f"must be like https://app.example, not {origin!r}", "No path and no star.", param="cors_origin"
                )

    @property
    def is_loopback(self) -> bool:
        """Whether only programs of this machine reach the server."""
        return self.host in LOOPBACK or self.host.startswith("127.")
