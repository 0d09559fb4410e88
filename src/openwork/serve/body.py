"""Body: what follows the head of one request, out of h11 and within bounds.

It guarantees bounded work for each byte that arrives, however the client cuts its chunks. Nothing here waits.
"""

from __future__ import annotations

import h11

from openwork.serve import head
from openwork.serve.settings import HttpLimits

FEED_BYTES = 16 * 1024  # handed to the parser at once: what it holds, and works on in one go, is bounded by it
_FREE_CHUNKS, _CHUNK_BYTES = 256, 16  # a chunk costs as much as many bytes do, so they must be this long on average


class Body:
    """``take`` what arrives; ``is_whole`` when all of it has."""

    def __init__(self, parser: h11.Connection, limits: HttpLimits) -> None:
        self.is_whole = False
        self.num_behind = 0  # bytes that came after its end, and belong to no request
        self._parser = parser
        self._limits = limits
        self._num_bytes = self._num_chunks = 0

    def take(self, data: bytes) -> bytes:
        """The content of what arrived. Raises ApiError 400 or 413; the connection is then of no further use."""
        parts = [self._parse(b"")]
        for start in range(0, len(data), FEED_BYTES):
            if self.is_whole:
                self.num_behind += len(data) - start
                break
            parts.append(self._parse(data[start : start + FEED_BYTES]))
        return b"".join(parts)

    def _parse(self, data: bytes) -> bytes:
        if data:
            self._parser.receive_data(data)
        parts = []
        while not self.is_whole:
            try:
                event = self._parser.next_event()
            except h11.RemoteProtocolError:
                raise head.not_http("the body is not in the announced form") from None
            if isinstance(event, h11.Data):
                parts.append(bytes(event.data))
                self._count(event)
            elif isinstance(event, h11.EndOfMessage):
                self.is_whole = True
                self.num_behind += len(self._parser.trailing_data[0])
            else:
                break
        return b"".join(parts)

    def _count(self, event: h11.Data) -> None:
        self._num_bytes += len(event.data)
        self._num_chunks += event.chunk_start
        if self._num_bytes > self._limits.body_bytes:
            raise head.too_large(self._limits)
        if self._num_chunks > _FREE_CHUNKS + self._num_bytes // _CHUNK_BYTES:
            raise head.not_http("its chunks are too small")
