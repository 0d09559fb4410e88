"""Comparing: the exit codes of the two commands that compare, ``openwork replay`` and ``openwork trace check``.

A program that runs them is to tell a difference from a comparison that never was. So 0 is equal, 1 is different, and
whatever else goes wrong on the way (no recording, no tokens in it, another model, no memory) is 3; 2 stays with what
was asked wrongly.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from openwork.core.errors import OpenworkError, RequestError

EQUAL, DIFFERENT, NOT_COMPARED = 0, 1, 3


class NotCompared(Exception):
    """Its cause says why."""


@contextmanager
def comparing() -> Iterator[None]:
    """Within it, what goes wrong means that nothing was compared. Raises NotCompared, and RequestError as it is."""
    try:
        yield
    except RequestError:
        raise
    except (OpenworkError, MemoryError) as error:
        raise NotCompared from error
