"""Connection: HTTP/1.1 within bounds, on h11, as a protocol class for uvicorn.

It guarantees that one connection costs bounded memory and time whatever is sent on it: heads, bodies, answers and
readers have limits and deadlines; that a request is answered, refused as JSON, or cut off, never half answered as if
whole; and that bytes which follow a request before its answer are never read as another request. A half-closed client
gets its answer; one that is gone is noticed also while nothing is being sent. It knows no routes.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable
from typing import Any, Literal, Protocol

import h11

from openwork.serve import head
from openwork.serve.body import FEED_BYTES, Body
from openwork.serve.errors import ApiError, unavailable
from openwork.serve.half_close import Vigil
from openwork.serve.ids import new_request_id
from openwork.serve.settings import HttpLimits
from openwork.serve.transfer import Transfer, refusal_bytes, scope_of

_BODY_AHEAD_BYTES = 64 * 1024  # of a body nobody has asked for yet
_LINGER_BYTES = 16 * 1024 * 1024
_JUNK_BYTES = 64 * 1024  # behind a request, before its answer


class Witness(Protocol):
    """Hears of what no application sees."""

    def refused(self, error: ApiError, request_id: str) -> None: ...
    def cut_off(self, why: Literal["slow_reader", "junk", "unfinished"]) -> None: ...


class Connection(asyncio.Protocol):
    """One client. The first two arguments are ours, the others are what uvicorn hands to every protocol."""

    def __init__(
        self,
        limits: HttpLimits,
        witness: Witness,
        config: Any,
        server_state: Any,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self._limits = limits
        self._witness = witness
        self._app: Callable[..., Any] = config.loaded_app
        self._state = server_state
        self._app_state = app_state
        self._loop = _loop or asyncio.get_running_loop()
        self._parser = h11.Connection(h11.SERVER, max_incomplete_event_size=2 * FEED_BYTES)
        self._phase: Literal["head", "transfer", "lingering", "closed"] = "head"
        self._head = bytearray()
        self._transfer: Transfer | None = None
        self._body: Body | None = None
        self._num_extra_bytes = 0  # that were discarded
        self._has_eof = self._is_reading_paused = False
        self._deadline: asyncio.TimerHandle | None = None  # for what is being read
        self._write_deadline: asyncio.TimerHandle | None = None
        self._vigil: Vigil | None = None
        self._has_room = asyncio.Event()
        self._has_room.set()

    # -- from the event loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._state.connections.add(self)
        high = self._limits.output_bytes
        transport.set_write_buffer_limits(high=high - min(high // 4, 64 * 1024), low=high // 4)
        if len(self._state.connections) > self._limits.connections:
            self._refuse(unavailable("overloaded", "Too many connections are open."))
        else:
            self._expect(self._limits.header_s, self._close)

    def data_received(self, data: bytes) -> None:
        if self._phase == "head":
            if not self._head:
                self._expect(self._limits.header_s, self._slow_head)
            self._head += data
            self._read_head()
        elif self._phase == "transfer" and self._transfer is not None and not self._transfer.is_body_read:
            self._read_body(data)
        else:
            self._discard(len(data))

    def eof_received(self) -> bool:
        """Keeps the connection open while somebody may wait for an answer behind a half close."""
        self._has_eof = True
        transfer = self._transfer
        is_waiting = self._phase == "transfer" and transfer is not None and transfer.is_body_read
        if not is_waiting or self._parser.their_http_version == b"1.0":  # to 1.0 there is nothing to probe with
            if transfer is not None:
                transfer.lose()
            return False
        assert transfer is not None
        transfer.is_last = True
        self._vigil = Vigil(self._loop, self._transport, transfer.probe)
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self._phase = "closed"
        self._state.connections.discard(self)
        for timer in (self._deadline, self._write_deadline):
            if timer is not None:
                timer.cancel()
        if self._vigil is not None:
            self._vigil.end()
        self._has_room.set()
        if self._transfer is not None:
            self._transfer.lose()

    def pause_writing(self) -> None:
        self._has_room.clear()
        self._write_deadline = self._loop.call_later(self._limits.write_s, self._cut_off, "slow_reader")

    def resume_writing(self) -> None:
        self._has_room.set()
        if self._write_deadline is not None and self._phase != "closed" and not self._transport.is_closing():
            self._write_deadline.cancel()

    # -- from uvicorn

    def shutdown(self) -> None:
        """Take no further request; an answer that is being written is finished."""
        if self._phase == "head":
            self._close()
        elif self._transfer is not None:
            self._transfer.is_last = True

    # -- for the transfer

    def write(self, data: bytes) -> None:
        if data and not self._transport.is_closing():
            self._transport.write(data)

    async def room(self) -> None:
        """Wait until more may be written. Raises ConnectionResetError when nobody reads any more."""
        await self._has_room.wait()
        if self._phase == "closed" or self._transport.is_closing():
            raise ConnectionResetError("the client is gone")

    def want_body(self) -> None:
        if self._is_reading_paused and not self._has_eof:
            self._is_reading_paused = False
            self._transport.resume_reading()

    def answered(self, *, is_whole: bool) -> None:
        """The answer is written; the next request may come, unless something says that none can be understood."""
        transfer, self._transfer = self._transfer, None
        if self._phase != "transfer" or transfer is None:
            return
        self._state.total_requests += 1
        if not is_whole:
            self._cut_off("unfinished")
        elif not transfer.is_body_read:
            self._linger()
        elif transfer.is_last or self._has_eof or self._parser.our_state is not h11.DONE:
            self._linger() if self._num_extra_bytes else self._close()
        else:
            self._parser.start_next_cycle()
            self._phase = "head"
            self._expect(self._limits.idle_s, self._close)

    # -- reading

    def _read_head(self) -> None:
        try:
            end = head.find_end(self._head, self._limits)
            if end is None:
                return
            first, rest = bytes(self._head[:end]), bytes(self._head[end:])
            self._head.clear()
            head.check_fields(first, self._limits)
            self._parser.receive_data(first)
            request = self._parser.next_event()
        except ApiError as error:
            self._refuse(error)
            return
        except h11.RemoteProtocolError:
            self._refuse(head.not_http("a header or the request line is malformed"))
            return
        if not isinstance(request, h11.Request) or request.method == b"CONNECT":
            self._refuse(head.not_http("the method is not one of HTTP"))
            return
        self._begin(request)
        self._read_body(rest)

    def _begin(self, request: h11.Request) -> None:
        self._phase = "transfer"
        self._num_extra_bytes = 0
        self._body = Body(self._parser, self._limits)
        self._transfer = Transfer(self, self._parser, request, self._state.default_headers)
        self._expect(self._limits.body_s, self._slow_body)
        scope = scope_of(request, self._transport, self._app_state)
        task = self._loop.create_task(self._transfer.run(self._app, scope))
        self._state.tasks.add(task)
        task.add_done_callback(self._forget)

    def _forget(self, task: asyncio.Task[None]) -> None:
        self._state.tasks.discard(task)
        if not task.cancelled():
            task.exception()  # the gate has told about it; nothing is raised at whoever collects garbage

    def _read_body(self, data: bytes) -> None:
        transfer, body = self._transfer, self._body
        assert transfer is not None and body is not None
        try:
            transfer.feed(body.take(data))
        except ApiError as error:
            self._spoil(error)
            return
        if body.is_whole:
            self._expect(None)
            transfer.finish()
            self._discard(body.num_behind)
        elif transfer.held_bytes > _BODY_AHEAD_BYTES:
            self._pause_reading()

    def _spoil(self, error: ApiError) -> None:
        """The body cannot be read to its end: whoever asks for it hears why, and the connection ends."""
        self._expect(None)
        self._pause_reading()
        if self._transfer is not None:
            self._transfer.fail(error)

    def _discard(self, num_bytes: int) -> None:
        """Bytes that nobody will look at: behind a request, or while its refusal is on its way."""
        self._num_extra_bytes += num_bytes
        if self._transfer is not None and num_bytes:
            self._transfer.is_last = True
        if self._num_extra_bytes > (_LINGER_BYTES if self._phase == "lingering" else _JUNK_BYTES):
            self._cut_off("junk")

    def _pause_reading(self) -> None:
        if not self._is_reading_paused and not self._has_eof:
            self._is_reading_paused = True
            self._transport.pause_reading()

    # -- deadlines

    def _expect(self, seconds: float | None, otherwise: Callable[[], None] | None = None) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = None
        if seconds is not None and otherwise is not None:
            self._deadline = self._loop.call_later(seconds, otherwise)

    def _slow_head(self) -> None:
        seconds = self._limits.header_s
        self._refuse(head.refusal(408, f"The headers took longer than {seconds:g} seconds.", "request_timeout"))

    def _slow_body(self) -> None:
        seconds = self._limits.body_s
        self._spoil(head.refusal(408, f"The body took longer than {seconds:g} seconds.", "request_timeout"))

    # -- ending

    def _refuse(self, error: ApiError) -> None:
        """Answer without asking anybody, and close."""
        request_id = new_request_id()
        self._witness.refused(error, request_id)
        self.write(refusal_bytes(error, request_id))
        self._linger()

    def _linger(self) -> None:
        """Close for writing, and read on for a while: a reset would take the answer from a client that still sends."""
        self._phase = "lingering"
        self._num_extra_bytes = 0
        if self._has_eof or not self._transport.can_write_eof():
            self._close()
            return
        if not self._transport.is_closing():
            self._transport.write_eof()
            self.want_body()
        self._expect(self._limits.linger_s, self._close)

    def _close(self) -> None:
        """Close when all is written; a reader that does not take it is cut off."""
        self._phase = "closed"
        self._expect(None)
        self._transport.close()
        if self._write_deadline is None or self._write_deadline.cancelled():
            self._write_deadline = self._loop.call_later(self._limits.write_s, self._cut_off, "slow_reader")

    def _cut_off(self, why: Literal["slow_reader", "junk", "unfinished"]) -> None:
        """End with a reset: in HTTP/1.0 an orderly end would make a part look like the whole."""
        self._witness.cut_off(why)
        peer = self._transport.get_extra_info("socket")
        if peer is not None and peer.fileno() >= 0:
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._transport.abort()
