"""Lighting: a model opened to look into what was recorded with it, and its words. For the command line and for servers.

It is opened as it was when the recording was made: number formats, context, and the arithmetic of its contract where
this machine has it. What cannot be opened is said on the page; the recording speaks for itself then.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from openwork.cli.records import token_text
from openwork.core.errors import OpenworkError
from openwork.core.event import Ended, Event
from openwork.core.settings import LoadSettings
from openwork.run.capture import Examiner
from openwork.trace.view.costs import shape_of
from openwork.trace.view.lamp import Lamp

if TYPE_CHECKING:
    from openwork.cluster.supervisor import Service
    from openwork.core.request import Request
    from openwork.engine.face import AsyncEngine
    from openwork.serve.see import See

LOOKER = (sys.executable, "-m", "openwork.cli.looker")
SERVED_BYTES = 256 << 20  # for keys and values of one sequence that is looked into on a server


def light(
    model: str | None,
    settings: LoadSettings,
    contract_id: str | None,
    examine_bytes: int,
    has_ceilings: bool = False,
) -> Lamp:
    """The lamp of a model by its name or directory. Raises nothing: a lamp that stays dark says why."""
    from openwork.build import examiner
    from openwork.load import source
    from openwork.text.tokenizer import Tokenizer

    try:
        opened = examiner(model, settings, contract_id=contract_id)
        directory = source.resolve(model)
        tokenizer = Tokenizer.load(directory) if (directory / "tokenizer.json").exists() else None
    except OpenworkError as error:
        return Lamp(dark=f"The model could not be opened, so rows cannot be computed again: {error}")
    return Lamp(
        examiner=opened,
        text_of=lambda token: token_text(token, tokenizer),
        shape=shape_of(opened),
        ceilings=measured(opened) if has_ceilings else None,
        examine_bytes=examine_bytes,
    )


def measured(examiner: Examiner) -> Mapping[str, Any] | None:
    """The ceilings of this machine, now; None without the native core."""
    from openwork.bench.limits import DOTS, Limits
    from openwork.ops.cpu import Cpu

    ops = examiner.model.ops
    if not isinstance(ops, Cpu):
        return None
    dot = DOTS[examiner.dtype]
    found = Limits(ops).now([examiner.dtype])
    return {
        "read_bytes_s": found.read,
        "operations_s": found.dots[dot],
        "said": f"Ceilings were measured on this machine when the page was made: {dot} products, {ops.num_threads} "
        "threads. The steps were measured when they ran, perhaps elsewhere.",
    }


def see_of(service: Service, engine: AsyncEngine) -> See:
    """The microscope of a server that records, in a process of its own: its model is opened there a second time, from
    the same mapped weights, on one core, when it is used."""
    from openwork.cluster.glass import Glass
    from openwork.cluster.looking import Open
    from openwork.serve.see import See

    record = service.record
    assert record is not None, "the command line asks for a recording"

    def opening() -> Open:
        facts = engine.facts
        load = replace(
            service.load, dtype=facts.dtype, kv_dtype=facts.kv_dtype, context=facts.limits.context, threads=1
        )
        return Open(record.directory, service.model, load, facts.contract_id, SERVED_BYTES)

    async def ask(request: Request, tenant: str) -> list[Event]:
        stream, events = await engine.submit(request), list[Event]()
        try:
            while not events or not isinstance(events[-1], Ended):
                events += await stream.take()
        finally:
            stream.cancel()
        return events

    return See(Glass(LOOKER, opening), ask, lambda: engine.facts.limits)
