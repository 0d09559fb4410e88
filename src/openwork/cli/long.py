"""Long: what a command that reads a whole recording wants around it: a bar that shows how far it is, and Python's
collector of cycles called seldom. Of the millions of small records that pass none is in a cycle, and looking through
those that are kept again and again takes a quarter of the time.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from openwork.cli.progress import Bars

SELDOM = (200_000, 50, 50)


@contextmanager
def reading() -> Iterator[Callable[[int, int], None]]:
    """Hears how many bytes were read, of how many."""
    usual = gc.get_threshold()
    gc.set_threshold(*SELDOM)
    try:
        with Bars() as bars:
            yield partial(bars, "reading")
    finally:
        gc.set_threshold(*usual)
