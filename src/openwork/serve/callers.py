"""Caller: who sent a request, and what it may do here."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType

from openwork.core.terms import Terms


class Reservation:
    """A place among the caller's running requests and tokens of its rate, from before a request until its end.

    ``settle`` says how many tokens it really took; leaving the ``with`` block gives the place back.
    """

    def settle(self, tokens: int) -> None:
        pass

    def __enter__(self) -> Reservation:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass


class Caller:
    """One tenant, as a request sees it. This one is for a server without keys: everybody is the same tenant."""

    tenant = ""
    may_prioritise = False  # whether it may say how urgent a request is

    def may_use(self, model: str) -> bool:
        return True

    def terms(
        self,
        *,
        cache_salt: str | None = None,
        priority: int = 0,
        first_token_s: float | None = None,
        next_token_s: float | None = None,
    ) -> Terms:
        """The terms that a request is served on. ``cache_salt`` makes its prefix cache private to those who know it."""
        namespace = None if cache_salt is None else f"{self.tenant}/{cache_salt}"
        return Terms(
            tenant=self.tenant,
            namespace=namespace,
            priority=priority,
            first_token_s=first_token_s,
            next_token_s=next_token_s,
        )

    def reserve(self, tokens: int) -> Reservation:
        """Take a place for a request of at most so many tokens, prompt and output. Raises ApiError 429."""
        return Reservation()

    def headers(self) -> Mapping[str, str]:
        """The rate-limit headers of an answer."""
        return {}
