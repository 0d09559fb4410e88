"""Recorded: says in the server's log when the engine's flight recorder stops and when it goes on. It serves no one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from openwork.engine.face import Status
from openwork.serve.logs import Log

LOOK_EVERY_S = 1.0


async def tell_of_recording(status: Callable[[], Status], log: Log, every_s: float = LOOK_EVERY_S) -> None:
    """Until cancelled. Nothing is said while all is well from the beginning."""
    was_on = True
    while True:
        recorded = status().recorded
        if recorded is not None and recorded.is_on != was_on:
            was_on = recorded.is_on
            if was_on:
                log.write("recording_goes_on")
            else:
                log.write("recording_stopped", "error", said=recorded.why_off, hint="The engine goes on without.")
        await asyncio.sleep(every_s)
