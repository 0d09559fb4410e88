"""Terms: for whom a request is served, how urgently, and with whose cache. Tenant: what an operator grants to one.

    rank        an order in which sequences are served and, backwards, give way; it never changes while they live
    namespace   what is cached under one is never seen under another; opaque, and private to the tenant by default

Names are labels made by the operator's side (an edge derives them from a key), never words of a client. Nothing here
knows keys, clocks or what a tenant is doing now.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from openwork.core.errors import OpenworkError, RequestError

MAX_NAME = 256
MAX_PRIORITY = 1000

Namespace = tuple[str, str]  # (whose kind of name, name): a namespace called like a tenant is another one


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """Who asks and how urgent it is.

    tenant         who is charged for tokens and memory
    namespace      of the prefix cache; None: the tenant's own
    priority       smaller is more urgent. [-1000, 1000]
    first_token_s  seconds after arrival within which the first token is wanted; None: no wish
    next_token_s   seconds between tokens that are wanted; None: no wish

    Raises RequestError, naming the parameter.
    """

    tenant: str = ""
    namespace: str | None = None
    priority: int = 0
    first_token_s: float | None = None
    next_token_s: float | None = None

    def __post_init__(self) -> None:
        for name in ("tenant", "namespace"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, str) or len(value) > MAX_NAME):
                raise RequestError(f"must be a text of at most {MAX_NAME} characters", param=name)
        if isinstance(self.priority, bool) or not isinstance(self.priority, int) or abs(self.priority) > MAX_PRIORITY:
            raise RequestError(
                f"must be a whole number from {-MAX_PRIORITY} to {MAX_PRIORITY}, not {self.priority!r}",
                param="priority",
            )
        for name in ("first_token_s", "next_token_s"):
            value = getattr(self, name)
            if value is not None and not (_is_real(value) and 0 < value <= 1e6):
                raise RequestError(f"must be seconds above 0, not {value!r}", param=name)

    @property
    def realm(self) -> Namespace:
        """The namespace in full."""
        return ("tenant", self.tenant) if self.namespace is None else ("namespace", self.namespace)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tenant:
    """What one tenant may have. None: as much as there is.

    weight              its share of tokens and memory, against the weights of the others
    max_running         sequences that are admitted beside its running ones
    max_waiting         requests in the queue
    max_waiting_tokens  prompt tokens in the queue
    max_blocks          blocks of the cache charged to it, running and cached together
    reserved_blocks     blocks that stay cached for it whatever the others need
    """

    weight: float = 1.0
    max_running: int | None = None
    max_waiting: int | None = None
    max_waiting_tokens: int | None = None
    max_blocks: int | None = None
    reserved_blocks: int = 0

    def __post_init__(self) -> None:
        if not _is_real(self.weight) or not 0 < self.weight <= 1e6:
            raise OpenworkError(f"a tenant's weight is {self.weight!r}", "It must be a number above 0.")
        for name in ("max_running", "max_waiting", "max_waiting_tokens", "max_blocks"):
            value = getattr(self, name)
            if value is not None and not (isinstance(value, int) and value >= 1):
                raise OpenworkError(f"a tenant's {name} is {value!r}", "It must be a whole number from 1 up, or None.")
        if not isinstance(self.reserved_blocks, int) or self.reserved_blocks < 0:
            raise OpenworkError(f"a tenant's reserved_blocks is {self.reserved_blocks!r}", "It must be 0 or more.")


class Tenants:
    """Every tenant by name; who is not named has the default. ``replace`` is how a new list takes effect."""

    def __init__(self, known: Mapping[str, Tenant] | None = None, default: Tenant | None = None) -> None:
        self._default = default or Tenant()
        self._known = dict(known or {})

    def __getitem__(self, name: str) -> Tenant:
        return self._known.get(name, self._default)

    @property
    def known(self) -> dict[str, Tenant]:
        return dict(self._known)

    def replace(self, known: Mapping[str, Tenant]) -> None:
        self._known = dict(known)


def _is_real(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value == value
